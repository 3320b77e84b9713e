package scan_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

const data = `
load 30s
  m{a="1", b="1"} 0+1x40
  m{a="1", b="2"} _x5 0+2x30
  m{a="2", b="1"} 5 _ _ stale 3 _x10 4 NaN 6
  h{a="1"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}x40
`

// now is when all queries are evaluated.
const now = 600_000

// watched is a storage that counts what is done with it and may do something
// else first.
type watched struct {
	storage.Queryable
	selects, open atomic.Int64
	before        func(context.Context) error
}

func (w *watched) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := w.Queryable.Querier(mint, maxt)
	w.open.Add(1)
	return &watchedQuerier{Querier: q, storage: w}, err
}

type watchedQuerier struct {
	storage.Querier
	storage *watched
}

func (q *watchedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.storage.selects.Add(1)
	if q.storage.before != nil {
		if err := q.storage.before(ctx); err != nil {
			return storage.ErrSeriesSet(err)
		}
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}

func (q *watchedQuerier) Close() error {
	q.storage.open.Add(-1)
	return q.Querier.Close()
}

// fixture is a scanner over some data.
type fixture struct {
	*testing.T
	db      *watched
	reg     *prometheus.Registry
	scanner *scan.Scanner
}

func newFixture(t *testing.T, cfg scan.Config) *fixture {
	db := promqltest.LoadedStorage(t, data)
	f := &fixture{T: t, db: &watched{Queryable: db}, reg: prometheus.NewRegistry()}
	f.scanner = scan.New(cfg, f.db, f.reg)
	t.Cleanup(func() {
		require.Zero(t, f.db.open.Load(), "readers left open")
		f.requireMetric("tocsin_backend_scan_samples", "", 0)
		require.NoError(t, db.Close())
	})
	return f
}

func (f *fixture) requireMetric(name, result string, want float64) {
	f.Helper()
	families, err := f.reg.Gather()
	require.NoError(f, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (result == "" || m.GetLabel()[0].GetValue() == result) {
				require.InDelta(f, want, m.GetCounter().GetValue()+m.GetGauge().GetValue(), 0, "%s %s", name, result)
			}
		}
	}
}

// batch is a batch whose queries are selectors at minute 10.
func (f *fixture) batch(selectors ...string) *scan.Batch {
	f.Helper()
	var queries []scan.Query
	for _, s := range selectors {
		expr, err := parser.ParseExpr(s)
		require.NoError(f, err)
		queries = append(queries, scan.Query{Expr: expr, Start: now, End: now, Lookback: 300_000})
	}
	return f.scanner.Batch(f.Context(), queries)
}

// read prints what one query reads from mint until now.
func read(ctx context.Context, q storage.Queryable, selector string, mint int64) ([]string, error) {
	return readBetween(ctx, q, selector, mint, now)
}

func readBetween(ctx context.Context, q storage.Queryable, selector string, mint, maxt int64) ([]string, error) {
	querier, err := q.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer querier.Close()
	return drain(selectFrom(ctx, querier, selector, mint, maxt), mint, maxt)
}

func selectFrom(ctx context.Context, q storage.Querier, selector string, mint, maxt int64) storage.SeriesSet {
	ms, err := parser.ParseMetricSelector(selector)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return q.Select(ctx, false, &storage.SelectHints{Start: mint, End: maxt, DisableTrimming: true}, ms...)
}

// drain prints the samples between two instants.
func drain(set storage.SeriesSet, mint, maxt int64) ([]string, error) {
	var series []string
	for set.Next() {
		it := set.At().Iterator(nil)
		text := set.At().Labels().String()
		for kind := it.Seek(mint); kind != chunkenc.ValNone && it.AtT() <= maxt; kind = it.Next() {
			if kind != chunkenc.ValFloat {
				_, h := it.AtFloatHistogram(nil)
				text += fmt.Sprintf(" %s", h)
				continue
			}
			t, v := it.At()
			text += fmt.Sprintf(" %v@%d", v, t/1000)
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		series = append(series, text)
	}
	return series, set.Err()
}

func TestOneReadServesAll(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	b := f.batch("m", "sum_over_time(m[10m])", `m{a="1"}`, `m{a="1", b="2"}`, `m{a!="1", b=~"1|2", c=""}`)
	for _, tc := range []struct {
		selector string
		mint     int64
	}{{"m", 300_001}, {"m", 1}, {`m{a="1"}`, 300_001}, {`m{a="1"}`, 570_000}, {`m{a="1", b="2"}`, 300_001}, {`m{a!="1", b=~"1|2", c=""}`, 300_001}, {`m{a="1", b="1"}`, 600_000}} {
		want, err := read(t.Context(), f.db.Queryable, tc.selector, tc.mint)
		require.NoError(t, err)
		got, err := read(t.Context(), b, tc.selector, tc.mint)
		require.NoError(t, err)
		// Series without samples are left out.
		for _, line := range got {
			require.Contains(t, want, line, tc.selector)
		}
		require.NotEmpty(t, got, tc.selector)
	}
	require.Equal(t, int64(2), f.db.selects.Load(), `m{a="1",b="1"} is not planned for`)
	f.requireMetric("tocsin_backend_scan_reads_total", "shared", 1)
	b.Close()
}

// What is known of the last batch decides whether a read reaches back for others.
func TestAWiderReadReachesBackIfThatCostsLess(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	selectors := []string{"m", "m", `sum_over_time(m{a="1"}[9m])`, `sum_over_time(m{a="1"}[9m])`, `sum_over_time(m{b="1"}[3d])`, `sum_over_time(m{b="1"}[3d])`}
	want, err := read(t.Context(), f.db.Queryable, `m{a="1"}`, 60_001)
	require.NoError(t, err)
	for _, selects := range []int64{3, 2} {
		f.db.selects.Store(0)
		b := f.batch(selectors...)
		for _, tc := range []struct {
			selector string
			mint     int64
		}{{"m", 300_001}, {`m{b="1"}`, now - 3*24*60*minute + 1}} {
			_, err := read(t.Context(), b, tc.selector, tc.mint)
			require.NoError(t, err)
		}
		got, err := read(t.Context(), b, `m{a="1"}`, 60_001)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, selects, f.db.selects.Load())
		b.Close()
	}
}

func TestWhatCanNotBeSharedIsReadDirectly(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, selector, result string
		max                    int64
	}{
		{"native histograms", "h", "histograms", 0},
		{"more samples than the limit", "m", "limit", 20},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, scan.Config{MaxSamples: tc.max})
			b := f.batch(tc.selector+"[10m]", tc.selector)
			want, err := read(t.Context(), f.db.Queryable, tc.selector, 1)
			require.NoError(t, err)
			for query := range 2 {
				got, err := read(t.Context(), b, tc.selector, 1)
				require.NoError(t, err)
				require.Equal(t, want, got)
				f.requireMetric("tocsin_backend_scan_samples", "", 0)
				b.Done(query)
			}
			f.requireMetric("tocsin_backend_scan_reads_total", tc.result, 1)
			b.Close()
		})
	}
}

func TestErrorsReachEveryUser(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		before func(context.Context) error
		text   string
	}{
		{"an error of the storage", func(context.Context) error { return errors.New("disk on fire") }, "disk on fire"},
		{"a panic of the storage", func(context.Context) error { panic("boom") }, "panic: boom"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, scan.Config{})
			f.db.before = tc.before
			b := f.batch("m", "m")
			for range 2 {
				_, err := read(t.Context(), b, "m", 300_001)
				require.ErrorContains(t, err, tc.text)
				require.ErrorContains(t, err, `__name__="m"`)
			}
			b.Close()
			f.requireMetric("tocsin_backend_scan_reads_total", "error", 1)
		})
	}
}

func TestQueryThatGivesUpDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	begun, release := make(chan struct{}), make(chan struct{})
	f.db.before = func(context.Context) error {
		close(begun)
		<-release
		return nil
	}
	b := f.batch("m", "m")
	impatient, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := read(impatient, b, "m", 300_001)
		failed <- err
	}()
	<-begun
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	b.Done(0)
	close(release)
	got, err := read(t.Context(), b, "m", 300_001)
	require.NoError(t, err)
	require.Len(t, got, 3)
	b.Close()
}

func TestCloseEndsReadsInProgress(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	begun := make(chan struct{})
	f.db.before = func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}
	b := f.batch("m", "m")
	failed := make(chan error, 1)
	go func() {
		_, err := read(t.Context(), b, "m", 300_001)
		failed <- err
	}()
	<-begun
	b.Close()
	require.ErrorIs(t, <-failed, context.Canceled)
}

func TestReaderMayOutliveItsBatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	b := f.batch(`m{a="1", b="1"}`, `m{a="1", b="1"}`)
	q, err := b.Querier(300_001, now)
	require.NoError(t, err)
	set := selectFrom(t.Context(), q, `m{a="1", b="1"}`, 300_001, now)
	require.True(t, set.Next())
	first := set.At()
	b.Close()
	require.Equal(t, int64(1), f.db.open.Load())
	it := first.Iterator(nil)
	require.Equal(t, chunkenc.ValFloat, it.Seek(now))
	_, v := it.At()
	require.InDelta(t, 20, v, 0)
	require.NoError(t, q.Close())
	require.Zero(t, f.db.open.Load())
	f.requireMetric("tocsin_backend_scan_samples", "", 0)

	late, err := read(t.Context(), b, `m{a="1", b="1"}`, 300_001)
	require.NoError(t, err)
	require.NotEmpty(t, late)
	require.Equal(t, int64(2), f.db.selects.Load())
}

func TestEveryBatchReadsAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	for range 3 {
		b := f.batch("m", "m")
		_, err := read(t.Context(), b, "m", 300_001)
		require.NoError(t, err)
		b.Close()
	}
	require.Equal(t, int64(3), f.db.selects.Load())
}

func TestQueriesOfABatchRunSideBySide(t *testing.T) {
	t.Parallel()
	f := newFixture(t, scan.Config{})
	selectors := []string{"m", "m", `m{a="1"}`, `m{b="1"}`, `m{a="1",b="1"}`, "h", "h"}
	b := f.batch(selectors...)
	var readers sync.WaitGroup
	errs := make(chan error, 10*len(selectors))
	for range 10 {
		for _, s := range selectors {
			readers.Go(func() {
				_, err := read(t.Context(), b, s, 300_001)
				errs <- err
			})
		}
	}
	readers.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	b.Close()
}
