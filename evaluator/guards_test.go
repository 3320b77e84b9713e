package evaluator_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

// TestLookbackIsForwarded: the lookback of a query is that of all its parts,
// at the backends, for raw series and in the local merge.
func TestLookbackIsForwarded(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, m, sampleData(rand.New(rand.NewPCG(9, 9))))
			answers := map[string]bool{}
			for _, lookback := range []time.Duration{time.Second, 20 * time.Second, 5 * time.Minute} {
				opts := promql.NewPrometheusQueryOpts(false, lookback)
				for _, expr := range []string{
					`special{cluster="east"}`, `count(special)`, `count(special) or vector(-1)`, `quantile(0.5, special)`,
					`max_over_time(count(special)[2m:7s])`, `count(info(special, {__name__="info_metric"}))`,
				} {
					want, got := withOptions(t, f.engine, f.whole, opts, expr), withOptions(t, f.evaluator.QueryEngine(), nil, opts, expr)
					require.Empty(t, resultDifference(expr, want, got), "%s with a lookback of %s", expr, lookback)
					answers[fmt.Sprint(expr, want)] = true
				}
			}
			require.Greater(t, len(answers), 12, "the lookback makes a difference")
		})
	}
}

func withOptions(t *testing.T, e promql.QueryEngine, data storage.Queryable, opts promql.QueryOpts, expr string) *promql.Result {
	t.Helper()
	q, err := e.NewInstantQuery(context.Background(), data, opts, expr, slot)
	require.NoError(t, err)
	t.Cleanup(q.Close)
	return q.Exec(context.Background())
}

// TestAMeanOfLargeValuesDoesNotOverflow: nor does one over several backends.
func TestAMeanOfLargeValuesDoesNotOverflow(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			var series []promql.Series
			for i, p := range partitions {
				for _, job := range []string{"a", "b"} {
					ls := labels.FromMap(map[string]string{"cluster": p.labels["cluster"], "job": job}).WithoutEmpty()
					series = append(series, named(ls, "large", []promql.FPoint{{T: slot.UnixMilli(), F: 1.5e308 / float64(i+1)}}))
				}
			}
			f := newFleet(t, m, series)
			require.Empty(t, f.compare(t, []string{`avg(large)`, `avg by (job) (large)`, `avg without (cluster) (large) > 1e300`}, slot))
			require.Positive(t, counterValue(t, f.registry, "tocsin_evaluator_repeated_evaluations_total", "overflow"))
		})
	}
}

// TestEqualValuesHaveNoVariance: exactly none, wherever they are, since rules
// compare it with 0; and those of large values close to each other are exact.
func TestEqualValuesHaveNoVariance(t *testing.T) {
	t.Parallel()
	var series []promql.Series
	for _, p := range partitions {
		for i := range 7 {
			ls := labels.FromMap(map[string]string{"cluster": p.labels["cluster"], "instance": fmt.Sprint(i)}).WithoutEmpty()
			series = append(series,
				named(ls, "equal", []promql.FPoint{{T: slot.UnixMilli(), F: 0.1}}),
				named(ls, "close", []promql.FPoint{{T: slot.UnixMilli(), F: 1e9 + float64(i%3)}}))
		}
	}
	f := newFleet(t, overNative, series)
	require.Empty(t, f.compare(t, []string{`stddev(equal) == 0`, `stdvar without (cluster) (equal) == 0`, `stdvar by (instance) (close)`}, slot))
	// 9 values of 0, 6 of 1 and 6 of 2 above 1e9: Prometheus itself is wrong in
	// the ninth digit.
	exact := math.Sqrt((9*36. + 6*1 + 6*64) / 49 / 21)
	got := f.evaluator.Evaluate(context.Background(), slot, parsed(t, []string{`stddev(close)`}))[0]
	require.NoError(t, got.Err)
	require.InEpsilon(t, exact, got.Vector[0].F, 1e-8)
	require.NotContains(t, f.evaluator.Plan(slot, parsed(t, []string{`stddev(equal)`})).String(), "local, aggregation")
}
