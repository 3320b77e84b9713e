package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// tolerance is how far values may be apart, relative to the larger one: sums
// in another order differ in the last digits.
const tolerance = 1e-9

// compare returns an error that names the first rule whose results differ.
func compare(rules []dataset.Rule, want, got []worker.Result) error {
	if len(want) != len(rules) || len(got) != len(rules) {
		return fmt.Errorf("%d rules have %d and %d results", len(rules), len(want), len(got))
	}
	for i, r := range rules {
		if diff := difference(want[i], got[i]); diff != "" {
			return fmt.Errorf("rule %q has another result: %s\nexpression: %s", r.Name(), diff, r.Expr)
		}
	}
	return nil
}

// difference is empty if there is none.
func difference(want, got worker.Result) string {
	if want.Err != "" || got.Err != "" {
		return fmt.Sprintf("error %q, want %q", got.Err, want.Err)
	}
	a, b := sortedSamples(want), sortedSamples(got)
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(b) || i < len(a) && a[i].Labels < b[i].Labels:
			return "missing " + a[i].Labels
		case i >= len(a) || a[i].Labels != b[i].Labels:
			return "surplus " + b[i].Labels
		case !near(a[i].Value, b[i].Value):
			return fmt.Sprintf("%s is %v, want %v", a[i].Labels, b[i].Value, a[i].Value)
		}
	}
	return ""
}

func sortedSamples(r worker.Result) []worker.Sample {
	slices.SortFunc(r.Samples, func(a, b worker.Sample) int { return cmp.Compare(a.Labels, b.Labels) })
	return r.Samples
}

func near(a, b float64) bool {
	if math.IsNaN(a) || math.IsNaN(b) {
		return math.IsNaN(a) && math.IsNaN(b)
	}
	return a == b || math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}
