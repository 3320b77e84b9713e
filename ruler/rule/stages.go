package rule

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// The series that alerting rules write, beside what their users name.
const (
	alertsMetric      = "ALERTS"
	alertsStateMetric = "ALERTS_FOR_STATE"
	alertStateLabel   = "alertstate"
)

// Stages splits the rules of a group, given by index, so that evaluating stage
// after stage, the rules of a stage all at once and before any of their results
// is visible, gives what evaluating them one after the other in file order
// gives: each rule sees the results of exactly those earlier rules that it may
// read. Rules are as early as that allows and in file order within a stage.
//
// Whether a rule may read another is decided by the metric name and by the
// labels that the other is sure to set; what is not sure counts as read.
// Queries in templates are not considered: they run after all of the group's
// expressions. The time is quadratic in the number of rules.
//
// Reads has, for each rule, the earlier ones that it may read.
func Stages(g Group) (stages, reads [][]int) {
	prints := make([]Footprint, len(g.Rules))
	stage := make([]int, len(g.Rules))
	reads = make([][]int, len(g.Rules))
	for j, r := range g.Rules {
		prints[j] = NewFootprint(r, g.Scope)
		for i := range j {
			distance, bound := prints[j].distance(prints[i])
			if !bound {
				continue
			}
			stage[j] = max(stage[j], stage[i]+distance)
			if distance > 0 {
				reads[j] = append(reads[j], i)
			}
		}
		for len(stages) <= stage[j] {
			stages = append(stages, nil)
		}
		stages[stage[j]] = append(stages[stage[j]], j)
	}
	return stages, reads
}

// Footprint is what a rule reads and writes.
type Footprint struct {
	reads  [][]*labels.Matcher
	writes []pattern
}

// pattern is a set of series: for each label in it, the values that the label
// may have; labels that are not in it may have any. An absent label is "".
type pattern map[string][]string

// NewFootprint is the footprint of a rule in a group of the given scope.
func NewFootprint(r Rule, scope labels.Labels) Footprint {
	f := Footprint{reads: selectors(r.Expr)}
	fixed := fixedLabels(r, scope)
	if r.Alert == "" {
		fixed[labels.MetricName] = []string{r.Record}
		f.writes = []pattern{fixed}
		return f
	}
	fixed[labels.AlertName] = []string{r.Alert}
	for _, metric := range []string{alertsMetric, alertsStateMetric} {
		p := maps.Clone(fixed)
		p[labels.MetricName] = []string{metric}
		if metric == alertsMetric {
			p[alertStateLabel] = []string{"pending", "firing"}
		}
		f.writes = append(f.writes, p)
	}
	return f
}

// selectors returns the matchers of all that the expression reads. The function
// info reads series that no selector names, so it counts as reading anything.
func selectors(expr parser.Expr) [][]*labels.Matcher {
	out := parser.ExtractSelectors(expr)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if call, ok := n.(*parser.Call); ok && call.Func.Name == "info" {
			out = append(out, nil)
		}
		return nil
	})
	return out
}

// fixedLabels returns the labels that all results of the rule have. Those of
// alerts are templates, and a template's result is not known.
func fixedLabels(r Rule, scope labels.Labels) pattern {
	p := pattern{}
	r.Labels.Range(func(l labels.Label) {
		if r.Alert == "" || !strings.Contains(l.Value, "{{") {
			p[l.Name] = []string{l.Value}
		}
	})
	scope.Range(func(l labels.Label) { p[l.Name] = []string{l.Value} })
	return p
}

// distance is the least number of stages that f has to come after earlier, a
// rule before it in the file, if it is bound to it at all.
func (f Footprint) distance(earlier Footprint) (stages int, bound bool) {
	switch {
	case f.ReadsFrom(earlier):
		return 1, true
	case earlier.ReadsFrom(f), f.overlaps(earlier):
		// The earlier one must not see f's results, nor write after f.
		return 0, true
	default:
		return 0, false
	}
}

// ReadsFrom tells whether the rule may read what the other one, which may be
// itself, records.
func (f Footprint) ReadsFrom(other Footprint) bool {
	return slices.ContainsFunc(f.reads, func(selector []*labels.Matcher) bool {
		return slices.ContainsFunc(other.writes, func(p pattern) bool { return p.maySatisfy(selector) })
	})
}

func (f Footprint) overlaps(other Footprint) bool {
	return slices.ContainsFunc(f.writes, func(p pattern) bool {
		return slices.ContainsFunc(other.writes, p.overlaps)
	})
}

// maySatisfy tells if a series of the pattern may be selected.
func (p pattern) maySatisfy(selector []*labels.Matcher) bool {
	for _, m := range selector {
		values, known := p[m.Name]
		if known && !slices.ContainsFunc(values, m.Matches) {
			return false
		}
	}
	return true
}

// overlaps tells if a series may be in both patterns.
func (p pattern) overlaps(other pattern) bool {
	for name, values := range p {
		others, known := other[name]
		if known && !slices.ContainsFunc(values, func(v string) bool { return slices.Contains(others, v) }) {
			return false
		}
	}
	return true
}
