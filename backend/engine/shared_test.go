package engine_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/backend/scan"
)

const lookback = 5 * 60_000

// moment is when the expressions of a batch are evaluated; a step of 0 makes
// instant queries.
type moment struct{ start, end, step int64 }

func (m moment) query(ctx context.Context, e *engine.Engine, q storage.Queryable, expr string) (promql.Query, error) {
	if m.step == 0 {
		return e.NewInstantQuery(ctx, q, nil, expr, time.UnixMilli(m.start))
	}
	return e.NewRangeQuery(ctx, q, nil, expr, time.UnixMilli(m.start), time.UnixMilli(m.end), time.Duration(m.step)*time.Millisecond)
}

func (m moment) reads(expr string) scan.Query {
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		return scan.Query{}
	}
	return scan.Query{Expr: parsed, Start: m.start, End: m.end, Lookback: lookback}
}

// exactly executes a query and prints every bit of what it returns.
func exactly(ctx context.Context, m moment, e *engine.Engine, q storage.Queryable, expr string) string {
	query, err := m.query(ctx, e, q, expr)
	if err != nil {
		return "error " + err.Error()
	}
	defer query.Close()
	res := query.Exec(ctx)
	if res.Err != nil {
		return "error " + res.Err.Error()
	}
	// Infos are advice on style, and promql-engine gives it or not by chance.
	warnings, _ := res.Warnings.AsStrings(expr, 0, 0)
	slices.Sort(warnings)
	return fmt.Sprint(printExactly(res.Value), warnings, query.Stats().Samples.TotalSamples)
}

// printExactly sorts series: some orders are those of maps inside the engines.
func printExactly(v parser.Value) string {
	var series []string
	switch v := v.(type) {
	case promql.Vector:
		for _, p := range v {
			series = append(series, p.Metric.String()+exactPoint(p.T, p.F, p.H))
		}
	case promql.Matrix:
		for _, s := range v {
			series = append(series, exactSeries(s))
		}
	case promql.Scalar:
		return exactPoint(v.T, v.V, nil)
	default:
		return v.String()
	}
	slices.Sort(series)
	return strings.Join(series, "\n")
}

func exactSeries(s promql.Series) string {
	text := s.Metric.String()
	for _, p := range s.Floats {
		text += exactPoint(p.T, p.F, nil)
	}
	for _, p := range s.Histograms {
		text += exactPoint(p.T, 0, p.H)
	}
	return text
}

func exactPoint(t int64, f float64, h *histogram.FloatHistogram) string {
	if h == nil {
		return fmt.Sprintf(" %x@%d", math.Float64bits(f), t)
	}
	return fmt.Sprintf(" %s hint %d@%d", h, h.CounterResetHint, t)
}

// TestSharingChangesNothing runs every kind of expression as part of one batch
// and alone, and demands the same result down to the bits, the warnings and the
// number of samples.
func TestSharingChangesNothing(t *testing.T) {
	t.Parallel()
	db := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	e := newEngine()
	reg := prometheus.NewRegistry()
	scanner := scan.New(scan.Config{}, db, reg)
	exprs := expressions()
	for _, m := range []moment{{start: 45_000, end: 45_000}, {start: 930_000, end: 930_000}, {start: 2_400_000, end: 2_400_000}, {0, 2_700_000, 47_000}} {
		queries := make([]scan.Query, len(exprs))
		for i, expr := range exprs {
			queries[i] = m.reads(expr)
		}
		batch := scanner.Batch(t.Context(), queries)
		for i, expr := range exprs {
			require.Equal(t, exactly(t.Context(), m, e, db, expr), exactly(t.Context(), m, e, batch, expr), "%s at %v", expr, m)
			batch.Done(i)
		}
		batch.Close()
	}
	require.Greater(t, sumOf(t, reg, "tocsin_backend_scan_reads_total", "shared"), 20)
	e.Wait()
	require.Zero(t, sumOf(t, reg, "tocsin_backend_scan_samples", ""))
}

// TestPrometheusCorpusShared runs every query of Prometheus' own test corpus
// in a batch with itself and with a wider selection.
func TestPrometheusCorpusShared(t *testing.T) {
	promqltest.RunBuiltinTests(t, &shared{tb: t, corpus: promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery), ours: newEngine()})
}

// shared is an engine that runs every query alone and in a batch.
type shared struct {
	tb     testing.TB
	corpus promql.QueryEngine
	ours   *engine.Engine
}

func (s *shared) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, ts time.Time) (promql.Query, error) {
	s.compare(ctx, q, expr, moment{start: ts.UnixMilli(), end: ts.UnixMilli()})
	return s.corpus.NewInstantQuery(ctx, q, opts, expr, ts)
}

func (s *shared) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	s.compare(ctx, q, expr, moment{start.UnixMilli(), end.UnixMilli(), step.Milliseconds()})
	return s.corpus.NewRangeQuery(ctx, q, opts, expr, start, end, step)
}

func (s *shared) compare(ctx context.Context, q storage.Queryable, expr string, m moment) {
	batch := scan.New(scan.Config{}, q, prometheus.NewRegistry()).Batch(ctx, []scan.Query{m.reads(expr), m.reads(expr)})
	defer batch.Close()
	want, got := exactly(ctx, m, s.ours, q, expr), exactly(ctx, m, s.ours, batch, expr)
	if want != got {
		s.tb.Errorf("%s at %v\nshared: %s\nalone:  %s", expr, m, got, want)
	}
}

// sumOf adds up the values of a metric, of those with one label value if it
// is not empty.
func sumOf(t *testing.T, reg *prometheus.Registry, name, value string) int {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	var sum float64
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if value == "" || m.GetLabel()[0].GetValue() == value {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return int(sum)
}
