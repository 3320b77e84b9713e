package plan

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// TestNumbersMeanThemselvesWhereverTheyStand: what is sent for a fragment reads
// back as the number to the bit, as one operand of what is around it.
func TestNumbersMeanThemselvesWhereverTheyStand(t *testing.T) {
	t.Parallel()
	backends := parseBackends(t, `east {cluster="east"}`+"\n"+`west virtual {cluster="west"}`)
	const name = `scalar(y)`
	for v, text := range map[float64]string{
		0:                            "0",
		math.Copysign(0, -1):         "(-0)",
		-2.5:                         "(-2.5)",
		0.30000000000000004:          "0.30000000000000004",
		math.Inf(1):                  "+Inf",
		math.Inf(-1):                 "(-Inf)",
		math.NaN():                   "NaN",
		math.MaxFloat64:              "",
		math.SmallestNonzeroFloat64:  "",
		-math.SmallestNonzeroFloat64: "",
	} {
		p := New([]Query{{Expr: parse(t, `sum(- scalar(y) ^ x)`)}}, backends, Options{})
		for _, f := range p.Fragments[2:] {
			require.Equal(t, []int{0}, f.Scalars)
			before := f.Expr
			filled := f.With(map[string]float64{name: v})
			require.Equal(t, before, f.Expr)
			if text != "" {
				require.Contains(t, filled.Expr, "(-"+text+" ^ x)")
			}
			requireBase(t, parse(t, filled.Expr), v)
		}
	}
}

// requireBase looks for the number on the left of the only ^ of an expression.
func requireBase(t *testing.T, expr parser.Expr, want float64) {
	t.Helper()
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		e, ok := n.(*parser.BinaryExpr)
		if !ok {
			return nil
		}
		found = true
		switch base := unwrap(e.LHS).(type) {
		case *parser.NumberLiteral:
			require.Equal(t, math.Float64bits(want), math.Float64bits(base.Val))
		default:
			t.Fatalf("%s in %s is not a number", base, expr)
		}
		return nil
	})
	require.True(t, found)
}

// TestRequestsWaitForWhatTheyNeedOnly: a backend that does not answer holds up
// no fragment whose scalars are of others.
func TestRequestsWaitForWhatTheyNeedOnly(t *testing.T) {
	t.Parallel()
	backends := parseBackends(t, `a {c="a"}`+"\n"+`b {c="b"}`+"\n"+`d {c="d"}`)
	p := New([]Query{
		{Expr: parse(t, `sum(x{c="a"} * scalar(y{c="b"}))`)},
		{Expr: parse(t, `sum(x{c="a"} * scalar(y{c="d"}))`)},
		{Expr: parse(t, `count(x{c="a"} > scalar(z{c="d"}))`)},
		{Expr: parse(t, `sum(x{c="a"})`)},
	}, backends, Options{})
	var texts [][]string
	for _, fragments := range p.Requests() {
		var list []string
		for _, f := range fragments {
			list = append(list, p.Backends[p.Fragments[f].Backend].Name+": "+p.Fragments[f].Expr)
		}
		texts = append(texts, list)
	}
	require.Equal(t, [][]string{
		{`b: scalar(y{c="b"})`},
		{`a: sum(x{c="a"} * scalar({__tocsin_scalar__="scalar(y{c=\"b\"})"}))`},
		{`d: scalar(y{c="d"})`, `d: scalar(z{c="d"})`},
		{`a: sum(x{c="a"} * scalar({__tocsin_scalar__="scalar(y{c=\"d\"})"}))`, `a: count(x{c="a"} > scalar({__tocsin_scalar__="scalar(z{c=\"d\"})"}))`},
		{`a: sum(x{c="a"})`},
	}, texts)
}

// TestPartialQueriesAreNotInlined: their scalars may be made of a part of the
// data, which other queries that ask for the same must not get.
func TestPartialQueriesAreNotInlined(t *testing.T) {
	t.Parallel()
	backends := parseBackends(t, `a {c="a"}`+"\n"+`b {c="b"}`)
	expr := parse(t, `sum(x * scalar(sum(y)))`)
	p := New([]Query{{Expr: expr, Partial: true}, {Expr: expr}}, backends, Options{})
	require.Empty(t, p.Queries[0].Scalars)
	require.Equal(t, []int{0}, p.Queries[1].Scalars)
	require.Equal(t, []int{1}, p.Scalars[0].Consumers)
}
