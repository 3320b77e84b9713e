package dataset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// groupSize is the largest number of rules in a group.
const groupSize = 15

// windows are those of the generations of a pack: tenants that have several
// packs look at the same series through different windows.
var windows = [...]string{"5m", "10m", "2m", "4m"}

// Rule is a recording or alerting rule.
type Rule struct {
	// Group is the key of the rule group, in the form that Tocsin gives keys.
	Group string
	// Record is the recorded metric or, if empty, Alert the name of the alert.
	Record, Alert string
	// Expr reads nothing outside Scope.
	Expr string
	// Scope are the labels of the rule's tenant, which every selector in Expr
	// is restricted to.
	Scope map[string]string
}

// Name identifies the rule in reports.
func (r Rule) Name() string { return r.Group + "/" + r.Record + r.Alert }

// Rules are n rules: a pack about the whole fleet, at most a tenth of all, one
// about each cluster, at most half of all, and the rest are packs of the
// tenants, who get one after the other until there are enough rules.
func (f Fleet) Rules(n int) ([]Rule, error) {
	s := &rules{}
	s.add(install{name: "globalrules/fleet", pack: globalPack}, n/10)
	for _, c := range Clusters() {
		i := install{name: "clusterrules/" + c + "/cluster", pack: clusterPack, scope: labels.FromStrings("cluster", c)}
		s.add(i, n/(2*clusters))
	}
	tenants := f.Tenants()
	for i := 0; len(s.all) < n && s.err == nil; i++ {
		t, generation := tenants[i%len(tenants)], i/len(tenants)
		name := fmt.Sprintf("rules/%s/%s/pack-%d", t.Get("cluster"), t.Get("namespace"), generation)
		s.add(install{name: name, pack: tenantPack, scope: t, generation: generation}, n-len(s.all))
	}
	return s.all, s.err
}

// Global is the pack about the whole fleet.
func (f Fleet) Global() ([]Rule, error) {
	s := &rules{}
	s.add(install{name: "globalrules/fleet", pack: globalPack}, len(globalPack))
	return s.all, s.err
}

// Packs is the tenants' pack for the first n tenants.
func (f Fleet) Packs(n int) ([]Rule, error) {
	s := &rules{}
	for _, t := range f.Tenants()[:n] {
		name := fmt.Sprintf("rules/%s/%s/pack", t.Get("cluster"), t.Get("namespace"))
		s.add(install{name: name, pack: tenantPack, scope: t}, len(tenantPack))
	}
	return s.all, s.err
}

// Repeated are n times as many rules over the same selectors: each one with
// several thresholds.
func Repeated(all []Rule, n int) (repeated []Rule) {
	for i := range n {
		for _, r := range all {
			r.Group = fmt.Sprintf("%s/%d", r.Group, i)
			r.Expr = fmt.Sprintf("(%s) > %d", r.Expr, i)
			repeated = append(repeated, r)
		}
	}
	return repeated
}

// Aggregating are the rules all of whose selectors are aggregated.
func Aggregating(all []Rule) (some []Rule, err error) {
	for _, r := range all {
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name(), err)
		}
		raw := false
		parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
			if _, ok := n.(*parser.VectorSelector); ok {
				raw = raw || !slices.ContainsFunc(path, aggregates)
			}
			return nil
		})
		if !raw {
			some = append(some, r)
		}
	}
	return some, nil
}

func aggregates(n parser.Node) bool {
	_, ok := n.(*parser.AggregateExpr)
	return ok
}

// Selectors counts the selectors of rules and the different ones among them,
// windows and offsets aside: how often each series is looked up if nobody
// shares.
func Selectors(all []Rule) (used, different int, err error) {
	seen := map[string]bool{}
	for _, r := range all {
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			return 0, 0, fmt.Errorf("rule %q: %w", r.Name(), err)
		}
		for _, ms := range parser.ExtractSelectors(expr) {
			used++
			seen[fmt.Sprint(ms)] = true
		}
	}
	return used, len(seen), nil
}

// install is a pack in a scope.
type install struct {
	name       string
	pack       []entry
	scope      labels.Labels
	generation int
}

// rules gathers rules and remembers the first error.
type rules struct {
	all []Rule
	err error
}

// add installs a pack, or its first rules if there are more than limit.
func (s *rules) add(i install, limit int) {
	for n, e := range i.pack[:min(len(i.pack), limit)] {
		expr, err := i.expr(e)
		if err != nil {
			s.err = fmt.Errorf("rule %q of %q: %w", e.record+e.alert, i.name, err)
			return
		}
		s.all = append(s.all, Rule{
			Group:  fmt.Sprintf("%s/%d", i.name, n/groupSize),
			Record: e.record,
			Alert:  e.alert,
			Expr:   expr,
			Scope:  i.scope.Map(),
		})
	}
}

func (i install) expr(e entry) (string, error) {
	text := strings.ReplaceAll(e.expr, "$w", windows[i.generation%len(windows)])
	if e.above != 0 {
		text += " > " + strconv.FormatFloat(e.above*(1+float64(i.generation)/10), 'g', 6, 64)
	}
	parsed, err := parser.ParseExpr(text)
	if err != nil {
		return "", err
	}
	scoped, err := plan.Scope(parsed, i.scope)
	if err != nil {
		return "", err
	}
	return scoped.String(), nil
}
