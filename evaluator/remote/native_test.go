package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
)

func newNative(t *testing.T, address string) *Native {
	t.Helper()
	n, err := NewNative(NativeConfig{Address: address, MaxConcurrent: 2, MaxResponseBytes: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// startBackend serves db over the real pushdown server until stop is called.
func startBackend(t *testing.T, db *teststorage.TestStorage, cfg pushdown.Config) (address string, stop func()) {
	t.Helper()
	if cfg.ListenAddress == "" {
		cfg.ListenAddress = "127.0.0.1:0"
	}
	s, err := pushdown.New(cfg, pushdown.Deps{
		Engine: promserver.Engine(), Queryable: db, Ready: func() error { return nil },
		Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
	})
	require.NoError(t, err)
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var stopped atomic.Bool
	stop = func() {
		if cancel(); !stopped.Swap(true) {
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return s.Addr().String(), stop
}

func testData(t *testing.T) *teststorage.TestStorage {
	db := promserver.Storage(t)
	promserver.Append(t, db, []promql.Series{
		{Metric: labels.FromStrings(labels.MetricName, "x", "a", "1"), Floats: []promql.FPoint{{T: 1000, F: 1}, {T: 2000, F: math.NaN()}, {T: 3000, F: 3}}},
		{Metric: labels.FromStrings(labels.MetricName, "x", "a", "2"), Floats: []promql.FPoint{{T: 1000, F: math.Inf(1)}}},
		{Metric: labels.FromStrings(labels.MetricName, "h"), Histograms: []promql.HPoint{{T: 1000, H: &histogram.FloatHistogram{
			Schema: 1, Count: 3, Sum: 4, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, 2},
		}}}},
	})
	return db
}

func at(expr string, ms int64) plan.Fragment {
	return plan.Fragment{Expr: expr, Window: plan.Window{Start: ms, End: ms}}
}

func TestNativeAnswers(t *testing.T) {
	t.Parallel()
	address, _ := startBackend(t, testData(t), pushdown.Config{})
	n := newNative(t, address)
	// The second batch is on the same stream, whose tables are filled.
	for range 2 {
		r := n.Execute(context.Background(), []plan.Fragment{
			at("x", 1000), at("h", 1000), at("sum(x) +", 1000), at("1 + 1", 1000), at("x[5m]", 2000), at("nothing", 1000),
			{Expr: "x", Window: plan.Window{Start: 1000, End: 3000, Step: 1000}},
			at("h - h * 2", 1000), at("sum(h) + sum(x)", 1000),
		}, Options{})
		require.Len(t, r, 9)
		require.ElementsMatch(t, []float64{1, math.Inf(1)}, []float64{r[0].Value.(promql.Vector)[0].F, r[0].Value.(promql.Vector)[1].F})
		require.Equal(t, uint64(2), r[0].SamplesRead)
		require.Equal(t, 3.0, r[1].Value.(promql.Vector)[0].H.Count)
		require.Equal(t, KindUser, kindOf(t, r[2].Err))
		require.Equal(t, promql.Scalar{T: 1000, V: 2}, r[3].Value)
		require.True(t, math.IsNaN(r[4].Value.(promql.Matrix)[0].Floats[1].F))
		require.Empty(t, r[5].Value)
		require.Len(t, r[6].Value.(promql.Matrix), 2)
		require.Equal(t, -3.0, r[7].Value.(promql.Vector)[0].H.Count, "a histogram may be negative")
		require.NotEmpty(t, r[8].Warnings)
	}
	require.Len(t, n.idle, 1)
	require.NoError(t, n.Probe(context.Background()))
}

func kindOf(t *testing.T, err error) Kind {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	return e.Kind
}

func TestNativeReopensAFullStream(t *testing.T) {
	t.Parallel()
	address, _ := startBackend(t, testData(t), pushdown.Config{MaxLabelSets: 1})
	n := newNative(t, address)
	for range 3 {
		r := execute(n, at("x", 1000))
		require.NoError(t, r.Err)
		require.Len(t, r.Value, 2)
	}
}

func TestNativeSurvivesARestartOfTheBackend(t *testing.T) {
	t.Parallel()
	db := testData(t)
	address, stop := startBackend(t, db, pushdown.Config{})
	n := newNative(t, address)
	require.NoError(t, execute(n, at("x", 1000)).Err)
	stop()
	require.Equal(t, KindBackend, kindOf(t, execute(n, at("x", 1000)).Err))
	_, _ = startBackend(t, db, pushdown.Config{ListenAddress: address})
	require.Eventually(t, func() bool { return execute(n, at("x", 1000)).Err == nil }, 10*time.Second, 10*time.Millisecond)
}

func TestNativeBatchesLargerThanARequest(t *testing.T) {
	t.Parallel()
	address, _ := startBackend(t, testData(t), pushdown.Config{})
	fragments := make([]plan.Fragment, 2*requestFragments+1)
	for i := range fragments {
		fragments[i] = at("vector(1)", int64(i%3))
	}
	require.Len(t, chunks(fragments), 3)
	results := newNative(t, address).Execute(context.Background(), fragments, Options{})
	require.Len(t, results, len(fragments))
	for i, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, int64(i%3), r.Value.(promql.Vector)[0].T)
	}
}

func TestNativeBackendThatDoesNotSpeak(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	n := newNative(t, l.Addr().String())
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r := n.Execute(ctx, []plan.Fragment{at("x", 1), at("y", 1)}, Options{})
	require.Len(t, r, 2)
	require.Equal(t, KindTimeout, kindOf(t, r[1].Err))
}

func TestNativeBackendThatIsAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Equal(t, KindBackend, kindOf(t, newNative(t, l.Addr().String()).Probe(context.Background())))
}

func TestNativeAnswersAreBounded(t *testing.T) {
	t.Parallel()
	address, _ := startBackend(t, testData(t), pushdown.Config{})
	n, err := NewNative(NativeConfig{Address: address, MaxConcurrent: 1, MaxResponseBytes: 60})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	r := execute(n, at("x", 1000))
	require.Equal(t, KindLimit, kindOf(t, r.Err))
}

// scripted is a pushdown server that answers every batch as it is told.
type scripted struct {
	pushdownv1.UnimplementedPushdownServer
	answer func(*pushdownv1.BatchRequest, grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error
}

func (s scripted) Execute(stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.answer(req, stream); errors.Is(err, io.EOF) {
			return nil // The stream ends as if all were well.
		} else if err != nil {
			return err
		}
	}
}

func startScripted(t *testing.T, s scripted) *Native {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer()
	pushdownv1.RegisterPushdownServer(srv, s)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return newNative(t, l.Addr().String())
}

func TestNativeRefusesMalformedAnswers(t *testing.T) {
	t.Parallel()
	vector := pushdownv1.ValueType_VALUE_TYPE_VECTOR
	result := func(r *pushdownv1.FragmentResult) *pushdownv1.BatchResponse {
		return &pushdownv1.BatchResponse{
			NewSymbols:   []string{"a", "1", "b"},
			NewLabelSets: []*pushdownv1.LabelSet{{Symbols: []uint32{0, 1}}},
			Results:      []*pushdownv1.FragmentResult{r},
			Done:         true,
		}
	}
	for name, tc := range map[string]struct {
		answer *pushdownv1.BatchResponse
		want   string
	}{
		"a fragment that was not asked for": {result(&pushdownv1.FragmentResult{Fragment: 7}), "fragment 7 of 1"},
		"no result":                         {&pushdownv1.BatchResponse{Done: true}, "no result"},
		"no type":                           {result(&pushdownv1.FragmentResult{}), "UNSPECIFIED"},
		"too few values":                    {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{0}}), "0 values"},
		"too few times":                     {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{0, 0}, Values: []float64{1, 2}, TimestampsMs: []int64{1}}), "1 times"},
		"another time":                      {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{0}, Values: []float64{1}, TimestampsMs: []int64{1}}), "asked for"},
		"an unknown label set":              {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{9}, Values: []float64{1}}), "label set 9"},
		"histograms without rows":           {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{0}, Histograms: [][]byte{{}}}), "1 histograms for 0 rows"},
		"histogram rows out of range":       {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{0}, Histograms: [][]byte{{}}, HistogramRows: []uint32{5}}), "no value"},
		"a histogram of garbage":            {result(&pushdownv1.FragmentResult{Type: vector, LabelSets: []uint32{0}, Histograms: [][]byte{{255}}, HistogramRows: []uint32{0}}), "native histogram"},
		"two scalars":                       {result(&pushdownv1.FragmentResult{Type: pushdownv1.ValueType_VALUE_TYPE_SCALAR, LabelSets: []uint32{0, 0}, Values: []float64{1, 2}}), "2 samples"},
		"an odd label set":                  {&pushdownv1.BatchResponse{NewSymbols: []string{"a"}, NewLabelSets: []*pushdownv1.LabelSet{{Symbols: []uint32{0}}}, Done: true}, "no pairs"},
		"an unknown symbol":                 {&pushdownv1.BatchResponse{NewLabelSets: []*pushdownv1.LabelSet{{Symbols: []uint32{0, 1}}}, Done: true}, "beyond the 0 known"},
		"an unsorted label set":             {&pushdownv1.BatchResponse{NewSymbols: []string{"b", "a"}, NewLabelSets: []*pushdownv1.LabelSet{{Symbols: []uint32{0, 0, 1, 1}}}, Done: true}, "not sorted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startScripted(t, scripted{answer: func(req *pushdownv1.BatchRequest, stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
				tc.answer.BatchId = req.GetBatchId()
				return stream.Send(tc.answer)
			}})
			r := execute(n, at("x", 1000))
			require.ErrorContains(t, r.Err, tc.want)
			require.Equal(t, KindBackend, kindOf(t, r.Err))
		})
	}
}

func TestNativeErrorsOfTheStream(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer func(*pushdownv1.BatchRequest, grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error
		kind   Kind
	}{
		"an answer to another batch": {func(_ *pushdownv1.BatchRequest, s grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
			return s.Send(&pushdownv1.BatchResponse{BatchId: 99, Done: true})
		}, KindBackend},
		"no answer": {func(*pushdownv1.BatchRequest, grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
			return io.EOF
		}, KindBackend},
		"a limit": {func(*pushdownv1.BatchRequest, grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
			return status.Error(codes.ResourceExhausted, "full")
		}, KindLimit},
		"an end in the middle": {func(req *pushdownv1.BatchRequest, s grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
			return errors.Join(s.Send(&pushdownv1.BatchResponse{BatchId: req.GetBatchId()}), status.Error(codes.Unavailable, "stopping"))
		}, KindBackend},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := execute(startScripted(t, scripted{answer: tc.answer}), at("x", 1000))
			require.Equal(t, tc.kind, kindOf(t, r.Err))
		})
	}
}

func TestNativeErrorKinds(t *testing.T) {
	t.Parallel()
	for wire, kind := range map[pushdownv1.Error_Kind]Kind{
		pushdownv1.Error_KIND_USER:        KindUser,
		pushdownv1.Error_KIND_LIMIT:       KindLimit,
		pushdownv1.Error_KIND_TIMEOUT:     KindTimeout,
		pushdownv1.Error_KIND_CANCELED:    KindBackend,
		pushdownv1.Error_KIND_INTERNAL:    KindInternal,
		pushdownv1.Error_KIND_UNSPECIFIED: KindInternal,
	} {
		n := startScripted(t, scripted{answer: func(req *pushdownv1.BatchRequest, stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
			return stream.Send(&pushdownv1.BatchResponse{BatchId: req.GetBatchId(), Done: true, Results: []*pushdownv1.FragmentResult{
				{Error: &pushdownv1.Error{Kind: wire, Message: "why"}},
			}})
		}})
		r := execute(n, at("x", 1000))
		require.EqualError(t, r.Err, "why")
		require.Equal(t, kind, kindOf(t, r.Err))
	}
}

func TestNativeCancelsTheBatchOfACallerThatGaveUp(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan struct{})
	n := startScripted(t, scripted{answer: func(_ *pushdownv1.BatchRequest, stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
		close(began)
		<-stream.Context().Done()
		close(ended)
		return stream.Context().Err()
	}})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-began
		cancel()
	}()
	r := n.Execute(ctx, []plan.Fragment{at("x", 1000)}, Options{})
	require.Equal(t, KindCanceled, kindOf(t, r[0].Err))
	<-ended
	require.Empty(t, n.idle)
}

// TestNativeOverMutualTLS: both sides prove who they are.
func TestNativeOverMutualTLS(t *testing.T) {
	t.Parallel()
	tls := certificates(t)
	address, _ := startBackend(t, testData(t), pushdown.Config{Transport: tls})
	n, err := NewNative(NativeConfig{Address: address, Transport: tls, MaxConcurrent: 1, MaxResponseBytes: 1 << 20, Compress: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, execute(n, at("x", 1000)).Err)
	require.Equal(t, KindBackend, kindOf(t, newNative(t, address).Probe(context.Background())), "plaintext is refused")
}

// certificates makes a CA that has signed itself for 127.0.0.1.
func certificates(t *testing.T) transport.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	certFile := write("cert.pem", "CERTIFICATE", cert)
	return transport.Config{CertFile: certFile, KeyFile: write("key.pem", "PRIVATE KEY", private), CAFile: certFile}
}
