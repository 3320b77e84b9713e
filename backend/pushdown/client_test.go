package pushdown_test

import (
	"cmp"
	"context"
	"math"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/backend/pushdown"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

func newEngine() *engine.Engine {
	return engine.New(engine.Config{}, prometheus.NewRegistry(), promslog.NewNopLogger())
}

// serve runs a server on a free loopback port for the length of the test and
// returns a connection to it.
func serve(tb testing.TB, cfg pushdown.Config, e promql.QueryEngine, q storage.Queryable) *grpc.ClientConn {
	tb.Helper()
	conn, stop := start(tb, cfg, e, q)
	tb.Cleanup(func() { require.NoError(tb, stop()) })
	return conn
}

// start is serve with the stop in the caller's hands; stop returns what Run
// returned.
func start(tb testing.TB, cfg pushdown.Config, e promql.QueryEngine, q storage.Queryable) (_ *grpc.ClientConn, stop func() error) {
	tb.Helper()
	cfg.ListenAddress = "127.0.0.1:0"
	s, err := pushdown.New(cfg, pushdown.Deps{
		Engine: e, Queryable: q, Ready: func() error { return nil },
		Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
	})
	require.NoError(tb, err)
	require.NoError(tb, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := grpc.NewClient(s.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, conn.Close()) })
	return conn, func() error {
		cancel()
		return <-done
	}
}

// client is one stream and what its tables hold.
type client struct {
	tb       testing.TB
	stream   grpc.BidiStreamingClient[pushdownv1.BatchRequest, pushdownv1.BatchResponse]
	symbols  []string
	sets     []labels.Labels
	messages int
	newSets  int
}

func open(tb testing.TB, conn *grpc.ClientConn, opts ...grpc.CallOption) *client {
	tb.Helper()
	stream, err := pushdownv1.NewPushdownClient(conn).Execute(tb.Context(), opts...)
	require.NoError(tb, err)
	return &client{tb: tb, stream: stream}
}

// result is a fragment's result, put together from its parts.
type result struct {
	kind     pushdownv1.ValueType
	err      *pushdownv1.Error
	rows     []row
	warnings []string
	samples  uint64
	complete bool
}

type row struct {
	metric labels.Labels
	t      int64
	f      float64
	h      *histogram.FloatHistogram
}

// batch sends a batch and waits for its end.
func (c *client) batch(id uint64, fragments ...*pushdownv1.Fragment) []result {
	c.tb.Helper()
	require.NoError(c.tb, c.stream.Send(&pushdownv1.BatchRequest{BatchId: id, Fragments: fragments}))
	results := make([]result, len(fragments))
	c.messages, c.newSets = 0, 0
	for {
		msg, err := c.stream.Recv()
		require.NoError(c.tb, err)
		require.Equal(c.tb, id, msg.GetBatchId())
		c.messages++
		c.learn(msg)
		for _, r := range msg.GetResults() {
			c.decode(&results[r.GetFragment()], r, fragments[r.GetFragment()])
		}
		if msg.GetDone() {
			return results
		}
	}
}

func (c *client) learn(msg *pushdownv1.BatchResponse) {
	c.symbols = append(c.symbols, msg.GetNewSymbols()...)
	c.newSets += len(msg.GetNewLabelSets())
	for _, set := range msg.GetNewLabelSets() {
		b := labels.NewScratchBuilder(len(set.GetSymbols()) / 2)
		for i := 0; i < len(set.GetSymbols()); i += 2 {
			b.Add(c.symbols[set.GetSymbols()[i]], c.symbols[set.GetSymbols()[i+1]])
		}
		c.sets = append(c.sets, b.Labels())
	}
}

func (c *client) decode(to *result, r *pushdownv1.FragmentResult, f *pushdownv1.Fragment) {
	to.kind, to.err = r.GetType(), r.GetError()
	to.warnings = append(to.warnings, r.GetWarnings()...)
	to.samples += r.GetSamplesRead()
	require.False(c.tb, to.complete, "a part after the last one")
	to.complete = r.GetComplete()
	values, histograms := r.GetValues(), r.GetHistograms()
	for i, set := range r.GetLabelSets() {
		row := row{metric: c.sets[set], t: f.GetStartMs()}
		if len(r.GetTimestampsMs()) > 0 {
			row.t = r.GetTimestampsMs()[i]
		}
		at := len(r.GetHistograms()) - len(histograms)
		if at < len(r.GetHistogramRows()) && int(r.GetHistogramRows()[at]) == i {
			var h prompb.Histogram
			require.NoError(c.tb, h.Unmarshal(histograms[0]))
			require.Equal(c.tb, row.t, h.Timestamp)
			row.h, histograms = h.ToFloatHistogram(), histograms[1:]
		} else {
			row.f, values = values[0], values[1:]
		}
		to.rows = append(to.rows, row)
	}
	require.Empty(c.tb, values)
	require.Empty(c.tb, histograms)
}

// rowsOf flattens a result of the engine the way the wire orders it.
func rowsOf(tb testing.TB, res *promql.Result) []row {
	tb.Helper()
	require.NoError(tb, res.Err)
	var rows []row
	switch v := res.Value.(type) {
	case promql.Scalar:
		rows = append(rows, row{t: v.T, f: v.V})
	case promql.Vector:
		for _, s := range v {
			rows = append(rows, row{s.Metric, s.T, s.F, s.H})
		}
	case promql.Matrix:
		for _, s := range v {
			for _, p := range s.Floats {
				rows = append(rows, row{s.Metric, p.T, p.F, nil})
			}
			for _, p := range s.Histograms {
				rows = append(rows, row{s.Metric, p.T, 0, p.H})
			}
		}
	}
	return rows
}

// requireEqualRows compares bit by bit.
func requireEqualRows(tb testing.TB, want, got []row) {
	tb.Helper()
	require.Len(tb, got, len(want))
	for i := range want {
		require.True(tb, labels.Equal(want[i].metric, got[i].metric), "%s and %s", want[i].metric, got[i].metric)
		require.Equal(tb, want[i].t, got[i].t)
		require.Equal(tb, math.Float64bits(want[i].f), math.Float64bits(got[i].f))
		require.Equal(tb, want[i].h == nil, got[i].h == nil)
		if want[i].h != nil {
			require.True(tb, want[i].h.Equals(got[i].h), "%s and %s", want[i].h, got[i].h)
			require.Equal(tb, want[i].h.CounterResetHint, got[i].h.CounterResetHint)
		}
	}
}

// sorted orders rows; engines return vectors in any order.
func sorted(rows []row) []row {
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(labels.Compare(a.metric, b.metric), cmp.Compare(a.t, b.t))
	})
	return rows
}
