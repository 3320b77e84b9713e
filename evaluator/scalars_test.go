package evaluator_test

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
)

// TestScalarsAreAskedForOnce: a scalar that several queries need takes one
// request more, and no series of its own are moved for what it is written into.
func TestScalarsAreAskedForOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overNative, sampleData(rand.New(rand.NewPCG(1, 1))))
	for _, r := range evaluate(t, f.evaluator,
		`gauge > scalar(avg(gauge2))`, `sum by (job) (gauge * scalar(avg(gauge2)))`,
		`quantile_over_time(scalar(avg(gauge2)) / 1000, gauge[5m])`) {
		require.NoError(t, r.Err)
		require.NotEmpty(t, r.Vector)
	}
	require.Zero(t, counterValue(t, f.registry, "tocsin_evaluator_raw_selects_total"))
	require.EqualValues(t, 3, counterValue(t, f.registry, "tocsin_evaluator_local_total", "inlined"))
	require.Equal(t, 2, requestsTo(t, f.registry, "east"))
}

// requestsTo is how often a backend was asked.
func requestsTo(t *testing.T, g prometheus.Gatherer, backend string) int {
	t.Helper()
	families, err := g.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "tocsin_evaluator_backend_duration_seconds" && m.GetLabel()[0].GetValue() == backend {
				return int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

// TestAScalarThatFails fails what needs it, and that only.
func TestAScalarThatFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overNative, sampleData(rand.New(rand.NewPCG(1, 1))))
	const clash = `scalar(sum by (job) (gauge) + on () sum by (job) (gauge2))`
	r := evaluate(t, f.evaluator, `sum(gauge * `+clash+`)`, `gauge > `+clash, `gauge > scalar(avg(gauge2))`)
	for _, failed := range r[:2] {
		requireError(t, failed.Err, evaluator.KindUser, "")
	}
	require.NoError(t, r[2].Err)
}
