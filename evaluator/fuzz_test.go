package evaluator_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

var (
	seedFlag  = flag.Uint64("evaluator.seed", 1, "seed of the first generated scenario")
	countFlag = flag.Int("evaluator.count", 12, "number of generated scenarios, each of some 150 cases")
)

// TestGeneratedScenarios compares random batches over random fleets with one
// Prometheus that has all their series. A case is one expression at one instant
// or over one range. More of them, or one again:
//
//	go test ./evaluator -run TestGeneratedScenarios -evaluator.seed=SEED -evaluator.count=N
func TestGeneratedScenarios(t *testing.T) {
	t.Parallel()
	var total score
	for seed := *seedFlag; seed < *seedFlag+uint64(*countFlag); seed++ {
		result := newScenario(rand.New(rand.NewPCG(seed, 7))).run(t)
		total.cases += result.cases
		total.undefined += result.undefined
		for _, d := range result.deviations[:min(len(result.deviations), 3)] {
			t.Errorf("seed %d: %s\nrepeat with: go test ./evaluator -run TestGeneratedScenarios -evaluator.seed=%d -evaluator.count=1\n%s",
				seed, d.expr, seed, d.shrunk(t))
		}
	}
	t.Logf("%d cases, in %d of which Prometheus' answer depends on the order of its series", total.cases, total.undefined)
	require.Less(t, total.undefined, total.cases/20)
}

// shrunk looks for the least scenario with the same deviation and describes it.
func (d deviation) shrunk(t testing.TB) deviation {
	for tries := 0; tries < 400; {
		smaller := false
		for c := range d.scenario.smaller(d.expr) {
			if tries++; tries > 400 {
				break
			}
			if r := c.run(t); len(r.deviations) > 0 {
				d, smaller = r.deviations[0], true
				break
			}
		}
		if !smaller {
			break
		}
	}
	return d
}

// String is what one needs to see.
func (d deviation) String() string {
	var b strings.Builder
	s := d.scenario
	fmt.Fprintf(&b, "over %s, partitions %v\n", s.mode, s.partitions)
	for _, q := range s.batch {
		fmt.Fprintf(&b, "  query %s\n", q)
	}
	fmt.Fprintf(&b, "  at %v, over a range %v\n", s.instants, s.ranges)
	for _, one := range s.series[:min(len(s.series), 20)] {
		fmt.Fprintf(&b, "  series %s\n", one)
	}
	if more := len(s.series) - 20; more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	return b.String() + d.text
}

// smaller yields scenarios that lack something of s: queries, instants,
// series, parts of the expression, samples, a partition.
func (s scenario) smaller(expr string) func(yield func(scenario) bool) {
	return func(yield func(scenario) bool) {
		for _, list := range [][]scenario{s.lessAsked(expr), s.fewerInstants(), s.fewerSeries(), s.simpler(), s.fewerSamples()} {
			for _, c := range list {
				if !yield(c) {
					return
				}
			}
		}
	}
}

func (s scenario) lessAsked(expr string) (list []scenario) {
	if len(s.batch) > 1 {
		c := s
		c.batch = []scopedExpr{{expr: expr}}
		list = append(list, c)
	}
	for _, batch := range lessOf(s.batch) {
		c := s
		c.batch = batch
		list = append(list, c)
	}
	return list
}

func (s scenario) fewerInstants() (list []scenario) {
	for _, instants := range lessOf(s.instants) {
		c := s
		c.instants = instants
		list = append(list, c)
	}
	return list
}

func (s scenario) fewerSeries() (list []scenario) {
	for _, series := range lessOf(s.series) {
		c := s
		c.series = series
		list = append(list, c)
	}
	return list
}

// simpler replaces an expression, or a part of it, by a part of that.
func (s scenario) simpler() (list []scenario) {
	if len(s.batch) == 1 {
		for _, e := range simplerExpressions(s.batch[0].expr) {
			c := s
			c.batch = []scopedExpr{{e, s.batch[0].scope}}
			list = append(list, c)
		}
	}
	if len(s.ranges) == 1 {
		for _, e := range simplerExpressions(s.ranges[0]) {
			c := s
			c.ranges = []string{e}
			list = append(list, c)
		}
	}
	return list
}

// fewerSamples leaves out half of the samples of all series.
func (s scenario) fewerSamples() (list []scenario) {
	for _, late := range []bool{true, false} {
		c := s
		c.series = nil
		for _, one := range s.series {
			c.series = append(c.series, promql.Series{Metric: one.Metric, Floats: half(one.Floats, late), Histograms: half(one.Histograms, late)})
		}
		list = append(list, c)
	}
	return list
}

func half[T any](list []T, late bool) []T {
	if late {
		return list[len(list)/2:]
	}
	return list[:(len(list)+1)/2]
}

// lessOf are parts of a list: halves of a long one, and all but one of a short
// one.
func lessOf[T any](list []T) (parts [][]T) {
	switch n := len(list); {
	case n > 8:
		return [][]T{list[:n/2], list[n/2:], append(list[:n/4:n/4], list[n/2:]...)}
	case n > 1:
		for i := range list {
			parts = append(parts, append(list[:i:i], list[i+1:]...))
		}
	}
	return parts
}

// simplerExpressions are those in which one node is replaced by a part of it of
// the same type.
func simplerExpressions(expr string) (list []string) {
	root, err := parser.ParseExpr(expr)
	if err != nil {
		return nil
	}
	nodes := fields(&root)
	for _, node := range nodes {
		for _, part := range fields(node)[1:] {
			whole := *node
			if (*part).Type() != whole.Type() {
				continue
			}
			*node = *part
			text := root.String()
			// Without its parentheses a part may bind otherwise.
			if _, err := parser.ParseExpr(text); err == nil && len(text) < len(expr) {
				list = append(list, text)
			}
			*node = whole
		}
	}
	return list
}

// fields are where the expressions of a tree stand.
func fields(at *parser.Expr) []*parser.Expr {
	all := []*parser.Expr{at}
	below := func(children ...*parser.Expr) {
		for _, c := range children {
			if *c != nil {
				all = append(all, fields(c)...)
			}
		}
	}
	switch e := (*at).(type) {
	case *parser.AggregateExpr:
		below(&e.Expr)
	case *parser.BinaryExpr:
		below(&e.LHS, &e.RHS)
	case *parser.Call:
		for i := range e.Args {
			below(&e.Args[i])
		}
	case *parser.ParenExpr:
		below(&e.Expr)
	case *parser.SubqueryExpr:
		below(&e.Expr)
	case *parser.UnaryExpr:
		below(&e.Expr)
	}
	return all
}

// TestShrinking is about the steps of looking for the least scenario.
func TestShrinking(t *testing.T) {
	t.Parallel()
	require.Contains(t, simplerExpressions(`sum(rate(x[5m])) > 1`), `sum(rate(x[5m]))`)
	require.Contains(t, simplerExpressions(`sum(abs(x)) > 1`), `abs(x) > 1`)
	require.NotContains(t, simplerExpressions(`rate((x + y)[5m:])`), `rate(x + y[5m:])`)
	require.Equal(t, [][]int{{2, 3}, {1, 3}, {1, 2}}, lessOf([]int{1, 2, 3}))
	require.Len(t, lessOf(make([]time.Time, 9)), 3)
}
