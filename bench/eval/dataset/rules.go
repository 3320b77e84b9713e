package dataset

import (
	"fmt"
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
