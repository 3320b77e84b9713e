package status

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/scrape"
)

// Target is one that is scraped, as Prometheus shows it.
type Target struct {
	DiscoveredLabels   labels.Labels       `json:"discoveredLabels"`
	Labels             labels.Labels       `json:"labels"`
	ScrapePool         string              `json:"scrapePool"`
	ScrapeURL          string              `json:"scrapeUrl"`
	GlobalURL          string              `json:"globalUrl"`
	LastError          string              `json:"lastError"`
	LastScrape         time.Time           `json:"lastScrape"`
	LastScrapeDuration float64             `json:"lastScrapeDuration"`
	Health             scrape.TargetHealth `json:"health"`
	ScrapeInterval     string              `json:"scrapeInterval"`
	ScrapeTimeout      string              `json:"scrapeTimeout"`
}

// DroppedTarget is one that relabelling has dropped, and why.
type DroppedTarget struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
	ScrapePool       string        `json:"scrapePool"`
	Reason           string        `json:"reason"`
}

// Targets are all targets, by pool.
type Targets struct {
	ActiveTargets       []Target        `json:"activeTargets"`
	DroppedTargets      []DroppedTarget `json:"droppedTargets"`
	DroppedTargetCounts map[string]int  `json:"droppedTargetCounts"`
}

func (h *Handler) targets(s Scraper, r *http.Request) (any, error) {
	query := r.URL.Query()
	only, state := query.Get("scrapePool"), cmp.Or(strings.ToLower(query.Get("state")), "any")
	wanted := func(pool string) bool { return only == "" || pool == only }
	answer := Targets{ActiveTargets: []Target{}, DroppedTargets: []DroppedTarget{}}
	if state == "any" || state == "active" {
		answer.ActiveTargets = activeTargets(s, wanted)
	}
	if state == "any" || state == "dropped" {
		answer.DroppedTargets = droppedTargets(s, wanted)
		answer.DroppedTargetCounts = s.TargetsDroppedCounts()
	}
	return answer, nil
}

func activeTargets(s Scraper, wanted func(pool string) bool) []Target {
	shown, pools := []Target{}, s.TargetsActive()
	lb := labels.NewBuilder(labels.EmptyLabels())
	for _, pool := range slices.Sorted(maps.Keys(pools)) {
		if !wanted(pool) {
			continue
		}
		for _, t := range pools[pool] {
			shown = append(shown, Target{
				DiscoveredLabels: t.DiscoveredLabels(lb),
				Labels:           t.Labels(lb),
				ScrapePool:       pool,
				ScrapeURL:        t.URL().String(),
				// What is on loopback of this node has no other name elsewhere.
				GlobalURL:          t.URL().String(),
				LastError:          errorText(t),
				LastScrape:         t.LastScrape(),
				LastScrapeDuration: t.LastScrapeDuration().Seconds(),
				Health:             t.Health(),
				ScrapeInterval:     t.GetValue(model.ScrapeIntervalLabel),
				ScrapeTimeout:      t.GetValue(model.ScrapeTimeoutLabel),
			})
		}
	}
	return shown
}

// maxErrorText bounds the text of an error, which a target may have a say in.
const maxErrorText = 1000

func errorText(t *scrape.Target) string {
	err := t.LastError()
	if err == nil {
		return ""
	}
	text := strings.ToValidUTF8(err.Error(), "�")
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	return text
}

func droppedTargets(s Scraper, wanted func(pool string) bool) []DroppedTarget {
	shown, pools := []DroppedTarget{}, s.TargetsDropped()
	lb := labels.NewBuilder(labels.EmptyLabels())
	for _, pool := range slices.Sorted(maps.Keys(pools)) {
		if !wanted(pool) {
			continue
		}
		rules := relabelRules(s, pool)
		for _, t := range pools[pool] {
			discovered := t.DiscoveredLabels(lb)
			shown = append(shown, DroppedTarget{DiscoveredLabels: discovered, ScrapePool: pool, Reason: reason(discovered, rules)})
		}
	}
	return shown
}

func relabelRules(s Scraper, pool string) []*relabel.Config {
	cfg, err := s.ScrapePoolConfig(pool)
	if err != nil {
		return nil // The pool has gone since it was listed.
	}
	return cfg.RelabelConfigs
}

// reason is the relabelling rule that drops a target.
func reason(discovered labels.Labels, rules []*relabel.Config) string {
	for _, rule := range rules {
		next, keep := relabel.Process(discovered, rule)
		if !keep {
			return explain(rule)
		}
		discovered = next
	}
	return "relabelling leaves no labels"
}

func explain(rule *relabel.Config) string {
	sources := make([]string, len(rule.SourceLabels))
	for i, name := range rule.SourceLabels {
		sources[i] = string(name)
	}
	source := strings.Join(sources, ",")
	switch rule.Action {
	case relabel.Keep:
		return fmt.Sprintf("keep: %s does not match %q", source, rule.Regex.String())
	case relabel.Drop:
		return fmt.Sprintf("drop: %s matches %q", source, rule.Regex.String())
	case relabel.KeepEqual:
		return fmt.Sprintf("keepequal: %s is not %s", source, rule.TargetLabel)
	case relabel.DropEqual:
		return fmt.Sprintf("dropequal: %s is %s", source, rule.TargetLabel)
	}
	return fmt.Sprintf("%s: no labels are left", rule.Action)
}

func scrapePools(s Scraper, _ *http.Request) (any, error) {
	pools := slices.Clone(s.ScrapePools())
	slices.Sort(pools)
	return map[string][]string{"scrapePools": pools}, nil
}
