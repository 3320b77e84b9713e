package remote

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// hanging is a storage that reads {a="hangs"} until it is told to stop.
type hanging struct {
	storage.SampleAndChunkQueryable
	began, ended chan struct{}
}

func newHanging(t *testing.T) *hanging {
	return &hanging{testData(t), make(chan struct{}, 10), make(chan struct{}, 10)}
}

func (h *hanging) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := h.SampleAndChunkQueryable.Querier(mint, maxt)
	return hangingQuerier{q, h}, err
}

type hangingQuerier struct {
	storage.Querier
	storage *hanging
}

func (q hangingQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	for _, m := range ms {
		if m.Value == "hangs" {
			q.storage.began <- struct{}{}
			<-ctx.Done()
			q.storage.ended <- struct{}{}
			return storage.ErrSeriesSet(ctx.Err())
		}
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}

// realClients are a client of each kind, of the real servers over a storage.
func realClients(t *testing.T, s storage.SampleAndChunkQueryable) map[string]Client {
	srv, err := pushdown.New(pushdown.Config{ListenAddress: "127.0.0.1:0"}, pushdown.Deps{
		Engine: promserver.Engine(), Queryable: s, Ready: func() error { return nil },
		Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
	})
	require.NoError(t, err)
	require.NoError(t, srv.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	api := httptest.NewServer(promserver.API(promserver.Engine(), s))
	t.Cleanup(api.Close)
	return map[string]Client{"native": newNative(t, srv.Addr().String()), "HTTP": newHTTP(t, api.URL)}
}

// TestLimitsHoldAtRealServers: a fragment over its limit fails with the name of
// the limit, and no other one of the batch does.
func TestLimitsHoldAtRealServers(t *testing.T) {
	t.Parallel()
	s := newHanging(t)
	for name, c := range realClients(t, s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limited := func(expr string, l plan.Limits) plan.Fragment {
				f := at(expr, 1000)
				f.Limits = l
				return f
			}
			r := c.Execute(context.Background(), []plan.Fragment{
				limited("x", plan.Limits{Series: 1}),
				limited(`y{a="hangs"}`, plan.Limits{Time: 50 * time.Millisecond}),
				limited("x", plan.Limits{Bytes: 20}),
				limited("x", plan.Limits{Samples: 1000, Series: 2, Bytes: 1 << 20, Time: time.Hour}),
				at("x", 1000),
				limited("x", plan.Limits{Samples: 1}),
			}, Options{})
			for i, limit := range []Limit{LimitSeries, LimitTime, LimitBytes} {
				requireLimit(t, r[i].Err, limit)
				require.Nil(t, r[i].Value)
			}
			for _, answer := range r[3:5] {
				require.NoError(t, answer.Err)
				require.Len(t, answer.Value, 2)
				require.Positive(t, answer.Took)
			}
			if name == "native" {
				requireLimit(t, r[5].Err, LimitSamples)
			} else {
				require.NoError(t, r[5].Err, "the HTTP API does not say what was read")
			}
			<-s.ended
		})
	}
}

func requireLimit(t *testing.T, err error, limit Limit) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e, limit)
	require.Equal(t, KindLimit, e.Kind)
	require.Equal(t, limit, e.Limit)
}

// TestCancellationReachesTheEngine of real servers: the storage is told to stop.
func TestCancellationReachesTheEngine(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"native", "HTTP"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newHanging(t)
			c := realClients(t, s)[kind]
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				<-s.began
				cancel()
			}()
			r := c.Execute(ctx, []plan.Fragment{at(`y{a="hangs"}`, 1000)}, Options{})
			require.Equal(t, KindCanceled, kindOf(t, r[0].Err))
			<-s.ended
			require.NoError(t, c.Probe(context.Background()))
		})
	}
}

// TestLimitsWithABackendThatDoesNotKnowThem: the answer is measured here.
func TestLimitsWithABackendThatDoesNotKnowThem(t *testing.T) {
	t.Parallel()
	n := startScripted(t, scripted{answer: func(req *pushdownv1.BatchRequest, stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
		answer := &pushdownv1.BatchResponse{
			BatchId: req.GetBatchId(), Done: true,
			NewSymbols:   []string{"a", "1", "2"},
			NewLabelSets: []*pushdownv1.LabelSet{{Symbols: []uint32{0, 1}}, {Symbols: []uint32{0, 2}}},
		}
		for i := range req.GetFragments() {
			answer.Results = append(answer.Results, &pushdownv1.FragmentResult{
				Fragment: uint32(i), Type: pushdownv1.ValueType_VALUE_TYPE_VECTOR,
				LabelSets: []uint32{0, 1}, Values: []float64{1, 2}, SamplesRead: 50,
			})
		}
		return stream.Send(answer)
	}})
	fragments := []plan.Fragment{at("x", 1000), at("x", 1000), at("x", 1000), at("x", 1000)}
	fragments[1].Limits.Samples = 49
	fragments[2].Limits.Series = 1
	fragments[3].Limits.Bytes = 5
	r := n.Execute(context.Background(), fragments, Options{})
	require.NoError(t, r[0].Err)
	requireLimit(t, r[1].Err, LimitSamples)
	requireLimit(t, r[2].Err, LimitSeries)
	requireLimit(t, r[3].Err, LimitBytes)
	require.EqualError(t, r[2].Err, "the fragment takes 2 series, the limit is 1")
}

// TestCompleteResultsOutliveTheTimeout: one fragment that takes too long does
// not cost the others of the batch their results, nor does half a result count.
func TestCompleteResultsOutliveTheTimeout(t *testing.T) {
	t.Parallel()
	n := startScripted(t, scripted{answer: func(req *pushdownv1.BatchRequest, stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
		vector := pushdownv1.ValueType_VALUE_TYPE_VECTOR
		err := stream.Send(&pushdownv1.BatchResponse{BatchId: req.GetBatchId(), Results: []*pushdownv1.FragmentResult{
			{Fragment: 2, Type: vector, Complete: true},
			{Fragment: 0, Error: &pushdownv1.Error{Kind: pushdownv1.Error_KIND_USER, Message: "why"}, Complete: true},
			{Fragment: 1, Type: vector},
		}})
		if err == nil {
			err = stream.Send(&pushdownv1.BatchResponse{BatchId: req.GetBatchId()})
		}
		<-stream.Context().Done()
		return err
	}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r := n.Execute(ctx, []plan.Fragment{at("x", 1000), at("x", 1000), at("x", 1000)}, Options{})
	require.Equal(t, KindUser, kindOf(t, r[0].Err))
	require.Equal(t, KindTimeout, kindOf(t, r[1].Err))
	require.NoError(t, r[2].Err)
	require.Equal(t, promql.Vector(nil), r[2].Value)
}
