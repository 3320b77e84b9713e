package evaluator_test

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/evaluator"
)

// resultDifference says in what a result differs from what one Prometheus
// answers, "" if in nothing.
func resultDifference(expr string, want, got *promql.Result) string {
	if want.Err != nil || got.Err != nil {
		return errorDifference(expr, want.Err, got.Err)
	}
	switch w := want.Value.(type) {
	case promql.Vector:
		if g, ok := got.Value.(promql.Vector); ok {
			return vectorDifference(w, g)
		}
	case promql.Matrix:
		if g, ok := got.Value.(promql.Matrix); ok {
			return matrixDifference(w, g)
		}
	case promql.Scalar:
		if g, ok := got.Value.(promql.Scalar); ok && w.T == g.T && almostEqual(w.V, g.V) {
			return ""
		}
	default:
		if want.String() == got.String() {
			return ""
		}
	}
	return fmt.Sprintf("want %s %s\ngot  %s %s\n", want.Value.Type(), want, got.Value.Type(), got)
}

func difference(expr string, want promql.Vector, wantErr error, got evaluator.Result) string {
	if wantErr != nil || got.Err != nil {
		return errorDifference(expr, wantErr, got.Err)
	}
	return vectorDifference(want, got.Vector)
}

// errorDifference compares outcomes of which at least one is an error.
func errorDifference(expr string, want, got error) string {
	if want != nil && (got != nil || isClash(expr, want)) {
		return ""
	}
	return fmt.Sprintf("want error %v, got error %v\n", want, got)
}

func vectorDifference(want, got promql.Vector) string {
	var b strings.Builder
	rest := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(rest, func(s promql.Sample) bool { return labels.Equal(s.Metric, w.Metric) })
		switch {
		case i < 0:
			fmt.Fprintf(&b, "missing %s\n", w)
			continue
		case !equalSamples(w, rest[i]):
			fmt.Fprintf(&b, "want %s, got %s\n", w, rest[i])
		}
		rest = slices.Delete(rest, i, i+1)
	}
	for _, r := range rest {
		fmt.Fprintf(&b, "surplus %s\n", r)
	}
	return b.String()
}

func matrixDifference(want, got promql.Matrix) string {
	if len(want) != len(got) {
		return fmt.Sprintf("want %d series, got %d:\n%s\n%s\n", len(want), len(got), want, got)
	}
	for i := range want {
		w, g := want[i], got[i]
		same := labels.Equal(w.Metric, g.Metric) && len(w.Floats) == len(g.Floats) && len(w.Histograms) == len(g.Histograms)
		for n := 0; same && n < len(w.Floats); n++ {
			same = w.Floats[n].T == g.Floats[n].T && almostEqual(w.Floats[n].F, g.Floats[n].F)
		}
		for n := 0; same && n < len(w.Histograms); n++ {
			same = w.Histograms[n].T == g.Histograms[n].T && almostEqualHistograms(w.Histograms[n].H, g.Histograms[n].H)
		}
		if !same {
			return fmt.Sprintf("want %s\ngot  %s\n", w, g)
		}
	}
	return ""
}

// isClash recognises the one known difference between an error and no result, which package plan describes:
// Prometheus reports a clash in one operand of a join that cannot have a
// partner, and a backend that lacks the partners does not.
func isClash(expr string, err error) bool {
	joins := false
	for _, operator := range []string{" + ", " - ", " * ", " / ", " > ", " == ", " < ", " and ", " unless ", " or "} {
		joins = joins || strings.Contains(expr, operator)
	}
	// promql-engine, which runs ranges at the embedded backend, has no error
	// where the series of a subquery clash that its function leaves out.
	within := strings.Contains(expr, "label_") && strings.Contains(expr, "m:")
	same := strings.Contains(err.Error(), "same labelset")
	return joins && strings.Contains(err.Error(), "many-to-many matching not allowed") || (joins || within) && same
}

func equalSamples(a, b promql.Sample) bool {
	if a.T != b.T || (a.H == nil) != (b.H == nil) {
		return false
	}
	if a.H == nil {
		return almostEqual(a.F, b.F)
	}
	return almostEqualHistograms(a.H, b.H)
}

func almostEqualHistograms(a, b *histogram.FloatHistogram) bool {
	if !almostEqual(a.Count, b.Count) || !almostEqual(a.Sum, b.Sum) || !almostEqual(a.ZeroCount, b.ZeroCount) {
		return false
	}
	ai, bi := a.Copy().Compact(0).AllBucketIterator(), b.Copy().Compact(0).AllBucketIterator()
	for ai.Next() {
		if !bi.Next() || ai.At().Lower != bi.At().Lower || !almostEqual(ai.At().Count, bi.At().Count) {
			return false
		}
	}
	return !bi.Next()
}

// almostEqual permits what another order of summation changes.
func almostEqual(a, b float64) bool {
	if math.IsNaN(a) || math.IsNaN(b) {
		return math.IsNaN(a) && math.IsNaN(b)
	}
	if a == b {
		return true
	}
	return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) || math.Abs(a-b) < 1e-12
}
