package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// member answers as told.
type member struct {
	name  string
	claim func(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error)

	mu          sync.Mutex
	checkpoints [][]handoff.GroupState
	from        string
}

func (m *member) Claim(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error) {
	return m.claim(ctx, from, keys)
}

func (m *member) Checkpoint(_ context.Context, from string, states []handoff.GroupState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from, m.checkpoints = from, append(m.checkpoints, states)
	return nil
}

func (m *member) Status(_ context.Context, endpoint, query string) ([]byte, error) {
	return []byte(m.name + strings.Repeat(endpoint+"?"+query+";", 300_000)), nil
}

func (m *member) Describe(context.Context) ([]byte, error) { return []byte(`{"ready":true}`), nil }

func (m *member) Costs(context.Context) (map[uint64]uint64, error) {
	return map[uint64]uint64{1: 10, 2: 0}, nil
}

// running is a server and its end: cancel asks for it, stop waits for it, too.
type running struct {
	*Server
	cancel context.CancelFunc
	ended  chan error
	once   sync.Once
}

func serve(t *testing.T, h Handler, cfg ServerConfig) *running {
	t.Helper()
	if cfg.ListenAddress == "" {
		cfg.ListenAddress = "127.0.0.1:0"
	}
	s := NewServer(cfg, h, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Server: s, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.once.Do(func() {
		r.cancel()
		require.NoError(t, <-r.ended)
	})
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	return l
}

func client(t *testing.T, tr transport.Config) *Client {
	t.Helper()
	c := NewClient(ClientConfig{Member: "a", Transport: tr}, prometheus.NewRegistry())
	t.Cleanup(c.Close)
	return c
}

var slot = time.UnixMilli(1_767_225_600_123).UTC()

func TestMembersTalk(t *testing.T) {
	t.Parallel()
	for name, tr := range map[string]transport.Config{
		"in plaintext on loopback": {},
		"with mutual TLS":          certificates(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			known := []handoff.GroupState{
				{Key: "g", CommittedSlot: slot, Data: []byte("alerts"), Version: 3, Outdated: true},
				{Key: "h"},
			}
			m := &member{claim: func(_ context.Context, from string, keys []string) ([]handoff.GroupState, error) {
				require.Equal(t, "a", from)
				require.Equal(t, []string{"g", "h", "i"}, keys)
				return known, nil
			}}
			s := serve(t, m, ServerConfig{Member: "b", Transport: tr})
			c, address := client(t, tr), s.Addr().String()

			states, err := c.Claim(t.Context(), address, []string{"g", "h", "i"})
			require.NoError(t, err)
			require.Equal(t, known, states)

			require.NoError(t, c.Checkpoint(t.Context(), address, known))
			require.Equal(t, "a", m.from)
			require.Equal(t, [][]handoff.GroupState{known}, m.checkpoints)

			said, err := c.Status(t.Context(), address, "rules", "type=alert")
			require.NoError(t, err)
			require.Equal(t, strings.Repeat("rules?type=alert;", 300_000), string(said), "in pieces")
			description, err := c.Describe(t.Context(), address)
			require.NoError(t, err)
			require.JSONEq(t, `{"ready":true}`, string(description))
			costs, err := c.Costs(t.Context(), address)
			require.NoError(t, err)
			require.Equal(t, map[uint64]uint64{1: 10, 2: 0}, costs)
			ahead, within, err := c.Clock(t.Context(), address)
			require.NoError(t, err)
			require.LessOrEqual(t, ahead.Abs(), within, "it is the same clock")
			require.InDelta(t, 1, testutil.ToFloat64(s.requests.WithLabelValues("Claim", "OK")), 0)
			require.InDelta(t, 1, testutil.ToFloat64(c.requests.WithLabelValues("Checkpoint", "OK")), 0)
		})
	}
}

func TestStrangersAreTurnedAway(t *testing.T) {
	t.Parallel()
	m := &member{claim: func(context.Context, string, []string) ([]handoff.GroupState, error) { return nil, nil }}
	s := serve(t, m, ServerConfig{Transport: certificates(t)})
	for name, tr := range map[string]transport.Config{
		"a client without TLS":                      {},
		"a client of another certificate authority": certificates(t),
	} {
		_, err := client(t, tr).Claim(t.Context(), s.Addr().String(), []string{"g"})
		require.Equal(t, codes.Unavailable, status.Code(errors.Unwrap(err)), "%s: %v", name, err)
	}
	_, err := client(t, transport.Config{}).Claim(t.Context(), "192.0.2.1:1", []string{"g"})
	require.ErrorContains(t, err, "is not a loopback address", "no plaintext leaves the machine")
	far := NewServer(ServerConfig{ListenAddress: "0.0.0.0:0"}, m, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.ErrorContains(t, far.Listen(), "is not a loopback address")
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	answers := map[string]error{
		"internal": errors.New("boom"),
		"draining": status.Error(codes.Unavailable, "draining"),
		"canceled": context.Canceled,
	}
	m := &member{claim: func(_ context.Context, _ string, keys []string) ([]handoff.GroupState, error) {
		return nil, answers[keys[0]]
	}}
	s := serve(t, m, ServerConfig{})
	c, address := client(t, transport.Config{}), s.Addr().String()
	for key, code := range map[string]codes.Code{
		"internal": codes.Internal, "draining": codes.Unavailable, "canceled": codes.Canceled,
	} {
		_, err := c.Claim(t.Context(), address, []string{key})
		require.Equal(t, code, status.Code(errors.Unwrap(err)), "%v", err)
		require.ErrorContains(t, err, "claim 1 groups from "+address)
	}

	nameless := NewClient(ClientConfig{}, prometheus.NewRegistry())
	t.Cleanup(nameless.Close)
	_, err := nameless.Claim(t.Context(), address, []string{"g"})
	require.ErrorContains(t, err, "without the name of the member")
	_, err = c.Claim(t.Context(), address, make([]string, maxKeys+1))
	require.ErrorContains(t, err, fmt.Sprintf("at most %d are taken", maxKeys))
}

func TestALargeAnswerLeavesGroupsOut(t *testing.T) {
	t.Parallel()
	s := NewServer(ServerConfig{}, &member{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	third := make([]byte, maxAnswerBytes/3)
	states := s.fit([]handoff.GroupState{
		{Key: "a", CommittedSlot: slot, Data: third},
		{Key: "b", CommittedSlot: slot, Data: third},
		{Key: "c", CommittedSlot: slot, Data: third},
		{Key: "d", CommittedSlot: slot},
		{Key: "huge", CommittedSlot: slot, Data: make([]byte, maxAnswerBytes)},
	}, "a")
	var keys []string
	for _, st := range states {
		keys = append(keys, st.Key)
	}
	require.Equal(t, []string{"a", "b", "d", "huge"}, keys, "c is left for the next claim")
	require.Equal(t, handoff.GroupState{Key: "huge"}, states[3], "what no message carries is given up")
	require.InDelta(t, 1, testutil.ToFloat64(s.oversize), 0)
}

func TestCheckpointsAreSplit(t *testing.T) {
	t.Parallel()
	var states []handoff.GroupState
	for i := range 5 {
		states = append(states, handoff.GroupState{Key: fmt.Sprintf("g%d", i), CommittedSlot: slot, Data: make([]byte, checkpointBytes/2-100)})
	}
	states = append(states,
		handoff.GroupState{Key: "large", CommittedSlot: slot, Data: make([]byte, 2*checkpointBytes)},
		handoff.GroupState{Key: "huge", CommittedSlot: slot, Data: make([]byte, maxAnswerBytes)},
		handoff.GroupState{Key: "small", CommittedSlot: slot},
	)
	split, err := batches(states)
	require.ErrorContains(t, err, `state of group "huge" takes`)
	var sizes []int
	for _, batch := range split {
		sizes = append(sizes, len(batch))
	}
	require.Equal(t, []int{2, 2, 1, 1, 1}, sizes)
}

func TestConnectionsAreKeptWhileTheirMembersAreThere(t *testing.T) {
	t.Parallel()
	s := serve(t, &member{}, ServerConfig{})
	other := serve(t, &member{}, ServerConfig{})
	c, address := client(t, transport.Config{}), s.Addr().String()
	for range 3 {
		_, err := c.Status(t.Context(), address, "rules", "")
		require.NoError(t, err)
	}
	_, err := c.Status(t.Context(), other.Addr().String(), "rules", "")
	require.NoError(t, err)
	require.Len(t, c.conns, 2)
	c.Keep([]string{address, "127.0.0.1:1"})
	require.Len(t, c.conns, 1)
	require.Contains(t, c.conns, address)

	// A member that comes back at its address is found again.
	s.stop(t)
	_, err = c.Status(t.Context(), address, "rules", "")
	require.Error(t, err)
	serve(t, &member{name: "again"}, ServerConfig{ListenAddress: address})
	require.Eventually(t, func() bool {
		said, err := c.Status(t.Context(), address, "rules", "")
		return err == nil && strings.HasPrefix(string(said), "again")
	}, 30*time.Second, 20*time.Millisecond)

	c.Close()
	_, err = c.Status(t.Context(), address, "rules", "")
	require.ErrorIs(t, err, ErrClosed)
}

func TestAnswersInProgressOutliveTheServersEnd(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	m := &member{claim: func(context.Context, string, []string) ([]handoff.GroupState, error) {
		close(entered)
		<-release
		return []handoff.GroupState{{Key: "g"}}, nil
	}}
	s := serve(t, m, ServerConfig{})
	c := client(t, transport.Config{})
	answered := make(chan error, 1)
	go func() {
		states, err := c.Claim(t.Context(), s.Addr().String(), []string{"g"})
		if err == nil && len(states) != 1 {
			err = errors.New("no state")
		}
		answered <- err
	}()
	<-entered
	s.cancel()
	close(release)
	require.NoError(t, <-answered)
}

func TestARequestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	m := &member{claim: func(ctx context.Context, _ string, _ []string) ([]handoff.GroupState, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s := serve(t, m, ServerConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client(t, transport.Config{}).Claim(ctx, s.Addr().String(), []string{"g"})
	require.Equal(t, codes.DeadlineExceeded, status.Code(errors.Unwrap(err)))
}

// certificates makes an authority and one certificate for loopback, used by
// server and client.
func certificates(t *testing.T) transport.Config {
	t.Helper()
	dir := t.TempDir()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := func(serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: "tocsin"},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().Add(time.Hour),
			IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	ca := template(1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template(2), ca, key.Public(), caKey)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	return transport.Config{
		CertFile: write("tls.crt", "CERTIFICATE", der),
		KeyFile:  write("tls.key", "EC PRIVATE KEY", keyDER),
		CAFile:   write("ca.crt", "CERTIFICATE", caDER),
	}
}
