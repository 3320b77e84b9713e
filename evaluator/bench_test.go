package evaluator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

func packQueries(b *testing.B, pack string) []evaluator.Query {
	var queries []evaluator.Query
	for _, e := range packExpressions(b)[pack] {
		queries = append(queries, evaluator.Query{Expr: mustParse(b, e)})
	}
	return queries
}

// BenchmarkPlan plans a real rule pack as one batch over three partitions.
func BenchmarkPlan(b *testing.B) {
	queries := packQueries(b, "kube-prometheus")
	for _, virtual := range []bool{false, true} {
		b.Run(fmt.Sprintf("virtual=%t", virtual), func(b *testing.B) {
			var backends []plan.Backend
			for _, p := range partitions {
				backends = append(backends, plan.Backend{Name: p.name, Partition: labels.FromStrings("cluster", p.labels["cluster"]), Virtual: virtual})
			}
			b.ReportAllocs()
			for b.Loop() {
				plan.New(queries, backends, plan.Options{SubqueryStep: time.Minute})
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(queries)), "us/query")
		})
	}
}

// BenchmarkEvaluatePack evaluates a real rule pack end to end, backends
// included.
func BenchmarkEvaluatePack(b *testing.B) {
	queries := packQueries(b, "kube-prometheus")
	v := vocabulary{}
	for _, q := range queries {
		v.add(q.Expr)
	}
	for _, m := range modes {
		b.Run(string(m), func(b *testing.B) {
			f := newFleet(b, m, v.series(rand.New(rand.NewPCG(7, 7))))
			b.ReportAllocs()
			for b.Loop() {
				f.evaluator.Evaluate(context.Background(), slot, queries)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(queries)), "us/query")
		})
	}
}

// BenchmarkMerge is dominated by what happens after the answers are here.
func BenchmarkMerge(b *testing.B) {
	var series []promql.Series
	for _, p := range partitions {
		for i := range 3000 {
			ls := labels.FromMap(map[string]string{"cluster": p.labels["cluster"], "instance": fmt.Sprint(i), "job": fmt.Sprint(i % 50)}).WithoutEmpty()
			for _, name := range []string{"x", "y"} {
				series = append(series, named(ls, name, []promql.FPoint{{T: slot.UnixMilli(), F: float64(i)}}))
			}
		}
	}
	f := newFleet(b, overNative, series)
	for _, expr := range []string{`sum by (job) (x)`, `x`, `quantile by (job) (0.9, x)`, `x / on (instance, cluster, job) (y * 2 or z)`, `sum by (instance) (x) / sum by (instance) (y)`} {
		b.Run(expr, func(b *testing.B) {
			queries := []evaluator.Query{{Expr: mustParse(b, expr)}}
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, f.evaluator.Evaluate(context.Background(), slot, queries)[0].Err)
			}
		})
	}
}

// BenchmarkScalars compares scalars that are asked for first with what is done
// otherwise, as it is for queries that are content with a part of the data.
func BenchmarkScalars(b *testing.B) {
	var series []promql.Series
	for _, p := range partitions {
		for i := range 3000 {
			ls := labels.FromMap(map[string]string{"cluster": p.labels["cluster"], "instance": fmt.Sprint(i), "job": fmt.Sprint(i % 50)}).WithoutEmpty()
			var points []promql.FPoint
			for n := range int64(10) {
				points = append(points, promql.FPoint{T: slot.UnixMilli() - 30_000*n, F: float64(i)})
			}
			slices.Reverse(points)
			series = append(series, named(ls, "x", points))
		}
	}
	for _, m := range modes {
		f := newFleet(b, m, series)
		for _, expr := range []string{
			`sum by (job) (x * scalar(avg(x)))`, `x > scalar(max(x)) - 10`, `topk(scalar(count(count by (job) (x))) / 10, x)`,
			`quantile_over_time(scalar(count(x)) / 1e5, x[5m])`, `max_over_time(x[5m]) * scalar(avg(x)) > 5e6`,
		} {
			for _, inlined := range []bool{true, false} {
				b.Run(fmt.Sprintf("%s/inlined=%t/%s", m, inlined, expr), func(b *testing.B) {
					queries := []evaluator.Query{{Expr: mustParse(b, expr), Partial: !inlined}}
					before := counterValue(b, f.registry, "tocsin_evaluator_response_bytes_total", "east")
					b.ReportAllocs()
					for b.Loop() {
						require.NoError(b, f.evaluator.Evaluate(context.Background(), slot, queries)[0].Err)
					}
					after := counterValue(b, f.registry, "tocsin_evaluator_response_bytes_total", "east")
					b.ReportMetric((after-before)/float64(b.N), "east-B/op")
				})
			}
		}
	}
}

// BenchmarkTenants evaluates one rule pack for 50 tenants of one backend, who
// each have all of its series, together and one by one.
func BenchmarkTenants(b *testing.B) {
	exprs := packExpressions(b)["kube-prometheus"][:60]
	v := vocabulary{}
	for _, e := range exprs {
		v.add(mustParse(b, e))
	}
	var series []promql.Series
	scopes := make([]labels.Labels, 50)
	for i := range scopes {
		scopes[i] = labels.FromStrings("cluster", "east", "tenant", fmt.Sprintf("team-%d", i))
		for _, s := range v.series(rand.New(rand.NewPCG(7, 7))) {
			if s.Metric.Get("cluster") == "east" {
				s.Metric = labels.NewBuilder(s.Metric).Set("tenant", scopes[i].Get("tenant")).Labels()
				series = append(series, s)
			}
		}
	}
	f := newFleet(b, overNative, series)
	for _, together := range []bool{true, false} {
		var queries []evaluator.Query
		for _, e := range exprs {
			for _, scope := range scopes {
				expr, err := plan.Scope(mustParse(b, e), scope)
				require.NoError(b, err)
				q := evaluator.Query{Expr: expr}
				if together {
					q.Scope = scope
				}
				queries = append(queries, q)
			}
		}
		b.Run(fmt.Sprintf("together=%t", together), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.evaluator.Evaluate(context.Background(), slot, queries)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(queries)), "us/query")
			b.ReportMetric(float64(len(queries)-len(f.evaluator.Folding(queries).Rest))/float64(len(queries)), "folded")
		})
	}
}
