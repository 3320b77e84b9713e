package gossip

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/sharding"
)

func key(fill byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32))
}

func keyFile(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "gossip.key")
	require.NoError(t, os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600))
	return name
}

// onLoopback runs a member over real sockets, encrypted.
func onLoopback(t *testing.T, name, keys string, peers ...string) node {
	t.Helper()
	return run(t, Config{Name: name, BindAddress: "127.0.0.1:0", KeyFile: keys, Peers: peers}, (*Cluster).Listen)
}

func addr(t *testing.T, n node) string {
	t.Helper()
	a, err := n.Addr()
	require.NoError(t, err)
	return a
}

// loopbackPatience is far more than a busy machine needs.
const loopbackPatience = 30 * time.Second

func TestMembersOverLoopbackWithEncryption(t *testing.T) {
	t.Parallel()
	keys := keyFile(t, "# the new one", key(2), "", key(1))
	a := onLoopback(t, "a", keys)
	b := onLoopback(t, "b", keyFile(t, key(1), key(2)), addr(t, a))
	b.SetState(sharding.Ready)
	await(t, a.Cluster, loopbackPatience, is("a:joining b:ready"))
	await(t, b.Cluster, loopbackPatience, is("a:joining b:ready"))

	b.SetLoad(Load{Groups: 20, Cost: 1000})
	b.SetLoad(Load{Groups: 21, Cost: 1001}) // not worth telling
	require.Eventually(t, func() bool { return a.Loads()["b"] == Load{Groups: 20, Cost: 1000} }, loopbackPatience, 10*time.Millisecond)

	b.SetState(sharding.Leaving)
	await(t, a.Cluster, loopbackPatience, is("a:joining b:leaving"))
	b.stop()
	await(t, a.Cluster, loopbackPatience, is("a:joining"))
}

func TestAMemberWithAWrongKeyIsRejectedAndCounted(t *testing.T) {
	t.Parallel()
	a := onLoopback(t, "a", keyFile(t, key(1)))
	for name, keys := range map[string]string{"wrong": keyFile(t, key(9)), "none": ""} {
		before := testutil.ToFloat64(a.metrics.rejected.WithLabelValues(reasonKey))
		n := onLoopback(t, name, keys, addr(t, a))
		require.Eventually(t, func() bool {
			return testutil.ToFloat64(a.metrics.rejected.WithLabelValues(reasonKey)) > before &&
				testutil.ToFloat64(n.metrics.joins.WithLabelValues("failure")) > 1
		}, loopbackPatience, 10*time.Millisecond)
		require.Equal(t, name+":joining", states(n.Cluster))
		require.Equal(t, "a:joining", states(a.Cluster))
		n.stop()
	}
}

func TestAMemberComesBackAtTheSameAddress(t *testing.T) {
	t.Parallel()
	a := onLoopback(t, "a", "")
	b := onLoopback(t, "b", "", addr(t, a))
	await(t, a.Cluster, loopbackPatience, is("a:joining b:joining"))
	address := addr(t, b)
	// Its sockets are gone, as if it were killed.
	require.NoError(t, b.transport.Shutdown())

	again := run(t, Config{Name: "b", BindAddress: address, Peers: []string{addr(t, a)}}, (*Cluster).Listen)
	again.SetState(sharding.Ready)
	await(t, a.Cluster, loopbackPatience, is("a:joining b:ready"))
	require.Equal(t, address, addr(t, again))
}

func TestListenReportsATakenPortAndBadKeys(t *testing.T) {
	t.Parallel()
	a := onLoopback(t, "a", "")
	for wanted, cfg := range map[string]Config{
		"listen for gossip":     {Name: "b", BindAddress: addr(t, a)},
		"gossip key file: open": {Name: "b", BindAddress: "127.0.0.1:0", KeyFile: filepath.Join(t.TempDir(), "missing")},
		"key 1 is not base64":   {Name: "b", BindAddress: "127.0.0.1:0", KeyFile: keyFile(t, "secret!")},
	} {
		c, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		err = c.Listen()
		require.ErrorContains(t, err, wanted)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestKeysAreRotatedWithoutARestart(t *testing.T) {
	t.Parallel()
	name := keyFile(t, key(1))
	k := &keys{file: name, logger: slog.New(slog.DiscardHandler)}
	require.NoError(t, k.load())
	primary := func() byte { return k.ring.GetPrimaryKey()[0] }
	for _, step := range []struct {
		lines   []string
		changed bool
		primary byte
		count   int
	}{
		{[]string{key(1)}, false, 1, 1},
		{[]string{key(1), key(2)}, true, 1, 2},
		{[]string{key(2), key(1), key(3)}, true, 2, 3},
		{[]string{key(3), key(2), key(2)}, true, 3, 2},
		{[]string{key(4)}, true, 4, 1},
	} {
		require.NoError(t, os.WriteFile(name, []byte(strings.Join(step.lines, "\n")), 0o600))
		changed, err := k.reload()
		require.NoError(t, err)
		require.Equal(t, step.changed, changed)
		require.Equal(t, step.primary, primary())
		require.Len(t, k.ring.GetKeys(), step.count)
	}
	for text, wanted := range map[string]string{
		"":                             "0 keys",
		"c2hvcnQ=":                     "key 1: key size must be",
		key(4) + "\n??":                "key 2 is not base64",
		strings.Repeat("#\n", 10_000):  "is larger than",
		strings.Join(manyKeys(), "\n"): "17 keys: must be 1 to 16",
	} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		changed, err := k.reload()
		require.ErrorContains(t, err, wanted)
		require.False(t, changed)
		require.Equal(t, byte(4), primary(), "the last good keys stay")
	}
}

func manyKeys() []string {
	var lines []string
	for i := range byte(maxKeys + 1) {
		lines = append(lines, key(i+1))
	}
	return lines
}

func TestMetadataSurvivesItsEncoding(t *testing.T) {
	t.Parallel()
	m := sharding.Member{
		Zone: "zone", Weight: 1.5, State: sharding.Leaving,
		HTTPAddress: "[::1]:9090", GRPCAddress: "host:1", Version: 1 << 31,
	}
	load := Load{Groups: 300, Cost: 1 << 40}
	b := encodeMeta(m, load)
	firstVersion := len(b) - 2 - 6 // the load takes two and six bytes
	for _, encoded := range [][]byte{b, append(bytes.Clone(b), "added by a later version"...)} {
		got, gotLoad, err := decodeMeta(encoded)
		require.NoError(t, err)
		require.Equal(t, m, got)
		require.Equal(t, load, gotLoad)
	}
	for n := range len(b) {
		got, gotLoad, err := decodeMeta(b[:n])
		if n == firstVersion {
			require.NoError(t, err)
			require.Equal(t, m, got)
			require.Zero(t, gotLoad)
			continue
		}
		require.ErrorIs(t, err, errMeta, "cut to %d bytes", n)
	}
	for i, wrong := range map[int]byte{0: 'X', 1: metaVersion + 1, 7: 0} {
		c := bytes.Clone(b)
		c[i] = wrong
		_, _, err := decodeMeta(c)
		require.ErrorIs(t, err, errMeta, "byte %d", i)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add(encodeMeta(sharding.Member{State: sharding.Ready, Zone: "z"}, Load{Groups: 1}))
	f.Add([]byte{metaMagic, metaVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, l, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, load, err := decodeMeta(encodeMeta(m, l))
		require.NoError(t, err)
		require.Equal(t, encodeMeta(m, l), encodeMeta(again, load))
	})
}

func TestNodeNames(t *testing.T) {
	t.Parallel()
	name, generation, err := splitNodeName(nodeName("evaluator-0", 0xabc))
	require.NoError(t, err)
	require.Equal(t, "evaluator-0", name)
	require.Equal(t, uint64(0xabc), generation)
	for _, foreign := range []string{"", "alertmanager-0", "/1", "a/", "a/x y", strings.Repeat("a", maxNameLength+1) + "/1"} {
		_, _, err := splitNodeName(foreign)
		require.ErrorIs(t, err, errMeta, "%q", foreign)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	good := Config{Name: "a", BindAddress: "127.0.0.1:0", Peers: []string{"members:7946", "10.0.0.1:7946"}}
	require.NoError(t, good.Validate())
	for wanted, change := range map[string]func(*Config){
		`member name ""`:                   func(c *Config) { c.Name = "" },
		`member name "a/b"`:                func(c *Config) { c.Name = "a/b" },
		`gossip peer "members": must be`:   func(c *Config) { c.Peers = append(c.Peers, "members") },
		"gossip peers: must be at most":    func(c *Config) { c.Peers = make([]string, maxPeers+1) },
		"cluster label of":                 func(c *Config) { c.ClusterLabel = strings.Repeat("x", 200) },
		"gossip carries at most 512":       func(c *Config) { c.Zone = strings.Repeat("x", 600) },
		`gossip address "localhost:0"`:     func(c *Config) { c.BindAddress = "localhost:0" },
		`gossip address "127.0.0.1"`:       func(c *Config) { c.BindAddress = "127.0.0.1" },
		`gossip address "127.0.0.1:x"`:     func(c *Config) { c.BindAddress = "127.0.0.1:x" },
		`gossip address "members:1": must`: func(c *Config) { c.AdvertiseAddress = "members:1" },
		"an advertised address is needed":  func(c *Config) { c.BindAddress = "[::]:0" },
		"set a gossip key file":            func(c *Config) { c.BindAddress = ":0" },
	} {
		c := good
		change(&c)
		require.ErrorContains(t, c.Validate(), wanted)
		_, err := New(c, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.ErrorContains(t, err, wanted)
	}
	require.NoError(t, Config{Name: "a", BindAddress: ":7946", KeyFile: "k", AdvertiseAddress: "10.0.0.1:0"}.Validate())
}

func TestOthersAreToldWhereAMemberIsWhateverItListensOn(t *testing.T) {
	t.Parallel()
	n := run(t, Config{
		Name: "a", BindAddress: "127.0.0.1:0", AdvertiseAddress: "10.0.0.9:7000", HTTPAddress: "0.0.0.0:80", GRPCAddress: ":90",
	}, (*Cluster).Listen)
	m, _ := n.View().Member("a")
	require.Equal(t, []string{"10.0.0.9:80", "10.0.0.9:90"}, []string{m.HTTPAddress, m.GRPCAddress})
	n = run(t, Config{Name: "a", BindAddress: "127.0.0.1:0", HTTPAddress: "localhost:80", GRPCAddress: "[::]:90"}, (*Cluster).Listen)
	m, _ = n.View().Member("a")
	require.Equal(t, []string{"localhost:80", "127.0.0.1:90"}, []string{m.HTTPAddress, m.GRPCAddress})
}

func TestTheAdvertisedPortIsTheBoundOneIfNotGiven(t *testing.T) {
	t.Parallel()
	for advertise, wanted := range map[string]string{"10.0.0.9:7000": "10.0.0.9:7000", "10.0.0.9:0": "10.0.0.9:"} {
		n := run(t, Config{Name: "a", BindAddress: "127.0.0.1:0", AdvertiseAddress: advertise}, (*Cluster).Listen)
		require.Contains(t, addr(t, n), wanted)
		require.NotEqual(t, "10.0.0.9:0", addr(t, n))
	}
}

func TestLibraryLinesBecomeStructured(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, func() float64 { return 0 })
	w := &logWriter{
		logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})),
		rejected: m.rejected,
	}
	for _, line := range []string{
		"[DEBUG] memberlist: one\n", "[INFO] memberlist: two\n", "[WARN] memberlist: three\n",
		"[ERR] memberlist: four\n", "[ERR] Failed to shutdown\n", "no level\n",
		"[ERR] memberlist: Decrypt packet failed: x\n",
		"[ERR] memberlist: discarding packet with unacceptable label \"x\"\n",
	} {
		fmt.Fprint(w, line)
	}
	require.Equal(t, strings.Join([]string{
		"level=DEBUG msg=gossip detail=one",
		"level=INFO msg=gossip detail=two",
		"level=WARN msg=gossip detail=three",
		"level=ERROR msg=gossip detail=four",
		`level=ERROR msg=gossip detail="Failed to shutdown"`,
		`level=INFO msg=gossip detail="no level"`,
		`level=WARN msg=gossip detail="Decrypt packet failed: x"`,
		`level=WARN msg=gossip detail="discarding packet with unacceptable label \"x\""`,
	}, "\n")+"\n", out.String())
	require.InDelta(t, 1, testutil.ToFloat64(m.rejected.WithLabelValues(reasonKey)), 0)
	require.InDelta(t, 1, testutil.ToFloat64(m.rejected.WithLabelValues(reasonLabel)), 0)
}
