package gossip

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/sharding"
)

func someCosts(version uint64) sharding.Costs {
	return sharding.NewCosts(version, 1000, []sharding.Heavy{{Group: 1 << 63, Cost: 300}, {Group: 2, Cost: 1 << 40}})
}

// newest is the version of the costs that members have in the end.
const newest = 2

// awaitCosts waits until a member shares groups out by the newest costs.
func awaitCosts(t *testing.T, c *Cluster, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for c.View().Costs().Version() != newest {
		select {
		case <-c.Changes():
		case <-ctx.Done():
			t.Fatalf("costs of %s are %safter %s", c.cfg.Name, c.View().Costs(), d)
		}
	}
}

func TestCostsReachAllMembersAndThoseThatJoin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 3)
		a := w.start(t, "a", 0)
		b := w.start(t, "b", 1, 0)
		for _, n := range []node{a, b} {
			await(t, n.Cluster, time.Second, is("a:joining b:joining"))
		}
		a.SetCosts(someCosts(newest))
		require.Equal(t, someCosts(newest), a.View().Costs())
		awaitCosts(t, b.Cluster, time.Second)
		require.Equal(t, a.View(), b.View())
		b.SetCosts(someCosts(1))
		require.Equal(t, someCosts(newest), b.View().Costs(), "older costs change nothing")

		c := w.start(t, "c", 2, 0)
		awaitCosts(t, c.Cluster, time.Second)
		require.InDelta(t, newest, testutil.ToFloat64(c.metrics.costsVersion), 0)
	})
}

func TestCostsOfBothSidesOfAPartitionBecomeOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2)
		a := w.start(t, "a", 0)
		b := w.start(t, "b", 1, 0)
		await(t, a.Cluster, time.Second, is("a:joining b:joining"))
		w.sever(1, true)
		await(t, a.Cluster, 2*detection, is("a:joining"))
		a.SetCosts(someCosts(1))
		b.SetCosts(someCosts(newest))
		w.sever(1, false)
		awaitCosts(t, a.Cluster, 3*rejoinInterval)
		awaitCosts(t, b.Cluster, 3*rejoinInterval)
	})
}

func TestCostsSurviveTheirEncoding(t *testing.T) {
	t.Parallel()
	for _, c := range []sharding.Costs{{}, someCosts(7)} {
		b := encodeCosts(c)
		got, err := decodeCosts(b)
		require.NoError(t, err)
		require.Equal(t, c.String(), got.String())
		for n := range len(b) {
			_, err := decodeCosts(b[:n])
			require.Error(t, err, "cut to %d bytes", n)
		}
	}
	largest := make([]sharding.Heavy, sharding.MaxHeavy)
	for i := range largest {
		largest[i] = sharding.Heavy{Group: uint64(i), Cost: 1 << 40}
	}
	require.Less(t, len(encodeCosts(sharding.NewCosts(1, 1, largest))), 64<<10, "small enough to be told each time")
	tooMany := bytes.Join([][]byte{{costsMagic, costsVersion, 1, 1}, {0x81, 0x20}}, nil)
	_, err := decodeCosts(tooMany)
	require.ErrorContains(t, err, "costs of 4097 heavy groups, the limit is 4096")
}

func FuzzDecodeCosts(f *testing.F) {
	f.Add(encodeCosts(someCosts(3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCosts(b)
		if err != nil {
			return
		}
		again, err := decodeCosts(encodeCosts(c))
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}
