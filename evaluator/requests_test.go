package evaluator_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// TestABatchIsOneMessageABackend: what is folded, what is shared, what stands
// alone and what is merged here goes to each backend together, batch after batch
// on one stream.
func TestABatchIsOneMessageABackend(t *testing.T) {
	t.Parallel()
	servers := map[string]*requests{}
	var backends []evaluator.BackendConfig
	for _, cluster := range []string{"east", "west"} {
		db := promserver.Storage(t)
		var series []promql.Series
		for _, job := range []string{"a", "b", "c"} {
			series = append(series, named(labels.FromStrings("cluster", cluster, "job", job), "m", []promql.FPoint{{T: slot.UnixMilli(), F: 1}}))
		}
		promserver.Append(t, db, series)
		servers[cluster] = &requests{}
		b := backendConfig(t, cluster, cluster, promserver.Start(t, db, labels.EmptyLabels()))
		b.GRPC = &evaluator.GRPCConfig{Address: servers[cluster].serve(t, db)}
		backends = append(backends, b)
	}
	e := newFaultEvaluator(t, backends...)
	var queries []evaluator.Query
	for _, job := range []string{"a", "b", "c"} { // They are folded.
		scope := labels.FromStrings("job", job)
		expr, err := plan.Scope(mustParse(t, "sum(m)"), scope)
		require.NoError(t, err)
		queries = append(queries, evaluator.Query{Name: job, Expr: expr, Scope: scope})
	}
	for _, text := range []string{"count(m)", "count(m) > 1", "min(m)", "quantile(0.5, m)"} {
		queries = append(queries, evaluator.Query{Name: text, Expr: mustParse(t, text)})
	}
	require.Len(t, e.Folding(queries).Folds, 1)
	const slots = 3
	for range slots {
		for _, r := range e.Evaluate(t.Context(), slot, queries) {
			require.NoError(t, r.Err)
			require.Len(t, r.Vector, 1)
		}
	}
	want := []string{"count by (cluster) (m)", "m", "min by (cluster) (m)", `sum by (job, cluster) (m{job=~"a|b|c"})`}
	for cluster, s := range servers {
		got := s.perStream()
		for _, messages := range got {
			for _, exprs := range messages {
				slices.Sort(exprs)
			}
		}
		require.Equal(t, [][][]string{{want, want, want}}, got, cluster)
	}
}

// TestTheTenantThatAsksForTheLeastComesFirst: at first by the number of its
// fragments, then by the time that they took.
func TestTheTenantThatAsksForTheLeastComesFirst(t *testing.T) {
	t.Parallel()
	db := promserver.Storage(t)
	promserver.Append(t, db, []promql.Series{named(labels.FromStrings("cluster", "east", "job", "quick"), "m", []promql.FPoint{{T: slot.UnixMilli(), F: 1}})})
	server := &requests{}
	b := backendConfig(t, "east", "east", promserver.Start(t, db, labels.EmptyLabels()))
	b.GRPC = &evaluator.GRPCConfig{Address: server.serve(t, hanging{db})}
	cfg := evaluator.DefaultConfig()
	cfg.Backends = []evaluator.BackendConfig{b}
	cfg.Limits.Query.Time = model.Duration(2 * time.Second)
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	var queries []evaluator.Query
	for _, q := range [][2]string{{"quick", "sum(m)"}, {"hangs", "max(m)"}, {"quick", "min(m)"}} {
		scope := labels.FromStrings("job", q[0])
		expr, err := plan.Scope(mustParse(t, q[1]), scope)
		require.NoError(t, err)
		queries = append(queries, evaluator.Query{Name: q[0], Expr: expr, Scope: scope})
	}
	for range 2 {
		results := e.Evaluate(t.Context(), slot, queries)
		require.NoError(t, results[0].Err)
		require.ErrorContains(t, results[1].Err, "limits.query.time")
		require.NoError(t, results[2].Err)
	}
	sum, hangs, minimum := `sum(m{job="quick"})`, `max(m{job="hangs"})`, `min(m{job="quick"})`
	require.Equal(t, [][][]string{{{hangs, sum, minimum}, {sum, minimum, hangs}}}, server.perStream())
}

// hanging is a storage that never ends reading what asks for job="hangs".
type hanging struct{ storage.Queryable }

func (h hanging) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := h.Queryable.Querier(mint, maxt)
	return hangingQuerier{q}, err
}

type hangingQuerier struct{ storage.Querier }

func (q hangingQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	for _, m := range ms {
		if m.Name == "job" && m.Value == "hangs" {
			<-ctx.Done()
			return storage.ErrSeriesSet(promql.ErrQueryCanceled("reading"))
		}
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}

// requests are the messages that a pushdown server has received.
type requests struct {
	mu      sync.Mutex
	streams []*requestStream
}

type requestStream struct {
	grpc.ServerStream

	requests *requests
	// messages are the expressions of each, in their order.
	messages [][]string
}

// serve runs the server over a storage until the test ends.
func (r *requests) serve(t *testing.T, data storage.Queryable) (address string) {
	t.Helper()
	s, err := pushdown.New(pushdown.Config{ListenAddress: "127.0.0.1:0"}, pushdown.Deps{
		Engine: promserver.Engine(), Queryable: data, Ready: func() error { return nil },
		Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
	})
	require.NoError(t, err)
	srv := grpc.NewServer(grpc.StreamInterceptor(r.intercept))
	pushdownv1.RegisterPushdownServer(srv, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		require.NoError(t, <-served)
	})
	return l.Addr().String()
}

func (r *requests) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &requestStream{ServerStream: stream, requests: r}
	r.mu.Lock()
	r.streams = append(r.streams, s)
	r.mu.Unlock()
	return handler(srv, s)
}

// RecvMsg implements grpc.ServerStream.
func (s *requestStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	var exprs []string
	for _, f := range m.(*pushdownv1.BatchRequest).GetFragments() {
		exprs = append(exprs, f.GetExpr())
	}
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	s.messages = append(s.messages, exprs)
	return nil
}

// perStream are the messages of each stream, but for probes, which ask whether a
// backend that is slow, as on a busy machine, is there at all.
func (r *requests) perStream() (all [][][]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		messages := slices.DeleteFunc(slices.Clone(s.messages), func(exprs []string) bool { return slices.Equal(exprs, []string{"1"}) })
		if len(messages) > 0 {
			all = append(all, messages)
		}
	}
	return all
}
