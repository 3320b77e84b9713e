package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/sharding"
)

// detection is within how long a dead member is gone from all views of a small
// cluster nearly always, detectionBound when chance is against it.
const (
	detection      = 5 * time.Second
	detectionBound = 10 * time.Second
)

// states shows a view as "a:ready b:joining".
func states(c *Cluster) string {
	var words []string
	for _, m := range c.View().Members() {
		words = append(words, m.Name+":"+m.State.String())
	}
	return strings.Join(words, " ")
}

func is(want string) func(string) bool { return func(view string) bool { return view == want } }

// node is a running member.
type node struct {
	*Cluster
	stop func()
}

// start runs a member on a port of the wire. Its peers are that wire's ports.
func (w *wire) start(t *testing.T, name string, on int, peers ...int) node {
	t.Helper()
	cfg := Config{
		Name: name, BindAddress: "127.0.0.1:0", Zone: "zone-" + name, Weight: 2,
		HTTPAddress: name + ":80", GRPCAddress: name + ":90",
	}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, w.ports[p].address)
	}
	return run(t, cfg, func(c *Cluster) error {
		c.transport = w.ports[on]
		return nil
	})
}

func run(t *testing.T, cfg Config, listen func(*Cluster) error) node {
	t.Helper()
	c, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	require.NoError(t, listen(c))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(stop)
	return node{Cluster: c, stop: stop}
}

func TestMembersJoinChangeStateAndLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 3)
		a := w.start(t, "a", 0)
		require.Equal(t, "a:joining", states(a.Cluster))
		b := w.start(t, "b", 1, 0, 1)
		c := w.start(t, "c", 2, 0)
		all := []*Cluster{a.Cluster, b.Cluster, c.Cluster}
		for _, m := range all {
			await(t, m, time.Second, is("a:joining b:joining c:joining"))
		}

		b.SetState(sharding.Ready)
		require.Equal(t, "b:ready", strings.Fields(states(b.Cluster))[1], "one's own view has it at once")
		for _, m := range all {
			await(t, m, time.Second, is("a:joining b:ready c:joining"))
		}
		require.Equal(t, a.View(), c.View())
		seen, ok := a.View().Member("b")
		require.True(t, ok)
		require.Equal(t, sharding.Member{
			Name: "b", Zone: "zone-b", Weight: 2, State: sharding.Ready,
			HTTPAddress: "b:80", GRPCAddress: "b:90", Version: ProtocolVersion,
		}, seen)

		b.SetState(sharding.Leaving)
		await(t, a.Cluster, time.Second, is("a:joining b:leaving c:joining"))
		b.stop()
		for _, m := range []*Cluster{a.Cluster, c.Cluster} {
			await(t, m, time.Second, is("a:joining c:joining"))
		}
		require.Empty(t, a.roster.failedAddresses(), "who left is not missed")
		require.InDelta(t, 2, testutil.ToFloat64(a.metrics.members.WithLabelValues("joining")), 0)
		require.InDelta(t, 0, testutil.ToFloat64(a.metrics.members.WithLabelValues("leaving")), 0)
	})
}

func TestAKilledMemberIsNoticedAndItsNameIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	for _, size := range []int{2, 3, 8} {
		t.Run(fmt.Sprintf("of %d", size), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t, size+1)
				var nodes []node
				for i := range size {
					n := w.start(t, fmt.Sprintf("m%d", i), i, 0)
					n.SetState(sharding.Ready)
					nodes = append(nodes, n)
				}
				full := states(nodes[0].Cluster)
				for _, n := range nodes {
					await(t, n.Cluster, 3*pushPullInterval, func(v string) bool { return strings.Count(v, "ready") == size })
					full = states(n.Cluster)
				}
				last := size - 1
				w.kill(last)
				killed := time.Now()
				without := strings.Join(strings.Fields(full)[:last], " ")
				for _, n := range nodes[:last] {
					await(t, n.Cluster, detectionBound, is(without))
				}
				t.Logf("noticed by all after %s", time.Since(killed))
				nodes[last].stop()

				again := w.start(t, fmt.Sprintf("m%d", last), size, 0)
				again.SetState(sharding.Ready)
				for _, n := range nodes[:last] {
					await(t, n.Cluster, 3*pushPullInterval, is(full))
				}
			})
		})
	}
}

func TestARestartedMemberIsAcceptedBeforeItsDeathIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 3)
		a := w.start(t, "a", 0)
		b := w.start(t, "b", 1, 0)
		b.SetState(sharding.Ready)
		await(t, a.Cluster, time.Second, is("a:joining b:ready"))
		settle(t, a.Cluster, time.Second)
		w.kill(1)
		again := w.start(t, "b", 2, 0)
		await(t, a.Cluster, time.Second, is("a:joining b:joining"))
		again.SetState(sharding.Ready)
		await(t, a.Cluster, time.Second, is("a:joining b:ready"))
		b.stop()
		settle(t, a.Cluster, 2*detection)
		require.Equal(t, "a:joining b:ready", states(a.Cluster), "the death of the former process changes nothing")
		require.Equal(t, "a:joining b:ready", states(again.Cluster))
	})
}

// settle lets virtual time pass while views may change.
func settle(t *testing.T, c *Cluster, d time.Duration) {
	t.Helper()
	end := time.After(d)
	for {
		select {
		case <-c.Changes():
		case <-end:
			return
		}
	}
}

func TestTheOlderOfTwoProcessesOfOneNameReportsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 3)
		a := w.start(t, "a", 0)
		first := w.start(t, "b", 1, 0)
		await(t, a.Cluster, time.Second, is("a:joining b:joining"))
		settle(t, a.Cluster, time.Second)
		second := w.start(t, "b", 2, 0)
		second.SetState(sharding.Ready)
		await(t, a.Cluster, time.Second, is("a:joining b:ready"))
		settle(t, a.Cluster, time.Second)
		require.Equal(t, "a:joining b:joining", states(first.Cluster), "each sees itself under its name")
		require.Equal(t, "a:joining b:ready", states(second.Cluster))
		require.InDelta(t, 1, testutil.ToFloat64(first.metrics.nameConflicts), 0)
		require.InDelta(t, 0, testutil.ToFloat64(second.metrics.nameConflicts), 0)
		require.True(t, first.roster.hasNewerSelf())
		require.False(t, second.roster.hasNewerSelf())
	})
}

func TestAPartitionHeals(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]time.Duration{
		"short: the dead are still gossiped to": gossipToTheDead / 2,
		"long: all have forgotten the others":   3 * gossipToTheDead,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t, 3)
				a := w.start(t, "a", 0) // Has no peers: it remembers whom it lost.
				b := w.start(t, "b", 1, 0)
				c := w.start(t, "c", 2, 0)
				all := []*Cluster{a.Cluster, b.Cluster, c.Cluster}
				for _, m := range all {
					await(t, m, 2*time.Second, is("a:joining b:joining c:joining"))
				}
				w.sever(1, true)
				w.sever(2, true)
				await(t, a.Cluster, 2*detection, is("a:joining"))
				await(t, b.Cluster, detection, is("b:joining c:joining"))
				settle(t, a.Cluster, length)
				require.Equal(t, "a:joining", states(a.Cluster))

				b.SetState(sharding.Ready)
				w.sever(1, false)
				w.sever(2, false)
				for _, m := range all {
					await(t, m, 3*rejoinInterval, is("a:joining b:ready c:joining"))
				}
				require.Empty(t, a.roster.failedAddresses())
			})
		})
	}
}

func TestPeersAreResolvedAgainUntilOneIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2)
		a := w.start(t, "a", 0)
		_, port, _ := strings.Cut(w.ports[0].address, ":")
		var lookups int
		n := run(t, Config{Name: "b", BindAddress: "127.0.0.1:0", Peers: []string{"members.example:" + port}}, func(c *Cluster) error {
			c.transport = w.ports[1]
			c.lookup = func(context.Context, string) ([]string, error) {
				lookups++
				switch {
				case lookups < 4:
					return nil, fmt.Errorf("no such host")
				case lookups < 6:
					return []string{"127.0.0.9"}, nil
				default:
					return []string{"127.0.0.9", "127.0.0.1"}, nil
				}
			}
			return nil
		})
		await(t, a.Cluster, time.Minute, is("a:joining b:joining"))
		await(t, n.Cluster, time.Second, is("a:joining b:joining"))
		require.Positive(t, testutil.ToFloat64(n.metrics.joins.WithLabelValues("failure")))
		require.InDelta(t, 1, testutil.ToFloat64(n.metrics.joins.WithLabelValues("success")), 0)
	})
}

func TestAnotherClusterIsKeptOutAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2)
		a := w.start(t, "a", 0)
		b := run(t, Config{
			Name: "b", BindAddress: "127.0.0.1:0", ClusterLabel: "other", Peers: []string{w.ports[0].address},
		}, func(c *Cluster) error {
			c.transport = w.ports[1]
			return nil
		})
		settle(t, a.Cluster, 10*time.Second)
		require.Equal(t, "a:joining", states(a.Cluster))
		require.Equal(t, "b:joining", states(b.Cluster))
		require.Positive(t, testutil.ToFloat64(a.metrics.rejected.WithLabelValues(reasonLabel)))
	})
}
