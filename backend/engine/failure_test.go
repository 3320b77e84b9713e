package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/engine"
)

// faulty is a storage with a fault in one place.
type faulty struct {
	storage.LabelQuerier
	opens   func() error
	selects func(context.Context) error
}

func (f *faulty) Querier(int64, int64) (storage.Querier, error) {
	if f.opens != nil {
		return nil, f.opens()
	}
	return f, nil
}

func (f *faulty) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	return storage.ErrSeriesSet(f.selects(ctx))
}

func (f *faulty) Close() error { return nil }

// exec returns the error of one instant query.
func exec(ctx context.Context, e promql.QueryEngine, q storage.Queryable, expr string) error {
	query, err := e.NewInstantQuery(ctx, q, nil, expr, time.Unix(60, 0))
	if err != nil {
		return err
	}
	defer query.Close()
	return query.Exec(ctx).Err
}

// execRange returns the error of one range query.
func execRange(ctx context.Context, e promql.QueryEngine, q storage.Queryable, expr string) error {
	query, err := e.NewRangeQuery(ctx, q, nil, expr, time.Unix(60, 0), time.Unix(120, 0), time.Minute)
	if err != nil {
		return err
	}
	defer query.Close()
	return query.Exec(ctx).Err
}

// execBoth are the ways in which the two engines come to run a query.
var execBoth = map[string]func(context.Context, promql.QueryEngine, storage.Queryable, string) error{"instant": exec, "range": execRange}

func TestErrorsHaveTheTypesOfPrometheus(t *testing.T) {
	t.Parallel()
	disk := errors.New("disk on fire")
	ended := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cases := []struct {
		name string
		ctx  context.Context
		q    storage.Queryable
		as   any
		text string
	}{
		{"a storage that can't be opened", t.Context(), &faulty{opens: func() error { return disk }}, new(promql.ErrStorage), "disk on fire"},
		{"a storage that fails to read", t.Context(), &faulty{selects: func(context.Context) error { return disk }}, new(promql.ErrStorage), "disk on fire"},
		{"a query that takes too long", t.Context(), &faulty{selects: ended}, new(promql.ErrQueryTimeout), "timed out"},
		{"a caller that went away", cancelled, &faulty{selects: ended}, new(promql.ErrQueryCanceled), "canceled"},
		{"a panic when planning", t.Context(), &faulty{opens: func() error { panic("boom") }}, new(*engine.PanicError), `panicked on "sum(up)"`},
		{"a panic when running", t.Context(), &faulty{selects: func(context.Context) error { panic("boom") }}, new(*engine.PanicError), `panicked on "sum(up)"`},
		{"a runtime error when running", t.Context(), &faulty{selects: func(context.Context) error { return []error{}[len("x")] }}, new(*engine.PanicError), `panicked on "sum(up)"`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := engine.New(engine.Config{Timeout: 20 * time.Millisecond}, prometheus.NewRegistry(), promslog.NewNopLogger())
			for kind, exec := range execBoth {
				err := exec(tc.ctx, e, tc.q, "sum(up)")
				require.ErrorAs(t, err, tc.as, "%s: %T", kind, err)
				require.ErrorContains(t, err, tc.text, kind)
			}
			e.Wait()
		})
	}
}

func TestSamplesAreBoundedOnBothEngines(t *testing.T) {
	t.Parallel()
	db := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	e := engine.New(engine.Config{MaxSamples: 5}, prometheus.NewRegistry(), promslog.NewNopLogger())
	for kind, exec := range execBoth {
		require.ErrorAs(t, exec(t.Context(), e, db, "sum_over_time(requests_total[5m])"), new(promql.ErrTooManySamples), kind)
	}
}

// The TSDB panics if it has to trim both ends of such a series.
func TestSeriesDeletedInPartCanBeQueried(t *testing.T) {
	t.Parallel()
	db := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	require.NoError(t, db.Delete(t.Context(), 1_500_000, 1_600_000, labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")))
	for kind, exec := range execBoth {
		require.NoError(t, exec(t.Context(), newEngine(), db, "count_over_time(up[30s])"), kind)
	}
}

func TestParseErrorsAreReportedAsSuch(t *testing.T) {
	t.Parallel()
	for kind, exec := range execBoth {
		require.ErrorAs(t, exec(t.Context(), newEngine(), storage.QueryableFunc(nil), "sum("), new(parser.ParseErrors), kind)
	}
}

func TestFallbacksAreCountedByReason(t *testing.T) {
	t.Parallel()
	db := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for reason, expr := range map[string]string{
		"unimplemented": "predict_linear(requests_total[5m], scalar(limit{job=\"a\"}))",
		"sort":          "sort(up)",
		"histograms":    "latency - latency",
		"mixed_types":   "rate(mixed[5m])",
		"not_finite":    "rate(temperature[20m])",
		"duplicates":    `label_replace(up, "instance", "", "", "")`,
	} {
		reg := prometheus.NewRegistry()
		e := engine.New(engine.Config{}, reg, promslog.NewNopLogger())
		q, err := e.NewRangeQuery(t.Context(), db, nil, expr, time.Unix(960, 0), time.Unix(960, 0), time.Minute)
		require.NoError(t, err)
		q.Exec(t.Context())
		q.Close()
		require.Equal(t, 1, fallbacksBy(t, reg, reason), "%s: %s", reason, expr)
		require.Equal(t, 1, fallbacks(t, reg), "%s: %s", reason, expr)
		e.Wait()
	}
}

func fallbacksBy(t *testing.T, reg *prometheus.Registry, reason string) int {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "tocsin_backend_engine_fallback_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == reason {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	running, release := make(chan struct{}, 10), make(chan struct{})
	q := &faulty{selects: func(context.Context) error {
		running <- struct{}{}
		<-release
		return nil
	}}
	e := engine.New(engine.Config{MaxConcurrent: 1}, prometheus.NewRegistry(), promslog.NewNopLogger())
	done := make(chan error, 2)
	go func() { done <- exec(t.Context(), e, q, "up") }()
	<-running
	waiting, cancel := context.WithCancel(t.Context())
	go func() { done <- exec(waiting, e, q, "up") }()
	cancel()
	require.ErrorAs(t, <-done, new(promql.ErrQueryCanceled))
	require.Empty(t, running)
	close(release)
	require.NoError(t, <-done)
}
