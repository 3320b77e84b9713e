package engine_test

import (
	"fmt"
	"math"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
)

func printSeries(s promql.Series) string {
	var b strings.Builder
	b.WriteString(s.Metric.String())
	for _, p := range s.Floats {
		b.WriteString(" " + printPoint(p.T, p.F, nil))
	}
	for _, p := range s.Histograms {
		b.WriteString(" " + printPoint(p.T, 0, p.H))
	}
	return b.String()
}

func printPoint(t int64, f float64, h *histogram.FloatHistogram) string {
	if h == nil {
		return fmt.Sprintf("%s@%d", printFloat(f), t)
	}
	h = h.Copy().Compact(0)
	var b strings.Builder
	fmt.Fprintf(&b, "{schema:%d hint:%d count:%s sum:%s zero:%s/%s custom:%v", h.Schema, h.CounterResetHint,
		printFloat(h.Count), printFloat(h.Sum), printFloat(h.ZeroThreshold), printFloat(h.ZeroCount), h.CustomValues)
	for it := h.AllBucketIterator(); it.Next(); {
		if bucket := it.At(); bucket.Count != 0 {
			fmt.Fprintf(&b, " %d:%s", bucket.Index, printFloat(bucket.Count))
		}
	}
	fmt.Fprintf(&b, "}@%d", t)
	return b.String()
}

func printFloat(f float64) string {
	if math.Abs(f) < 1e-12 {
		return "0"
	}
	return fmt.Sprintf("%.10g", f)
}

// printWarnings counts warnings; infos are advice on style.
func printWarnings(a annotations.Annotations) string {
	warnings, _ := a.AsStrings("", 0, 0)
	return fmt.Sprint(" warnings:", len(warnings))
}
