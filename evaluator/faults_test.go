package evaluator_test

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/test/thanos"
)

// fault is what happens to a connection between an evaluator and a backend.
type fault func(client, server *net.TCPConn)

// pass is no fault.
func pass(client, server *net.TCPConn) {
	go func() { _, _ = io.Copy(server, client) }()
	_, _ = io.Copy(client, server)
}

// silent takes what is sent and never answers.
func silent(client, _ *net.TCPConn) { _, _ = io.Copy(io.Discard, client) }

// closed ends connections before anything is answered.
func closed(*net.TCPConn, *net.TCPConn) {}

// garbage answers with random bytes once it is asked.
func garbage(client, server *net.TCPConn) {
	_, _ = client.Read(make([]byte, 1))
	noise(client, server)
}

// noise sends random bytes.
func noise(client, _ *net.TCPConn) {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	_, _ = client.Write(b)
}

// slow delays every answer.
func slow(client, server *net.TCPConn) {
	go func() { _, _ = io.Copy(server, client) }()
	b := make([]byte, 64<<10)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the fault itself
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// later lets some bytes of answers through, and then does something.
func later(then fault) fault {
	const n = 150
	return func(client, server *net.TCPConn) {
		go func() { _, _ = io.Copy(server, client) }()
		_, _ = io.CopyN(client, server, n)
		then(client, server)
	}
}

// reset drops the connection without saying so in order.
func reset(client, _ *net.TCPConn) { _ = client.SetLinger(0) }

// proxy stands between an evaluator and a backend.
type proxy struct {
	t       *testing.T
	address string
	target  string

	mu       sync.Mutex
	fault    fault
	listener net.Listener
	open     map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{t: t, address: "127.0.0.1:0", target: target, open: map[net.Conn]bool{}}
	p.set(pass)
	t.Cleanup(func() { p.set(nil) })
	return p
}

// set ends all connections, and treats new ones otherwise: nil means that nobody
// listens.
func (p *proxy) set(f fault) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	for c := range p.open {
		_ = c.Close()
	}
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	if f == nil {
		return
	}
	l, err := net.Listen("tcp", p.address)
	require.NoError(p.t, err)
	p.listener, p.address = l, l.Addr().String()
	go p.serve(l, f)
}

func (p *proxy) serve(l net.Listener, f fault) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.track(client, server, true)
		go func() {
			f(client.(*net.TCPConn), server.(*net.TCPConn))
			_, _ = client.Close(), server.Close()
			p.track(client, server, false)
		}()
	}
}

func (p *proxy) track(client, server net.Conn, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range []net.Conn{client, server} {
		if open {
			p.open[c] = true
		} else {
			delete(p.open, c)
		}
	}
}

// reached is a way to reach the backend west through a proxy, and an expression
// that goes that way.
type reached struct {
	backend evaluator.BackendConfig
	proxy   *proxy
	expr    string
	// unprobed means that probes go another way, so that an answer that does
	// not come is found out by the timeout alone.
	unprobed bool
}

const (
	fromWest    = `gauge{cluster="west"}`
	rawFromWest = `max_over_time(quantile_over_time(scalar(sum(gauge{cluster="east"})) * 0 + 0.5, gauge[5m])[1s:1s])`
)

// ways are the clients that there are.
var ways = map[string]func(t *testing.T, series []promql.Series) reached{
	"native": func(t *testing.T, series []promql.Series) reached {
		db := promserver.Storage(t)
		promserver.Append(t, db, series)
		p := newProxy(t, startPushdown(t, db))
		b := backendConfig(t, "west", "west", promserver.Start(t, db, labels.EmptyLabels()))
		b.GRPC = &evaluator.GRPCConfig{Address: p.address}
		return reached{backend: b, proxy: p, expr: fromWest}
	},
	"http": func(t *testing.T, series []promql.Series) reached {
		b := startBackend(t, overHTTP, "west", "west", series)
		p := newProxy(t, b.URL.Host)
		b.URL.Host = p.address
		return reached{backend: b, proxy: p, expr: fromWest}
	},
	"remote read": func(t *testing.T, series []promql.Series) reached {
		b := startBackend(t, overNative, "west", "west", series)
		p := newProxy(t, b.URL.Host)
		b.URL.Host = p.address
		return reached{backend: b, proxy: p, expr: rawFromWest, unprobed: true}
	},
	"thanos": func(t *testing.T, series []promql.Series) reached {
		q := thanos.StartQuerier(t, []string{startStore(t, "west", "", series).GRPC})
		p := newProxy(t, q.GRPC)
		b := thanosBackend(t, "west", map[string]string{"cluster": "west"}, q)
		b.Thanos.Address = p.address
		return reached{backend: b, proxy: p, expr: fromWest}
	},
	"thanos raw": func(t *testing.T, series []promql.Series) reached {
		q := thanos.StartQuerier(t, []string{startStore(t, "west", "", series).GRPC})
		p := newProxy(t, q.GRPC)
		b := thanosBackend(t, "west", map[string]string{"cluster": "west"}, q)
		b.Thanos.Address = p.address
		return reached{backend: b, proxy: p, expr: rawFromWest}
	},
}

// networkFaults say what becomes of an expression. Whatever becomes of it, what
// needs only other backends is not affected, and when the fault is over the
// answer is right.
var networkFaults = map[string]struct {
	fault fault
	// right means that the answer is right in spite of the fault.
	right bool
	// hangs means that no answer comes.
	hangs bool
	text  string
}{
	"down":                 {fault: nil, text: "connection refused"},
	"slow":                 {fault: slow, right: true},
	"silent":               {fault: silent, hangs: true},
	"closed":               {fault: closed},
	"closed in an answer":  {fault: later(closed)},
	"reset in an answer":   {fault: later(reset)},
	"stalled in an answer": {fault: later(silent), hangs: true},
	"garbage":              {fault: garbage},
	"garbage in an answer": {fault: later(noise)},
}

// TestNetworkFaults runs every client against a real server over a network that
// fails.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	at := slot.Truncate(time.Second)
	for way, start := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			series := thanosData(6)
			whole := &fleet{engine: promserver.Engine(), whole: promserver.Storage(t)}
			promserver.Append(t, whole.whole, series)
			west := start(t, partOf("west", series))
			east := startBackend(t, overHTTP, "east", "east", partOf("east", series))
			for name, tc := range networkFaults {
				t.Run(name, func(t *testing.T) {
					whole.evaluator = newFaultEvaluator(t, east, west.backend)
					requireRight(t, whole, west.expr, at)
					west.proxy.set(tc.fault)
					defer west.proxy.set(pass)
					got := whole.evaluator.Evaluate(t.Context(), at, parsed(t, []string{west.expr, `sum(gauge{cluster="east"})`}))
					require.NoError(t, got[1].Err)
					switch {
					case tc.right:
						want, err := whole.expected(t, west.expr, at)
						require.NoError(t, err)
						require.Empty(t, difference(west.expr, want, nil, got[0]))
					case tc.hangs && west.unprobed:
						requireError(t, got[0].Err, evaluator.KindTimeout, "west")
						require.Nil(t, got[0].Vector)
					default:
						requireError(t, got[0].Err, evaluator.KindBackend, "west")
						require.ErrorContains(t, got[0].Err, tc.text)
						require.Nil(t, got[0].Vector)
					}
					west.proxy.set(pass)
					requireRight(t, whole, west.expr, at)
				})
			}
		})
	}
}

func partOf(cluster string, series []promql.Series) (part []promql.Series) {
	for _, s := range series {
		if s.Metric.Get("cluster") == cluster {
			part = append(part, s)
		}
	}
	return part
}

func newFaultEvaluator(t *testing.T, backends ...evaluator.BackendConfig) *evaluator.Evaluator {
	t.Helper()
	cfg := evaluator.DefaultConfig()
	cfg.Timeout = model.Duration(15 * time.Second)
	cfg.Backends = backends
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// requireRight waits until an expression has the answer of one Prometheus.
func requireRight(t *testing.T, f *fleet, expr string, at time.Time) {
	t.Helper()
	var differences []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if differences = f.compare(t, []string{expr}, at); len(differences) == 0 {
			return
		}
	}
	require.Empty(t, differences)
}

// TestFaultsOfReplicas: with another endpoint the answer is right, whatever
// happens to the first.
func TestFaultsOfReplicas(t *testing.T) {
	t.Parallel()
	series := thanosData(7)
	for name, tc := range networkFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fleet{engine: promserver.Engine(), whole: promserver.Storage(t)}
			promserver.Append(t, f.whole, series)
			b := startBackend(t, overHTTP, "west", "west", partOf("west", series))
			healthy, p := b.URL.Host, newProxy(t, b.URL.Host)
			b.URL.URL = nil
			b.Scheme = "http"
			b.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{{Targets: []model.LabelSet{
				{model.AddressLabel: model.LabelValue(p.address)}, {model.AddressLabel: model.LabelValue(healthy)},
			}}}}
			f.evaluator = newFaultEvaluator(t, b, startBackend(t, overHTTP, "east", "east", partOf("east", series)))
			p.set(tc.fault)
			exprs := []string{fromWest, rawFromWest, `sum by (cluster) (gauge)`}
			require.Empty(t, f.compare(t, exprs, slot))
			require.Empty(t, f.compare(t, exprs, slot), "now that it is known")
		})
	}
}

// TestWrongProtocol: the backend is something else than configured.
func TestWrongProtocol(t *testing.T) {
	t.Parallel()
	db := promserver.Storage(t)
	pushdown, api := startPushdown(t, db), promserver.Start(t, db, labels.EmptyLabels())
	for name, tc := range map[string]struct {
		change func(*evaluator.BackendConfig)
		text   string
	}{
		"pushdown to HTTP":     {func(b *evaluator.BackendConfig) { b.GRPC = &evaluator.GRPCConfig{Address: host(t, api)} }, "west"},
		"Thanos to HTTP":       {func(b *evaluator.BackendConfig) { b.Thanos = &evaluator.ThanosConfig{Address: host(t, api)} }, "west"},
		"Thanos to pushdown":   {func(b *evaluator.BackendConfig) { b.Thanos = &evaluator.ThanosConfig{Address: pushdown} }, "no Thanos querier"},
		"HTTP to pushdown":     {func(b *evaluator.BackendConfig) { b.URL.Host = pushdown }, "west"},
		"HTTP to another path": {func(b *evaluator.BackendConfig) { b.URL.Path = "/wrong" }, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := backendConfig(t, "west", "west", api)
			tc.change(&b)
			e := newFaultEvaluator(t, b)
			r := e.Evaluate(t.Context(), slot.Truncate(time.Second), parsed(t, []string{`sum(gauge)`}))
			requireError(t, r[0].Err, evaluator.KindBackend, "west")
			require.ErrorContains(t, r[0].Err, tc.text)
		})
	}
}
