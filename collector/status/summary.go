package status

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

// maxSamples is how many targets of a group are shown.
const maxSamples = 5

// Summary is the state of all pools, small enough to be gathered from many
// collectors.
type Summary struct {
	// Pools are sorted by name.
	Pools        []PoolSummary `json:"pools"`
	ConfigErrors []ConfigError `json:"configErrors"`
}

// PoolSummary is the state of one scrape pool.
type PoolSummary struct {
	Name   string `json:"name"`
	Active int    `json:"active"`
	// Unhealthy counts the active targets whose health is not up, which are
	// also those that were not scraped yet.
	Unhealthy int `json:"unhealthy"`
	// Dropped are sorted by reason.
	Dropped []DroppedCount `json:"dropped"`
	// Groups are sorted by error; the targets without one come last.
	Groups []TargetGroup `json:"groups"`
}

// DroppedCount says how many targets a relabelling rule has dropped.
type DroppedCount struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// TargetGroup are the active targets of a pool with the same last error.
type TargetGroup struct {
	LastError string `json:"lastError"`
	Count     int    `json:"count"`
	// Targets are the first five by their label instance.
	Targets []SampleTarget `json:"targets"`
}

// SampleTarget is one of a group.
type SampleTarget struct {
	Labels labels.Labels       `json:"labels"`
	Health scrape.TargetHealth `json:"health"`
	// LastScrapeDurationSeconds is a decimal number.
	LastScrapeDurationSeconds string `json:"lastScrapeDurationSeconds"`
}

func (h *Handler) summary(s Scraper, _ *http.Request) (any, error) { return h.summarize(s), nil }

func (h *Handler) summarize(s Scraper) Summary {
	active, dropped := s.TargetsActive(), s.TargetsDropped()
	names := slices.Clone(s.ScrapePools())
	slices.Sort(names)
	h.forget(names)
	answer := Summary{Pools: []PoolSummary{}, ConfigErrors: []ConfigError{}}
	answer.ConfigErrors = append(answer.ConfigErrors, h.deps.Refused()...)
	for _, name := range names {
		p := PoolSummary{Name: name, Active: len(active[name]), Groups: groups(active[name])}
		for _, t := range active[name] {
			if t.Health() != scrape.HealthGood {
				p.Unhealthy++
			}
		}
		p.Dropped = h.droppedCounts(s, name, dropped[name])
		answer.Pools = append(answer.Pools, p)
	}
	return answer
}

// groups puts targets with the same error together.
func groups(targets []*scrape.Target) []TargetGroup {
	byError := map[string][]*scrape.Target{}
	for _, t := range targets {
		text := errorText(t)
		byError[text] = append(byError[text], t)
	}
	shown := make([]TargetGroup, 0, len(byError))
	for _, text := range slices.SortedFunc(maps.Keys(byError), emptyLast) {
		shown = append(shown, TargetGroup{LastError: text, Count: len(byError[text]), Targets: samples(byError[text])})
	}
	return shown
}

func emptyLast(a, b string) int {
	if (a == "") != (b == "") {
		return -strings.Compare(a, b)
	}
	return strings.Compare(a, b)
}

func samples(targets []*scrape.Target) []SampleTarget {
	type sortable struct {
		labels labels.Labels
		target *scrape.Target
	}
	lb := labels.NewBuilder(labels.EmptyLabels())
	all := make([]sortable, 0, len(targets))
	for _, t := range targets {
		all = append(all, sortable{t.Labels(lb), t})
	}
	slices.SortFunc(all, func(a, b sortable) int {
		return cmp.Or(strings.Compare(a.labels.Get(model.InstanceLabel), b.labels.Get(model.InstanceLabel)), labels.Compare(a.labels, b.labels))
	})
	shown := make([]SampleTarget, 0, maxSamples)
	for _, s := range all[:min(len(all), maxSamples)] {
		shown = append(shown, SampleTarget{
			Labels: s.labels, Health: s.target.Health(),
			LastScrapeDurationSeconds: strconv.FormatFloat(s.target.LastScrapeDuration().Seconds(), 'f', -1, 64),
		})
	}
	return shown
}

// droppedPool is what was counted of a pool's dropped targets. The scrape
// manager makes new ones whenever it has looked at all targets again.
type droppedPool struct {
	first  *scrape.Target
	n      int
	counts []DroppedCount
}

// droppedCounts counts again only if the pool has new targets, since it costs a
// pass of relabelling.
func (h *Handler) droppedCounts(s Scraper, pool string, targets []*scrape.Target) []DroppedCount {
	if len(targets) == 0 {
		return []DroppedCount{}
	}
	h.mu.Lock()
	known := h.reasons[pool]
	h.mu.Unlock()
	if known.first == targets[0] && known.n == len(targets) {
		return known.counts
	}
	lb, rules := labels.NewBuilder(labels.EmptyLabels()), relabelRules(s, pool)
	byReason := map[string]int{}
	for _, t := range targets {
		byReason[reason(t.DiscoveredLabels(lb), rules)]++
	}
	counts := make([]DroppedCount, 0, len(byReason))
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		counts = append(counts, DroppedCount{Reason: reason, Count: byReason[reason]})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reasons[pool] = droppedPool{first: targets[0], n: len(targets), counts: counts}
	return counts
}

// forget drops what is known of pools that have gone.
func (h *Handler) forget(pools []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.reasons, func(pool string, _ droppedPool) bool { return !slices.Contains(pools, pool) })
}
