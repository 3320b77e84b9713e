package app

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"gopkg.in/yaml.v3"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/explain"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/web"
)

var _ explain.Planner = (*Config)(nil)

// LoadBackends reads a file with nothing but a list of backends, as the
// section of that name in the configuration: name, partition_labels, virtual
// and read_delay suffice to plan with. Rules are instantiated for every partition.
func LoadBackends(file string) (*Config, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read backends: %w", err)
	}
	cfg := defaultConfig()
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg.Backends); err != nil {
		return nil, fmt.Errorf("backends file %q: %w", file, err)
	}
	if err := plan.Validate(cfg.planBackends()); err != nil {
		return nil, fmt.Errorf("backends file %q: %w", file, err)
	}
	for _, b := range cfg.Backends {
		labels := maps.Clone(b.PartitionLabels)
		maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
		if len(labels) > 0 {
			cfg.Clusters = append(cfg.Clusters, labels)
		}
	}
	return cfg, nil
}

// Plan says how members with this configuration evaluate a batch.
func (c *Config) Plan(ts time.Time, queries []plan.Query) *plan.Plan {
	at := timestamp.FromTime(ts)
	return plan.New(queries, c.planBackends(), plan.Options{
		Window:       plan.Window{Start: at, End: at},
		SubqueryStep: time.Duration(evaluator.DefaultConfig().SubqueryStep),
	})
}

// Folding says which queries of a batch members evaluate as one, as long as
// that succeeds.
func (c *Config) Folding(queries []plan.Query) *plan.Folding {
	return plan.NewFolding(queries, c.planBackends())
}

func (c *Config) planBackends() []plan.Backend { return c.Evaluator().PlanBackends() }

// ExplainedRules are the rules of groups in the batches that a member which
// owns all of the groups evaluates them in.
func ExplainedRules(groups []rule.Group) []explain.Rule {
	var rules []explain.Rule
	for _, g := range groups {
		reads, stageOf := readsOwn(g), make([]int, len(g.Rules))
		stages, _ := rule.Stages(g)
		for stage, members := range stages {
			for _, i := range members {
				stageOf[i] = stage
			}
		}
		for i, r := range g.Rules {
			rules = append(rules, explain.Rule{
				Group: g.Key, Name: r.Name(), Type: ruleType(r), Expr: r.Expr, Scope: g.Scope, Reads: reads[i],
				Batch: explain.Batch{Slots: slots(g), Offset: g.QueryOffset, Stage: stageOf[i]},
			})
		}
	}
	return rules
}

// readsOwn are, for each rule of a group, the names of the rules of the group
// that it may read, whatever their order.
func readsOwn(g rule.Group) [][]string {
	prints := make([]rule.Footprint, len(g.Rules))
	for i, r := range g.Rules {
		prints[i] = rule.NewFootprint(r, g.Scope)
	}
	names := make([][]string, len(g.Rules))
	for i, reader := range prints {
		for j, other := range prints {
			if reader.ReadsFrom(other) {
				names[i] = append(names[i], g.Rules[j].Name())
			}
		}
	}
	return names
}

func ruleType(r rule.Rule) string {
	if r.Alert != "" {
		return "alerting"
	}
	return "recording"
}

// slots names the times at which a group is evaluated.
func slots(g rule.Group) string {
	return fmt.Sprintf("%s+%s", g.Interval, schedule.Offset(g.Phase(), g.Interval))
}

// plans explains loaded groups for the API.
type plans struct{ a *app }

var _ web.Plans = plans{}

// Plan implements web.Plans: the group is planned together with those that
// have its owner and its slots.
func (p plans) Plan(key string) (*explain.Report, error) {
	loaded := p.a.state.loadedGroups()
	i := slices.IndexFunc(loaded, func(g rule.Group) bool { return g.Key == key })
	if i < 0 {
		return nil, fmt.Errorf("%w: no group with the key %q is loaded", web.ErrNotFound, key)
	}
	view := p.a.gossip.View()
	owner, _ := view.Owner(key)
	together := slices.DeleteFunc(slices.Clone(loaded), func(g rule.Group) bool {
		other, _ := view.Owner(g.Key)
		return other != owner || slots(g) != slots(loaded[i])
	})
	slot := schedule.Slot(time.Now(), loaded[i].Interval, schedule.Offset(loaded[i].Phase(), loaded[i].Interval))
	return explain.Explain(p.a.evaluator, slot, ExplainedRules(together)).Only(key), nil
}
