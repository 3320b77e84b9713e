package columns_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/columns"
	"github.com/tocsin-rules/tocsin/backend/engine"
)

const lookback = 5 * 60_000

// fixture is an evaluator and Prometheus' engine over the same storage.
type fixture struct {
	db        storage.Queryable
	reg       *prometheus.Registry
	evaluator *columns.Evaluator
	reference *promql.Engine
}

func newFixture(tb testing.TB, db storage.Queryable, cfg columns.Config) *fixture {
	e := engine.New(engine.Config{}, prometheus.NewRegistry(), promslog.NewNopLogger())
	f := &fixture{db: db, reg: prometheus.NewRegistry()}
	f.evaluator = columns.New(cfg, columns.Deps{Queryable: db, Admit: e.Admit, Registry: f.reg, Logger: promslog.NewNopLogger()})
	maxSamples := cfg.MaxSamples
	if maxSamples == 0 {
		maxSamples = 50_000_000
	}
	f.reference = promqltest.NewTestEngineWithOpts(tb, promql.EngineOpts{
		MaxSamples:           maxSamples,
		Timeout:              2 * time.Minute,
		LookbackDelta:        lookback * time.Millisecond,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
	})
	return f
}

// batch evaluates expressions together and prints every result; it is "" for
// those that are for another engine.
func (f *fixture) batch(ctx context.Context, at int64, exprs ...string) []string {
	queries := make([]columns.Query, len(exprs))
	for i, expr := range exprs {
		queries[i] = columns.Query{Expr: expr, Start: at, End: at, Lookback: lookback}
	}
	b := f.evaluator.Batch(ctx, queries)
	defer b.Close()
	texts := make([]string, len(exprs))
	for i, expr := range exprs {
		res, samples := b.Exec(ctx, i)
		if !errors.Is(res.Err, columns.ErrElsewhere) {
			texts[i] = describe(res, expr, samples)
		}
		b.Done(i)
	}
	return texts
}

// alone is what Prometheus' engine says.
func (f *fixture) alone(ctx context.Context, at int64, expr string) string {
	q, err := f.reference.NewInstantQuery(ctx, f.db, nil, expr, time.UnixMilli(at))
	if err != nil {
		return "error " + err.Error()
	}
	defer q.Close()
	res := q.Exec(ctx)
	return describe(res, expr, q.Stats().Samples.TotalSamples)
}

// describe prints every bit of a result, in its order.
func describe(res *promql.Result, expr string, samples int64) string {
	if res.Err != nil {
		return "error " + res.Err.Error()
	}
	warnings, infos := res.Warnings.AsStrings(expr, 0, 0)
	slices.Sort(warnings)
	slices.Sort(infos)
	text := describeValue(res.Value)
	if strings.Contains(expr, "histogram_quantile") || strings.Contains(expr, "histogram_fraction") {
		// Prometheus has the results in the order of a map.
		text = strings.Join(slices.Sorted(strings.Lines(text)), "")
	}
	return fmt.Sprintf("%s\n%q %q %d samples", text, warnings, infos, samples)
}

func describeValue(v parser.Value) string {
	var b strings.Builder
	switch v := v.(type) {
	case promql.Vector:
		for _, s := range v {
			fmt.Fprintf(&b, "%s %s@%d\n", s.Metric, describeSample(s.F, s.H), s.T)
		}
	case promql.Scalar:
		fmt.Fprintf(&b, "%s@%d", describeSample(v.V, nil), v.T)
	default:
		return v.String()
	}
	return b.String()
}

func describeSample(f float64, h *histogram.FloatHistogram) string {
	if h == nil {
		return fmt.Sprintf("%x (%v)", math.Float64bits(f), f)
	}
	return fmt.Sprintf("%s hint %d", h, h.CounterResetHint)
}

// requireEqual compares expressions of a batch with Prometheus' engine; it
// returns how many were evaluated.
func (f *fixture) requireEqual(t *testing.T, at int64, exprs ...string) (evaluated int) {
	t.Helper()
	for i, got := range f.batch(t.Context(), at, exprs...) {
		if got == "" {
			continue
		}
		evaluated++
		if want := f.alone(t.Context(), at, exprs[i]); got != want {
			t.Errorf("%s @ %d\nin columns: %s\nPrometheus: %s", exprs[i], at, got, want)
		}
	}
	return evaluated
}

// TestPrometheusCorpus evaluates every instant query of Prometheus' own tests
// with others, twice, so that the second time finds what the first one kept.
func TestPrometheusCorpus(t *testing.T) {
	c := &corpus{t: t, engine: promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery), fixtures: map[storage.Queryable]*fixture{}}
	promqltest.RunBuiltinTests(t, c)
	require.Greater(t, c.evaluated, c.queries, "of %d", 2*c.queries)
}

type corpus struct {
	t                  *testing.T
	engine             promql.QueryEngine
	fixtures           map[storage.Queryable]*fixture
	queries, evaluated int
}

func (c *corpus) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, ts time.Time) (promql.Query, error) {
	if strings.Contains(expr, "@") {
		return c.engine.NewInstantQuery(ctx, q, opts, expr, ts) // which is what most of the queries have
	}
	f := c.fixtures[q]
	if f == nil {
		f = newFixture(c.t, q, columns.Config{})
		c.fixtures[q] = f
	}
	c.queries++
	for range 2 {
		if f.requireEqual(c.t, ts.UnixMilli(), expr, "("+expr+")", expr) > 0 {
			c.evaluated++
		}
	}
	return c.engine.NewInstantQuery(ctx, q, opts, expr, ts)
}

func (c *corpus) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return c.engine.NewRangeQuery(ctx, q, opts, expr, start, end, step)
}
