package pushdown_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// TestAClientThatDoesNotReadHoldsUpItsBatch: no more results are in memory than
// there are workers and the one that is being encoded, however many the batch
// has; once the client reads on it gets them all.
func TestAClientThatDoesNotReadHoldsUpItsBatch(t *testing.T) {
	t.Parallel()
	const fragments, concurrency = 40, 3
	db := loaded(t)
	// Each result alone is more than a connection takes without being read.
	large := func(i int) *pushdownv1.Fragment {
		return rangeOf(`{__name__=~".+"}`, int64(i), 1_200_000+int64(i), 2000)
	}
	synctest.Test(t, func(t *testing.T) {
		e := &held{QueryEngine: newEngine()}
		c := open(t, serveInMemory(t, pushdown.Config{Concurrency: concurrency, MessageBytes: 64 << 10}, e, db))
		batch := &pushdownv1.BatchRequest{}
		for i := range fragments {
			batch.Fragments = append(batch.Fragments, large(i))
		}
		require.NoError(t, c.stream.Send(batch))
		synctest.Wait()
		require.EqualValues(t, concurrency+1, e.results.Load())
		require.Less(t, e.queries.Load(), int64(fragments/2))
		complete, rows := 0, 0
		for done := false; !done; {
			msg, err := c.stream.Recv()
			require.NoError(t, err)
			require.LessOrEqual(t, e.results.Load(), int64(concurrency+1))
			for _, r := range msg.GetResults() {
				require.Nil(t, r.GetError())
				rows += len(r.GetLabelSets())
				if r.GetComplete() {
					complete++
				}
			}
			done = msg.GetDone()
		}
		require.Equal(t, fragments, complete)
		require.Greater(t, rows, fragments*9*100)
		require.EqualValues(t, fragments, e.queries.Load())
		require.Zero(t, e.results.Load())
	})
}

// serveInMemory is serve without a network, so that everything stands still when
// nothing is left to do.
func serveInMemory(t *testing.T, cfg pushdown.Config, e promql.QueryEngine, q storage.Queryable) *grpc.ClientConn {
	t.Helper()
	cfg.ListenAddress = "127.0.0.1:0" // It is never opened.
	s, err := pushdown.New(cfg, pushdown.Deps{
		Engine: e, Queryable: q, Ready: func() error { return nil },
		Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
	})
	require.NoError(t, err)
	l, srv := bufconn.Listen(64<<10), grpc.NewServer()
	pushdownv1.RegisterPushdownServer(srv, s)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		srv.Stop()
		require.NoError(t, <-served)
	})
	return conn
}

// held is an engine that knows how many results there are that nobody has given
// back yet.
type held struct {
	promql.QueryEngine

	queries, results atomic.Int64
}

func (e *held) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	e.queries.Add(1)
	query, err := e.QueryEngine.NewRangeQuery(ctx, q, opts, expr, start, end, step)
	return heldQuery{query, e}, err
}

type heldQuery struct {
	promql.Query
	engine *held
}

func (q heldQuery) Exec(ctx context.Context) *promql.Result {
	q.engine.results.Add(1)
	return q.Query.Exec(ctx)
}

func (q heldQuery) Close() {
	q.engine.results.Add(-1)
	q.Query.Close()
}
