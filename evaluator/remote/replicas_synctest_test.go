package remote

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// replica answers every fragment with its number, unless it fails.
type replica struct {
	number float64
	// fails are the errors of the fragments, in their order.
	fails     []error
	takes     time.Duration
	requests  atomic.Int64
	cancelled atomic.Int64
	down      atomic.Bool
	closed    atomic.Bool
}

func (r *replica) Execute(ctx context.Context, fragments []plan.Fragment, _ Options) []Result {
	r.requests.Add(1)
	select {
	case <-time.After(r.takes):
	case <-ctx.Done():
		r.cancelled.Add(1)
		return failAll(len(fragments), contextError(ctx))
	}
	results := make([]Result, len(fragments))
	for i := range results {
		results[i].Value = promql.Scalar{V: r.number}
		if i < len(r.fails) && r.fails[i] != nil {
			results[i] = Result{Err: r.fails[i]}
		}
	}
	return results
}

func (r *replica) Probe(context.Context) error {
	if r.down.Load() {
		return errorf(KindBackend, "down")
	}
	return nil
}

func (r *replica) Close() error {
	r.closed.Store(true)
	return nil
}

// answersOf are the numbers of the replicas that answered two fragments; -1 is
// an error.
func answersOf(t *testing.T, c Client) [2]float64 {
	t.Helper()
	var got [2]float64
	for i, r := range c.Execute(t.Context(), make([]plan.Fragment, 2), Options{}) {
		got[i] = -1
		if r.Err == nil {
			got[i] = r.Value.(promql.Scalar).V
		}
	}
	return got
}

func TestAFailedReplicaIsTheLastToBeAsked(t *testing.T) {
	t.Parallel()
	a, b := &replica{number: 1, fails: []error{errorf(KindBackend, "storage")}}, &replica{number: 2}
	r := replicasOf(t, a, b)
	require.Equal(t, [2]float64{2, 2}, answersOf(t, r), "no part of the other's answer is used")
	a.fails = nil
	require.Equal(t, [2]float64{2, 2}, answersOf(t, r))
	require.EqualValues(t, 1, a.requests.Load(), "it may lack what happened meanwhile")
	b.fails = []error{nil, errorf(KindInternal, "storage")}
	require.Equal(t, [2]float64{1, 1}, answersOf(t, r))
	require.EqualValues(t, 2, testutil.ToFloat64(r.metrics.failovers.WithLabelValues("east")))
	a.fails = []error{errorf(KindBackend, "storage")}
	require.Equal(t, [2]float64{-1, 1}, answersOf(t, r), "with all failed, what the first one said")
}

func TestWhatComesOfTheRequestIsNotTriedElsewhere(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errorf(KindUser, "parse error"), errorf(KindLimit, "too large"), &Error{Kind: KindBackend, Err: ErrHistogram}} {
		a, b := &replica{number: 1, fails: []error{err}}, &replica{number: 2}
		require.Equal(t, [2]float64{-1, 1}, answersOf(t, replicasOf(t, a, b)))
		require.Zero(t, b.requests.Load())
	}
}

func TestASlowReplicaIsHedged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, c := &replica{number: 1, takes: 10 * time.Millisecond}, &replica{number: 2, takes: 20 * time.Millisecond}, &replica{number: 3}
		r := replicasOf(t, a, b, c)
		for range 50 {
			require.Equal(t, [2]float64{1, 1}, answersOf(t, r))
		}
		require.Zero(t, b.requests.Load())
		a.takes = time.Second
		began := time.Now()
		require.Equal(t, [2]float64{2, 2}, answersOf(t, r))
		require.Equal(t, soonest+b.takes, time.Since(began))
		synctest.Wait()
		require.EqualValues(t, 1, a.cancelled.Load(), "the slower is cancelled")
		require.Zero(t, c.requests.Load(), "one more is asked, not all")
		require.EqualValues(t, 1, testutil.ToFloat64(r.metrics.hedged.WithLabelValues("east")))
		require.EqualValues(t, 1, testutil.ToFloat64(r.metrics.requests.WithLabelValues("east", "http://a", "canceled")))
		a.takes = 0
		require.Equal(t, [2]float64{1, 1}, answersOf(t, r), "it has not failed")
	})
}

func TestWithoutAnswersKnownAReplicaHasTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &replica{number: 1, takes: time.Minute}, &replica{number: 2}
		began := time.Now()
		require.Equal(t, [2]float64{2, 2}, answersOf(t, replicasOf(t, a, b)))
		require.Equal(t, unknownLate, time.Since(began))
	})
}

func TestABackendWithoutEndpointsFails(t *testing.T) {
	t.Parallel()
	r := replicasOf(t)
	results := r.Execute(t.Context(), make([]plan.Fragment, 2), Options{})
	require.Len(t, results, 2)
	require.ErrorContains(t, results[1].Err, "no endpoint is known")
	require.Equal(t, KindBackend, kindOf(t, results[1].Err))
	require.ErrorContains(t, r.Probe(t.Context()), "no endpoint")
	_, err := r.LabelNames(t.Context(), Span{})
	require.ErrorContains(t, err, "no endpoint")
}

func TestAnEndpointThatIsGoneIsDroppedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &replica{number: 1, takes: time.Second}, &replica{number: 2, takes: 30 * time.Second}
		r := replicasOf(t, a, b)
		go func() {
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // virtual time
			_ = r.SetTargets(targetsOf(2)[1:])
		}()
		began := time.Now()
		require.Equal(t, [2]float64{2, 2}, answersOf(t, r))
		require.Equal(t, 100*time.Millisecond+b.takes, time.Since(began))
		synctest.Wait()
		require.True(t, a.closed.Load())
		require.False(t, b.closed.Load())
		require.Zero(t, testutil.CollectAndCount(r.metrics.requests)-testutil.CollectAndCount(r.metrics.up), "one series each is left")

		done := make(chan [2]float64)
		go func() { done <- answersOf(t, r) }()
		synctest.Wait()
		require.NoError(t, r.SetTargets(nil))
		require.Equal(t, [2]float64{-1, -1}, <-done)
		require.NoError(t, r.Close())
		require.True(t, b.closed.Load())
	})
}

func TestReplicasAreChecked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &replica{number: 1}, &replica{number: 2}
		r := replicasOf(t, a, b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			r.Run(ctx)
			close(done)
		}()
		synctest.Wait()
		a.down.Store(true)
		time.Sleep(checkInterval + time.Second) //nolint:forbidigo // virtual time
		require.Equal(t, [2]float64{2, 2}, answersOf(t, r))
		require.Zero(t, a.requests.Load(), "it is known to be down")
		require.NoError(t, testutil.CollectAndCompare(r.metrics.up, strings.NewReader(`
# HELP tocsin_evaluator_endpoint_up Whether an endpoint answered the last check.
# TYPE tocsin_evaluator_endpoint_up gauge
tocsin_evaluator_endpoint_up{backend="east",endpoint="http://a"} 0
tocsin_evaluator_endpoint_up{backend="east",endpoint="http://b"} 1
`)))
		require.NoError(t, r.Probe(t.Context()), "one of them answers")
		b.down.Store(true)
		require.ErrorContains(t, r.Probe(t.Context()), "down")
		cancel()
		<-done
	})
}

func TestAFaultyTargetLeavesTheOthers(t *testing.T) {
	t.Parallel()
	r := NewReplicas(ReplicasConfig{Name: "east", Connect: func(t Target) (Connection, error) {
		if t.Host == "a" {
			return Connection{}, errors.New("no certificate")
		}
		return Connection{Queries: &replica{number: 2}}, nil
	}}, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	require.ErrorContains(t, r.SetTargets(targetsOf(2)), "endpoint http://a: no certificate")
	require.Equal(t, [2]float64{2, 2}, answersOf(t, r))
}
