package gossip

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// labelled begins a message as members of the cluster without a name do.
func labelled(body []byte) []byte {
	const hasLabel = 244 // memberlist's
	return append(append([]byte{hasLabel, byte(len(labelPrefix))}, labelPrefix...), body...)
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestForeignAndHostileMessagesAreDroppedAndCounted(t *testing.T) {
	t.Parallel()
	keys := keyFile(t, key(1))
	const packet, stream = "udp", "tcp"
	for name, m := range map[string]struct {
		network string
		keys    string
		body    []byte
		reason  string
	}{
		"noise":                             {packet, keys, noise(600), reasonLabel},
		"noise on a stream":                 {stream, keys, noise(600), reasonLabel},
		"noise with the label":              {packet, keys, labelled(noise(600)), reasonKey},
		"noise with the label on a stream":  {stream, keys, labelled(noise(600)), reasonKey},
		"plaintext where keys are":          {packet, keys, labelled([]byte{0, 0x81}), reasonKey},
		"an encrypted stream of 4 GiB":      {stream, keys, labelled([]byte{10, 0xff, 0xff, 0xff, 0xff}), reasonGarbage},
		"a packet of 60 KiB":                {packet, keys, labelled(noise(60 << 10)), reasonKey},
		"noise where no keys are":           {packet, "", labelled([]byte{200, 1, 2, 3}), reasonGarbage},
		"an unknown stream without keys":    {stream, "", labelled([]byte{200, 1, 2, 3}), reasonGarbage},
		"a broken ping where no keys are":   {packet, "", labelled([]byte{0, 0xff, 0xff}), reasonGarbage},
		"a broken state where no keys are":  {stream, "", labelled([]byte{6, 0xff, 0xff, 0xff}), reasonGarbage},
		"costs that are none, without keys": {packet, "", labelled(append([]byte{8}, noise(100)...)), reasonCosts},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := onLoopback(t, "a", m.keys)
			count := func() float64 { return testutil.ToFloat64(a.metrics.rejected.WithLabelValues(m.reason)) }
			require.Eventually(t, func() bool {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), m.network, addr(t, a))
				require.NoError(t, err)
				_, _ = conn.Write(m.body) // the member may hang up first
				return conn.Close() == nil && count() > 0
			}, loopbackPatience, 20*time.Millisecond)
			require.Equal(t, "a:joining", states(a.Cluster))
			b := onLoopback(t, "b", m.keys, addr(t, a))
			await(t, b.Cluster, loopbackPatience, is("a:joining b:joining"))
		})
	}
}

func TestPeersAreReadFromAFileAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 4)
		file := filepath.Join(t.TempDir(), "peers")
		write := func(ports ...int) {
			lines := []string{"# members"}
			for _, p := range ports {
				lines = append(lines, w.ports[p].address)
			}
			require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
		}
		write(0, 1)
		start := func(name string, on int) node {
			return run(t, Config{Name: name, BindAddress: "127.0.0.1:0", PeersFile: file}, func(c *Cluster) error {
				c.transport = w.ports[on]
				return nil
			})
		}
		a, b := start("a", 0), start("b", 1)
		await(t, a.Cluster, time.Minute, is("a:joining b:joining"))
		await(t, b.Cluster, time.Minute, is("a:joining b:joining"))

		// a is cut off, and everybody comes back at another address meanwhile.
		w.sever(1, true)
		await(t, a.Cluster, 2*detection, is("a:joining"))
		w.kill(1)
		b.stop()
		again := start("b", 2)
		write(0, 2)
		await(t, again.Cluster, time.Minute, is("a:joining b:joining"))
		await(t, a.Cluster, time.Minute, is("a:joining b:joining"))
	})
}

func TestAFaultyFileOfPeersIsReported(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "peers")
	_, err := readPeers(file)
	require.ErrorContains(t, err, "gossip peers file: open")
	for text, wanted := range map[string]string{
		"members":                                `gossip peer "members": must be host:port`,
		strings.Repeat("a:1\n", maxPeers+1):      "1001 gossip peers: must be at most 1000",
		strings.Repeat("#", maxPeersFileBytes+1): "is larger than",
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := readPeers(file)
		require.ErrorContains(t, err, wanted)
	}
	c, err := New(Config{Name: "a", BindAddress: "127.0.0.1:0", Peers: []string{"127.0.0.1:1"}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	c.cfg.PeersFile = file // It became faulty later.
	found, err := c.resolve(context.Background())
	require.Error(t, err)
	require.Equal(t, []string{"127.0.0.1:1"}, found, "the others are tried nevertheless")
}
