package engine_test

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/backend/engine"
)

// newReference returns Prometheus' engine with the settings that the engine
// under test runs with.
func newReference(tb testing.TB) *promql.Engine {
	return promqltest.NewTestEngineWithOpts(tb, promql.EngineOpts{
		MaxSamples:               50_000_000,
		Timeout:                  2 * time.Minute,
		LookbackDelta:            5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
	})
}

func newEngine() *engine.Engine {
	return engine.New(engine.Config{}, prometheus.NewRegistry(), promslog.NewNopLogger())
}

// TestPrometheusCorpus runs every query of Prometheus' own test corpus on the
// engine and on the reference and compares the two. What the corpus itself
// expects is checked on an engine with the corpus' feature flags.
func TestPrometheusCorpus(t *testing.T) {
	promqltest.RunBuiltinTests(t, &differential{
		tb:        t,
		corpus:    promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery),
		ours:      newEngine(),
		reference: newReference(t),
	})
}

// differential is an engine that runs every query three times.
type differential struct {
	tb                      testing.TB
	corpus, ours, reference promql.QueryEngine
}

func (d *differential) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, ts time.Time) (promql.Query, error) {
	return d.newQuery(fmt.Sprintf("%s @ %d", expr, ts.UnixMilli()), func(e promql.QueryEngine) (promql.Query, error) {
		return e.NewInstantQuery(ctx, q, opts, expr, ts)
	})
}

func (d *differential) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return d.newQuery(fmt.Sprintf("%s @ %d..%d step %s", expr, start.UnixMilli(), end.UnixMilli(), step), func(e promql.QueryEngine) (promql.Query, error) {
		return e.NewRangeQuery(ctx, q, opts, expr, start, end, step)
	})
}

func (d *differential) newQuery(name string, newQuery func(promql.QueryEngine) (promql.Query, error)) (promql.Query, error) {
	ours, reference := run(newQuery, d.ours), run(newQuery, d.reference)
	if ours != reference {
		d.tb.Errorf("%s\nours:      %s\nreference: %s", name, ours, reference)
	}
	return newQuery(d.corpus)
}

// run executes a query and prints its result.
func run(newQuery func(promql.QueryEngine) (promql.Query, error), e promql.QueryEngine) string {
	q, err := newQuery(e)
	if err != nil {
		return "error"
	}
	defer q.Close()
	return describe(q.Exec(context.Background()))
}

// describe renders a result such that results print alike if and only if a rule
// can't tell them apart: rounding in the last digits and the order of series
// do not count, kinds of NaN and the wording of errors neither.
func describe(res *promql.Result) string {
	if res.Err != nil {
		return "error"
	}
	var lines []string
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			lines = append(lines, fmt.Sprintf("%s %s", s.Metric, printPoint(s.T, s.F, s.H)))
		}
	case promql.Matrix:
		for _, s := range v {
			lines = append(lines, printSeries(s))
		}
	case promql.Scalar:
		lines = append(lines, printPoint(v.T, v.V, nil))
	default:
		lines = append(lines, v.String())
	}
	sort.Strings(lines)
	return string(res.Value.Type()) + " " + strings.Join(lines, "; ") + printWarnings(res.Warnings)
}
