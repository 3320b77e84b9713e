package pushdown_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

const data = `
load 30s
  requests_total{job="a", instance="0"} 0+10x40
  requests_total{job="a", instance="1"} 0+20x40
  requests_total{job="b", instance="0"} 5 5 5 _ _ stale 1 2 3 4 5 6 7 8 9
  up{job="a"} 1x40
  up{job="b"} 1x5 0x35
  temperature{room="x"} NaN Inf -Inf -0 1.5 2.5 NaN NaN 1e300 5e-324
  latency{job="a"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}+{{schema:0 sum:5 count:4 buckets:[1 2 1]}}x40
  gauge_latency{job="a"} {{schema:1 sum:5 count:4 z_bucket:2 z_bucket_w:0.01 counter_reset_hint:gauge buckets:[1 2 1] n_buckets:[2]}}x40
  custom{job="a"} {{schema:-53 sum:5 count:4 custom_values:[1 5] buckets:[1 2 1]}}x40
`

func instant(expr string, at int64) *pushdownv1.Fragment {
	return &pushdownv1.Fragment{Expr: expr, StartMs: at, EndMs: at}
}

func rangeOf(expr string, start, end, step int64) *pushdownv1.Fragment {
	return &pushdownv1.Fragment{Expr: expr, StartMs: start, EndMs: end, StepMs: step}
}

// TestWireEqualsEngine demands that what arrives is what the engine returned,
// however the results are cut into messages and whether or not the stream
// knows the labels already.
func TestWireEqualsEngine(t *testing.T) {
	t.Parallel()
	db := loaded(t)
	fragments := []*pushdownv1.Fragment{
		instant(`up`, 300_000),
		instant(`sum by (job) (rate(requests_total[5m]))`, 300_000),
		instant(`requests_total[2m]`, 300_000),
		instant(`temperature[10m]`, 300_000),
		instant(`temperature == temperature`, 0),
		instant(`{__name__=~".+"}`, 270_000),
		instant(`latency`, 300_000),
		instant(`gauge_latency`, 300_000),
		instant(`custom[3m]`, 300_000),
		instant(`rate(latency[5m])`, 300_000),
		instant(`histogram_quantile(0.9, rate(latency[5m]))`, 300_000),
		instant(`absent(nothing)`, 300_000),
		instant(`nothing`, 300_000),
		instant(`42`, 300_000),
		instant(`scalar(nothing)`, 300_000),
		instant(`vector(time())`, 300_001),
		rangeOf(`requests_total`, 0, 600_000, 15_000),
		rangeOf(`rate(latency[5m])`, 0, 600_000, 60_000),
		rangeOf(`1 / temperature`, 0, 300_000, 30_000),
		rangeOf(`up`, 300_000, 300_000, 1000),
		rangeOf(`scalar(up{job="a"})`, 0, 60_000, 1000),
		rangeOf(`{__name__=~".+"}`, 0, 600_000, 10_000),
	}
	for _, messageBytes := range []int{1, 100, 4000, 1 << 20} {
		for _, call := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
			t.Run(fmt.Sprintf("messages of %d bytes, compressed: %t", messageBytes, call != nil), func(t *testing.T) {
				t.Parallel()
				e := newEngine()
				c := open(t, serve(t, pushdown.Config{MessageBytes: messageBytes}, e, db), call...)
				for id := range uint64(3) {
					results := c.batch(id, fragments...)
					for i, f := range fragments {
						requireEqualResult(t, e, db, f, results[i])
					}
				}
			})
		}
	}
}

func loaded(tb testing.TB) *teststorage.TestStorage {
	tb.Helper()
	db := promqltest.LoadedStorage(tb, data)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

func requireEqualResult(t *testing.T, e promql.QueryEngine, db storage.Queryable, f *pushdownv1.Fragment, got result) {
	t.Helper()
	q := newQuery(t, e, db, f)
	defer q.Close()
	res := q.Exec(context.Background())
	require.Nil(t, got.err)
	kinds := map[string]pushdownv1.ValueType{
		"scalar": pushdownv1.ValueType_VALUE_TYPE_SCALAR,
		"vector": pushdownv1.ValueType_VALUE_TYPE_VECTOR,
		"matrix": pushdownv1.ValueType_VALUE_TYPE_MATRIX,
	}
	require.Equal(t, kinds[string(res.Value.Type())], got.kind, f.GetExpr())
	requireEqualRows(t, sorted(rowsOf(t, res)), sorted(got.rows))
}

func newQuery(t *testing.T, e promql.QueryEngine, db storage.Queryable, f *pushdownv1.Fragment) promql.Query {
	t.Helper()
	if f.GetStepMs() == 0 {
		q, err := e.NewInstantQuery(t.Context(), db, nil, f.GetExpr(), time.UnixMilli(f.GetStartMs()))
		require.NoError(t, err)
		return q
	}
	q, err := e.NewRangeQuery(t.Context(), db, nil, f.GetExpr(), time.UnixMilli(f.GetStartMs()), time.UnixMilli(f.GetEndMs()), time.Duration(f.GetStepMs())*time.Millisecond)
	require.NoError(t, err)
	return q
}

func TestStaleMarkersAndNaNKeepTheirBits(t *testing.T) {
	t.Parallel()
	db := teststorage.New(t)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	app := db.Appender(t.Context())
	bits := []uint64{value.NormalNaN, 0x7ff8dead_00000001, math.Float64bits(math.Copysign(0, -1))}
	for i, b := range bits {
		_, err := app.Append(0, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), 1000, math.Float64frombits(b))
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	c := open(t, serve(t, pushdown.Config{}, newEngine(), db))
	rows := sorted(c.batch(1, instant("m", 1000))[0].rows)
	require.Len(t, rows, len(bits))
	for i, b := range bits {
		require.Equal(t, b, math.Float64bits(rows[i].f))
	}
}

func TestLabelsAreSentOnce(t *testing.T) {
	t.Parallel()
	c := open(t, serve(t, pushdown.Config{}, newEngine(), loaded(t)))
	c.batch(1, instant("requests_total", 600_000), instant("up", 600_000))
	require.Equal(t, 5, c.newSets)
	c.batch(2, instant("up", 630_000), instant("requests_total", 630_000))
	require.Zero(t, c.newSets)
}

func TestEqualFragmentsRunOnce(t *testing.T) {
	t.Parallel()
	e := &counting{QueryEngine: newEngine()}
	c := open(t, serve(t, pushdown.Config{}, e, loaded(t)))
	up, other := "min_over_time(up[1m:30s])", "max_over_time(requests_total[1m:30s])"
	results := c.batch(1, instant(up, 600_000), instant(other, 600_000), instant(up, 600_000), instant(up, 600_001))
	require.Equal(t, int64(3), e.queries.Load())
	requireEqualRows(t, results[0].rows, results[2].rows)
	require.Len(t, results[3].rows, 2)
}

type counting struct {
	promql.QueryEngine
	queries atomic.Int64
}

func (e *counting) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, ts time.Time) (promql.Query, error) {
	e.queries.Add(1)
	return e.QueryEngine.NewInstantQuery(ctx, q, opts, expr, ts)
}

func TestFragmentsFailOneByOne(t *testing.T) {
	t.Parallel()
	c := open(t, serve(t, pushdown.Config{MaxExprBytes: 50, MaxSteps: 10}, newEngine(), loaded(t)))
	cases := []struct {
		name     string
		fragment *pushdownv1.Fragment
		kind     pushdownv1.Error_Kind
		message  string
	}{
		{"what does not parse is the user's fault", instant("sum(", 0), pushdownv1.Error_KIND_USER, "parse error"},
		{"many-to-many is the user's fault", instant(`up * on () up`, 0), pushdownv1.Error_KIND_USER, "many-to-many"},
		{"a string has no numbers", instant(`"text"`, 0), pushdownv1.Error_KIND_USER, "string"},
		{"a long expression breaks a limit", instant(strings.Repeat("1+", 50)+"1", 0), pushdownv1.Error_KIND_LIMIT, "the limit is 50"},
		{"too many steps break a limit", rangeOf("up", 0, 10_000, 1000), pushdownv1.Error_KIND_LIMIT, "11 steps, the limit is 10"},
		{"an instant fragment has one time", &pushdownv1.Fragment{Expr: "up", EndMs: 1}, pushdownv1.Error_KIND_USER, "without a step"},
		{"time does not run backwards", rangeOf("up", 1000, 0, 1000), pushdownv1.Error_KIND_USER, "before start"},
		{"a negative step", rangeOf("up", 0, 1000, -1), pushdownv1.Error_KIND_USER, "negative"},
	}
	var fragments []*pushdownv1.Fragment
	for _, tc := range cases {
		fragments = append(fragments, tc.fragment)
	}
	results := c.batch(1, append(fragments, instant("up", 0))...)
	for i, tc := range cases {
		require.Equal(t, tc.kind, results[i].err.GetKind(), tc.name)
		require.Contains(t, results[i].err.GetMessage(), tc.message, tc.name)
		require.Empty(t, results[i].rows, tc.name)
	}
	require.Len(t, results[len(cases)].rows, 2)
}

func TestBatchOverTheLimitIsRefusedWhole(t *testing.T) {
	t.Parallel()
	c := open(t, serve(t, pushdown.Config{MaxFragments: 1}, newEngine(), loaded(t)))
	for _, r := range c.batch(1, instant("up", 0), instant("up", 0)) {
		require.Equal(t, pushdownv1.Error_KIND_LIMIT, r.err.GetKind())
		require.Contains(t, r.err.GetMessage(), "the limit of fragments per batch is 1")
	}
	require.Len(t, c.batch(2, instant("up", 0))[0].rows, 2)
}

func TestFullTableEndsTheStreamAfterTheBatch(t *testing.T) {
	t.Parallel()
	conn := serve(t, pushdown.Config{MaxLabelSets: 1}, newEngine(), loaded(t))
	c := open(t, conn)
	require.Len(t, c.batch(1, instant("up", 0))[0].rows, 2)
	_, err := c.stream.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, "stream table full", status.Convert(err).Message())
	require.Len(t, open(t, conn).batch(1, instant("up", 0))[0].rows, 2)
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	conn := serve(t, pushdown.Config{MaxStreams: 1}, newEngine(), loaded(t))
	first := open(t, conn)
	first.batch(1, instant("up", 0))
	_, err := open(t, conn).stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, err.Error(), "the limit is 1")
}

func TestCancelledStreamCancelsTheQuery(t *testing.T) {
	t.Parallel()
	e := &blocking{started: make(chan struct{}), cancelled: make(chan error, 1)}
	conn := serve(t, pushdown.Config{}, e, loaded(t))
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := pushdownv1.NewPushdownClient(conn).Execute(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&pushdownv1.BatchRequest{Fragments: []*pushdownv1.Fragment{instant(engineOnly, 0)}}))
	<-e.started
	cancel()
	require.ErrorIs(t, <-e.cancelled, context.Canceled)
}

func TestStopEndsIdleStreamsAtOnceAndLateBatchesInTime(t *testing.T) {
	t.Parallel()
	e := &blocking{started: make(chan struct{}), cancelled: make(chan error, 1)}
	conn, stop := start(t, pushdown.Config{}, e, loaded(t))
	idle, busy := open(t, conn), open(t, conn)
	require.NoError(t, idle.stream.Send(&pushdownv1.BatchRequest{}))
	_, err := idle.stream.Recv()
	require.NoError(t, err)
	require.NoError(t, busy.stream.Send(&pushdownv1.BatchRequest{Fragments: []*pushdownv1.Fragment{instant(engineOnly, 0)}}))
	<-e.started
	require.NoError(t, stop())
	_, err = idle.stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorIs(t, <-e.cancelled, context.Canceled)
}

// engineOnly is an expression that is not evaluated in columns.
const engineOnly = "up @ 0"

// blocking is an engine whose queries run until they are cancelled.
type blocking struct {
	promql.QueryEngine
	promql.Query
	started   chan struct{}
	cancelled chan error
}

func (e *blocking) NewInstantQuery(context.Context, storage.Queryable, promql.QueryOpts, string, time.Time) (promql.Query, error) {
	return e, nil
}

func (e *blocking) Exec(ctx context.Context) *promql.Result {
	close(e.started)
	<-ctx.Done()
	e.cancelled <- ctx.Err()
	return &promql.Result{Err: ctx.Err()}
}

func (e *blocking) Close() {}
