package columns_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/columns"
	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/backend/scan"
)

const data = `
load 30s
  up{job="a", instance="0"} 1x40
  up{job="a", instance="1"} 1x40
  up{job="b", instance="0"} 0x40
  requests_total{job="a", instance="0"} 0+10x40
  requests_total{job="a", instance="1"} 0+20x40
  requests_total{job="b", instance="0"} 0+30x40
  level{job="a"} 5x40
  latency{job="a"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}+{{schema:0 sum:5 count:4 buckets:[1 2 1]}}x40
  latency{job="b"} {{schema:1 sum:5 count:4 buckets:[1 2 1]}}+{{schema:1 sum:5 count:4 buckets:[1 2 1]}}x40
`

const now = 20 * 60_000

func loaded(t *testing.T) *teststorage.TestStorage {
	db := promqltest.LoadedStorage(t, data)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// TestSamplesAreCountedAsInPrometheus finds, for every expression, the same
// least limit under which it succeeds, also if it shares everything.
func TestSamplesAreCountedAsInPrometheus(t *testing.T) {
	t.Parallel()
	db := loaded(t)
	exprs := []string{
		"up", "rate(requests_total[5m])", "sum(rate(requests_total[5m]))", "up + on (job, instance) requests_total", "2 * up", "1 + 2",
		"sum by (job) (rate(requests_total[2m])) / sum by (job) (rate(requests_total[5m]))", "histogram_quantile(0.9, sum(rate(latency[5m])))",
		"topk(1, up)", "predict_linear(requests_total[5m], 60)", "quantile_over_time(scalar(level), requests_total[5m])", "absent(nothing)", "-up", "abs(up)",
		"up and requests_total", "up or requests_total", "vector(time())", "rate(latency[5m])", "sum(up) > bool 1",
	}
	for limit := 1; limit < 120; limit++ {
		f := newFixture(t, db, columns.Config{MaxSamples: limit})
		for i, got := range f.batch(t.Context(), now, append(exprs, exprs...)...) {
			expr := exprs[i%len(exprs)]
			require.Equal(t, f.alone(t.Context(), now, expr), got, "%s with at most %d samples", expr, limit)
		}
	}
}

func TestWhatIsLeftToPrometheusIsCountedByReason(t *testing.T) {
	t.Parallel()
	db := loaded(t)
	for _, tc := range []struct {
		result string
		exprs  []string
	}{
		{"success", []string{"up", "(up)", "up"}},
		{"unsupported", []string{"up @ 60"}},
		{"unsupported", []string{"max_over_time(up[5m:1m])"}},
		{"unsupported", []string{`label_replace(up, "a", "b", "", "")`}},
		{"unsupported", []string{"sum("}},
		{"unsupported", []string{"up[5m]"}},
		{"unsupported", []string{"timestamp(up)"}},
		{"histograms", []string{"latency"}},
		{"histograms", []string{"avg(rate(latency[5m]))"}},
		{"collision", []string{"up * on () up"}},
		{"collision", []string{"topk(NaN, up)"}},
		{"collision", []string{`abs({__name__=~"up|requests_total"})`}},
	} {
		f := newFixture(t, db, columns.Config{})
		f.requireEqual(t, now, tc.exprs...)
		require.InDelta(t, len(tc.exprs), results(t, f.reg)[tc.result], 0, "%q: %v", tc.exprs, results(t, f.reg))
	}
}

// results are the values of tocsin_backend_columns_queries_total.
func results(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "tocsin_backend_columns_queries_total" {
			for _, m := range family.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

// Annotations say where in the text of a query they belong.
func TestAnnotationsAreThoseOfTheQuery(t *testing.T) {
	t.Parallel()
	f := newFixture(t, loaded(t), columns.Config{})
	require.Equal(t, 2, f.requireEqual(t, now, "rate(level[5m])", "rate(level[5m])"))
	require.Equal(t, 1, f.requireEqual(t, now, "sum(rate(level[5m]))", "rate(level[5m])"))
	require.Equal(t, 1, f.requireEqual(t, now, "1 + rate(level[5m])"))
}

func TestMoreThanFitsInMemoryIsLeftToPrometheus(t *testing.T) {
	t.Parallel()
	f := newFixture(t, loaded(t), columns.Config{Scan: scan.Config{MaxSamples: 10}})
	require.Equal(t, 1, f.requireEqual(t, now, "sum_over_time(up[20m])", "level"))
}

// Nothing that is kept is needed.
func TestResultsAreTheSameIfNothingIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, loaded(t), columns.Config{MaxSeries: 1, MaxPlanBytes: 1, Scan: scan.Config{MaxSeries: 1}})
	for range 2 {
		require.Equal(t, 3, f.requireEqual(t, now, "sum by (job) (rate(requests_total[5m]))", "up + on (job, instance) requests_total", `up{job="a"}`))
	}
}

// slow is a storage whose reads last until their context ends.
type slow struct {
	storage.Queryable
	begun chan struct{}
}

func (s *slow) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return &slowQuerier{q, s.begun}, err
}

type slowQuerier struct {
	storage.Querier
	begun chan struct{}
}

func (q *slowQuerier) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	close(q.begun)
	<-ctx.Done()
	return storage.ErrSeriesSet(ctx.Err())
}

func TestACancelledBatchStops(t *testing.T) {
	t.Parallel()
	db := &slow{loaded(t), make(chan struct{})}
	f := newFixture(t, db, columns.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-db.begun
		cancel()
	}()
	require.Equal(t, []string{"error query was canceled in query execution"}, f.batch(ctx, now, "sum(up)"))
}

func TestAReadThatHangsEndsInTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, &slow{loaded(t), make(chan struct{})}, columns.Config{Timeout: time.Millisecond})
	require.Equal(t, []string{"error query timed out in query execution"}, f.batch(t.Context(), now, "sum(up)"))
}

func TestAdmissionIsAskedFor(t *testing.T) {
	t.Parallel()
	refused := errors.New("no room")
	e := columns.New(columns.Config{}, columns.Deps{
		Queryable: loaded(t), Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
		Admit: func(context.Context) (func(), error) { return nil, refused },
	})
	b := e.Batch(t.Context(), []columns.Query{{Expr: "up", Start: now, End: now, Lookback: lookback}})
	defer b.Close()
	res, _ := b.Exec(t.Context(), 0)
	require.ErrorIs(t, res.Err, refused)
}

// Queries of a batch run side by side.
func TestQueriesRunSideBySide(t *testing.T) {
	t.Parallel()
	gate := engine.New(engine.Config{MaxConcurrent: 3}, prometheus.NewRegistry(), promslog.NewNopLogger())
	e := columns.New(columns.Config{}, columns.Deps{Queryable: loaded(t), Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(), Admit: gate.Admit})
	exprs := []string{"sum(rate(requests_total[5m]))", "rate(requests_total[5m])", "sum by (job) (rate(requests_total[5m])) / sum(rate(requests_total[5m]))", "up", "up + on (job, instance) rate(requests_total[5m])"}
	var queries []columns.Query
	for range 10 {
		for _, expr := range exprs {
			queries = append(queries, columns.Query{Expr: expr, Start: now, End: now, Lookback: lookback})
		}
	}
	for range 3 {
		b := e.Batch(t.Context(), queries)
		results := make(chan *promql.Result)
		for i := range queries {
			go func() {
				res, _ := b.Exec(t.Context(), i)
				results <- res
			}()
		}
		for range queries {
			require.NoError(t, (<-results).Err)
		}
		b.Close()
	}
}
