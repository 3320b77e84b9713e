package evaluator_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
)

// BenchmarkMean compares what a mean over several backends asks each of them,
// a sum and a count, with a sum alone and with both as one query.
func BenchmarkMean(b *testing.B) {
	var series []promql.Series
	for i := range 3000 {
		ls := labels.FromStrings("cluster", "east", "instance", fmt.Sprint(i), "job", fmt.Sprint(i%50))
		var points []promql.FPoint
		for n := range int64(10) {
			points = append(points, promql.FPoint{T: slot.UnixMilli() - 30_000*n, F: float64(i)})
		}
		slices.Reverse(points)
		series = append(series, named(ls, "x_total", points))
	}
	const inner = `(rate(x_total{cluster="east"}[5m]))`
	const sum, count = `sum by (job) ` + inner, `count by (job) ` + inner
	for _, m := range []mode{overHTTP, overNative} {
		f := newFleet(b, m, series)
		for _, tc := range []struct {
			name  string
			exprs []string
		}{
			{"sum", []string{sum}},
			{"sum and count", []string{sum, count}},
			{"as one", []string{fmt.Sprintf(`label_replace(%s, "part", "sum", "", "") or label_replace(%s, "part", "count", "", "")`, sum, count)}},
		} {
			b.Run(fmt.Sprintf("%s/%s", m, tc.name), func(b *testing.B) {
				var queries []evaluator.Query
				for _, e := range tc.exprs {
					queries = append(queries, evaluator.Query{Expr: mustParse(b, e)})
				}
				before := cpu(b)
				for b.Loop() {
					for _, r := range f.evaluator.Evaluate(context.Background(), slot, queries) {
						require.NoError(b, r.Err)
					}
				}
				b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1e3, "cpu-us/op")
			})
		}
	}
}

// cpu is the CPU time of this process, which has the backends in it.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}
