package remote

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// patient is a backend in virtual time: its requests take a while, and it may
// hang altogether.
type patient struct {
	takes    time.Duration
	hangs    atomic.Bool
	requests atomic.Int64
}

func (p *patient) Execute(ctx context.Context, fragments []plan.Fragment, _ Options) []Result {
	p.requests.Add(1)
	if err := p.work(ctx, p.takes); err != nil {
		return failAll(len(fragments), err)
	}
	return make([]Result, len(fragments))
}

func (p *patient) Probe(ctx context.Context) error { return p.work(ctx, time.Millisecond) }
func (p *patient) Close() error                    { return nil }

func (p *patient) work(ctx context.Context, takes time.Duration) error {
	if p.hangs.Load() {
		<-ctx.Done()
		return contextError(ctx)
	}
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// replicasOf is a backend with the given endpoints, named a, b and so on.
func replicasOf(t *testing.T, clients ...Client) *Replicas {
	t.Helper()
	r := NewReplicas(ReplicasConfig{Name: "east", Connect: func(t Target) (Connection, error) {
		return Connection{Queries: clients[t.Host[0]-'a']}, nil
	}}, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	require.NoError(t, r.SetTargets(targetsOf(len(clients))))
	return r
}

func targetsOf(n int) []Target {
	targets := make([]Target, n)
	for i := range targets {
		targets[i] = Target{Scheme: "http", Host: string(rune('a' + i))}
	}
	return targets
}

func timed(t *testing.T, c Client) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	results := c.Execute(ctx, make([]plan.Fragment, 2), Options{})
	require.Len(t, results, 2)
	require.Equal(t, results[0].Err == nil, results[1].Err == nil)
	return time.Since(began), results[0].Err
}

func TestABackendThatHangsCostsAFewSecondsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &patient{takes: 10 * time.Millisecond}
		g := replicasOf(t, p)
		_, err := timed(t, g)
		require.NoError(t, err)

		p.hangs.Store(true)
		took, err := timed(t, g)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, KindBackend, e.Kind)
		require.Equal(t, patience+probeTimeout, took)
		for range 10 {
			took, err = timed(t, g)
			require.ErrorIs(t, err, errHangs)
			require.Zero(t, took, "it is not asked")
			time.Sleep(probeInterval) //nolint:forbidigo // virtual time
		}
		require.EqualValues(t, 2, p.requests.Load())

		p.hangs.Store(false)
		_, err = timed(t, g) // makes it look again
		require.ErrorIs(t, err, errHangs)
		time.Sleep(probeTimeout + 2*probeInterval) //nolint:forbidigo // virtual time
		_, _ = timed(t, g)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		_, err = timed(t, g)
		require.NoError(t, err)
	})
}

func TestAnExpensiveRequestIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := replicasOf(t, &patient{takes: 20 * time.Second})
		took, err := timed(t, g)
		require.NoError(t, err)
		require.Equal(t, 20*time.Second, took)
	})
}
