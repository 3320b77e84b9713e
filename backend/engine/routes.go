package engine

import (
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/promql-engine/extlabels"
)

// reason says why Prometheus' engine answers a query.
type reason string

// Known before the query runs.
const (
	// reasonUnimplemented: promql-engine says that it does not implement it.
	reasonUnimplemented reason = "unimplemented"
	// reasonExtendedRange: promql-engine ignores the anchored and smoothed
	// modifiers of a selector.
	reasonExtendedRange reason = "extended_range"
	// reasonSort: promql-engine removes the sorting functions wherever order does
	// not matter; Prometheus drops native histograms in sort and sort_desc, and
	// does not know the labels of what is absent in sort_by_label.
	reasonSort reason = "sort"
	// reasonFirst: promql-engine drops the metric's name in first_over_time of a
	// subquery, which Prometheus keeps.
	reasonFirst reason = "first_over_time"
	// reasonQuantile: promql-engine answers NaN for a quantile below 0 or above 1
	// of a classic histogram without +Inf bucket, where Prometheus is infinite.
	reasonQuantile reason = "quantile"
	// reasonCountValues: promql-engine keeps the label that count_values writes
	// even if it aggregates without it.
	reasonCountValues reason = "count_values"
)

// Known once promql-engine has answered; the query then runs again.
const (
	// reasonHistograms: outside of functions of ranges, sums and functions of
	// histograms, promql-engine computes with native histograms where Prometheus
	// leaves them out or marks the result as a gauge.
	reasonHistograms reason = "histograms"
	// reasonMixedTypes: where a series changes between floats and native
	// histograms, promql-engine yields wrong samples in place of none.
	reasonMixedTypes reason = "mixed_types"
	// reasonNotFinite: promql-engine carries sums from one window to the next,
	// where a sample that is infinite or not a number stays after it has left the
	// window.
	reasonNotFinite reason = "not_finite"
	// reasonDuplicates: promql-engine takes two series that never have a
	// sample at the same time for duplicates if they end up with equal labels.
	reasonDuplicates reason = "duplicates"
	// reasonNames: promql-engine lets many series match one although they become
	// equal without the name of their metric, and refuses to match such series
	// even if they never have a sample at the same time.
	reasonNames reason = "names"
)

var allReasons = []reason{
	reasonUnimplemented, reasonExtendedRange, reasonSort, reasonFirst, reasonQuantile, reasonCountValues,
	reasonHistograms, reasonMixedTypes, reasonNotFinite, reasonDuplicates, reasonNames,
}

// traits is what matters about an expression for choosing an engine.
type traits struct {
	// reason not to run on promql-engine at all.
	reason reason
	// histograms is set if an operator of little use for native histograms may
	// meet some.
	histograms bool
	// windows is set if a function reads all samples of a range.
	windows bool
	// matches is set if series are matched with each other.
	matches bool
}

func traitsOf(expr parser.Expr) traits {
	var t traits
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		t.add(node)
		return nil
	})
	return t
}

func (t *traits) add(node parser.Node) {
	switch n := node.(type) {
	case *parser.VectorSelector:
		if n.Anchored || n.Smoothed {
			t.reason = reasonExtendedRange
		}
	case *parser.Call:
		t.addCall(n)
	case *parser.UnaryExpr:
		t.meets(n.Expr)
	case *parser.AggregateExpr:
		if n.Op != parser.SUM && n.Op != parser.AVG && n.Op != parser.COUNT {
			t.meets(n.Expr)
		}
		if n.Op == parser.COUNT_VALUES && n.Without && slices.Contains(n.Grouping, text(n.Param)) {
			t.reason = reasonCountValues
		}
	case *parser.MatrixSelector:
		t.windows = true
	case *parser.BinaryExpr:
		t.meets(n.LHS, n.RHS)
		t.matches = t.matches || n.VectorMatching != nil && !n.Op.IsSetOperator()
	}
}

// forHistograms are the functions besides those named histogram_... whose
// answers about native histograms are Prometheus'.
var forHistograms = []string{"rate", "increase", "delta", "sum_over_time", "avg_over_time", "last_over_time", "count_over_time", "present_over_time"}

func (t *traits) addCall(n *parser.Call) {
	if !strings.HasPrefix(n.Func.Name, "histogram_") && !slices.Contains(forHistograms, n.Func.Name) {
		t.meets(n.Args...)
	}
	switch n.Func.Name {
	case "sort", "sort_desc", "sort_by_label", "sort_by_label_desc":
		t.reason = reasonSort
	case "histogram_quantile":
		if q, ok := n.Args[0].(*parser.NumberLiteral); !ok || !(q.Val >= 0 && q.Val <= 1) {
			t.reason = reasonQuantile
		}
	case "first_over_time":
		if _, ok := n.Args[0].(*parser.SubqueryExpr); ok {
			t.reason = reasonFirst
		}
	}
}

// doubt returns why promql-engine's answer to a query with these traits, which
// has read from a storage, is not to be trusted, or "".
func (t traits) doubt(res *promql.Result, read *watched) reason {
	switch {
	case read.mixed.Load():
		return reasonMixedTypes
	case t.windows && read.notFinite.Load():
		return reasonNotFinite
	case t.matches && read.names.Load():
		return reasonNames
	case errors.Is(res.Err, extlabels.ErrDuplicateLabelSet):
		return reasonDuplicates
	case res.Err == nil && t.histograms && read.histograms.Load():
		return reasonHistograms
	}
	return ""
}

// text is the value of a string, which may be in parentheses.
func text(expr parser.Expr) string {
	for {
		switch e := expr.(type) {
		case *parser.ParenExpr:
			expr = e.Expr
		case *parser.StringLiteral:
			return e.Val
		default:
			return ""
		}
	}
}

// meets notes operands of what does not suit histograms.
func (t *traits) meets(operands ...parser.Expr) {
	t.histograms = t.histograms || slices.ContainsFunc(operands, mayBeHistograms)
}

// mayBeHistograms tells whether an expression may yield native histograms.
func mayBeHistograms(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.NumberLiteral, *parser.StringLiteral:
		return false
	case *parser.ParenExpr:
		return mayBeHistograms(e.Expr)
	case *parser.SubqueryExpr:
		return mayBeHistograms(e.Expr)
	case *parser.UnaryExpr:
		return mayBeHistograms(e.Expr)
	case *parser.BinaryExpr:
		return mayBeHistograms(e.LHS) || mayBeHistograms(e.RHS)
	case *parser.AggregateExpr:
		return e.Op != parser.COUNT && mayBeHistograms(e.Expr)
	case *parser.Call:
		return !strings.HasPrefix(e.Func.Name, "histogram_") && slices.ContainsFunc(e.Args, mayBeHistograms)
	}
	return true
}
