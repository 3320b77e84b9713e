package engine

import (
	"errors"

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
	// reasonSort: promql-engine removes sort and sort_desc wherever order does
	// not matter; Prometheus drops native histograms there.
	reasonSort reason = "sort"
)

// Known once promql-engine has answered; the query then runs again.
const (
	// reasonHistogramDifference: promql-engine does not mark the difference of
	// two native histograms as a gauge.
	reasonHistogramDifference reason = "histogram_difference"
	// reasonMixedTypes: where a series changes between floats and native
	// histograms, promql-engine yields wrong samples in place of none.
	reasonMixedTypes reason = "mixed_types"
	// reasonDuplicates: promql-engine takes two series that never have a
	// sample at the same time for duplicates if they end up with equal labels.
	reasonDuplicates reason = "duplicates"
)

var allReasons = []reason{
	reasonUnimplemented, reasonExtendedRange, reasonSort,
	reasonHistogramDifference, reasonMixedTypes, reasonDuplicates,
}

// traits is what matters about an expression for choosing an engine.
type traits struct {
	// reason not to run on promql-engine at all.
	reason reason
	// subtracts is set if histograms may be subtracted.
	subtracts bool
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
		if n.Func.Name == "sort" || n.Func.Name == "sort_desc" {
			t.reason = reasonSort
		}
	case *parser.BinaryExpr:
		t.subtracts = t.subtracts || n.Op == parser.SUB
	}
}

// doubt returns why promql-engine's answer to a query with these traits is
// not to be trusted, or "". mixed tells whether the query has read a series
// that changes between floats and native histograms.
func (t traits) doubt(res *promql.Result, mixed bool) reason {
	switch {
	case mixed:
		return reasonMixedTypes
	case errors.Is(res.Err, extlabels.ErrDuplicateLabelSet):
		return reasonDuplicates
	case res.Err != nil:
		return ""
	case t.subtracts && hasHistograms(res.Value):
		return reasonHistogramDifference
	}
	return ""
}

func hasHistograms(v parser.Value) bool {
	switch v := v.(type) {
	case promql.Vector:
		for _, s := range v {
			if s.H != nil {
				return true
			}
		}
	case promql.Matrix:
		for _, s := range v {
			if len(s.Histograms) > 0 {
				return true
			}
		}
	}
	return false
}
