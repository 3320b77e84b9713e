package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
)

const (
	// requestBytes and requestFragments are where a batch is cut in two
	// requests, well below what a backend accepts.
	requestBytes     = 4 << 20
	requestFragments = 10_000
	// pingInterval is how often a connection with a silent batch is checked,
	// so that a backend that vanished is noticed.
	pingInterval = 10 * time.Second
)

// connectParams make a backend that is back be noticed soon.
var connectParams = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// NativeConfig describes a backend that speaks the pushdown protocol.
type NativeConfig struct {
	// Address is "host:port".
	Address   string
	Transport transport.Config
	// Compress asks for gzip in both directions.
	Compress bool
	// MaxConcurrent is the number of batches in progress at a time; each has
	// a stream.
	MaxConcurrent int
	// MaxResponseBytes bounds one message, and in all the messages that
	// answer one batch.
	MaxResponseBytes int64
}

// Native asks a backend over the pushdown protocol: one request a batch on a
// stream that is kept for later batches.
type Native struct {
	cfg     NativeConfig
	conn    *grpc.ClientConn
	api     pushdownv1.PushdownClient
	permits chan struct{}
	batches atomic.Uint64

	mu     sync.Mutex
	idle   []*stream
	closed bool
}

var _ Client = (*Native)(nil)

// NewNative returns a client. It reads the certificates but does not connect.
func NewNative(cfg NativeConfig) (*Native, error) {
	creds, err := cfg.Transport.Client()
	if err != nil {
		return nil, err
	}
	call := []grpc.CallOption{grpc.MaxCallRecvMsgSize(int(cfg.MaxResponseBytes))}
	if cfg.Compress {
		call = append(call, grpc.UseCompressor(gzip.Name))
	}
	conn, err := grpc.NewClient("passthrough:///"+cfg.Address,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(call...),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingInterval}),
		grpc.WithConnectParams(connectParams),
	)
	if err != nil {
		return nil, fmt.Errorf("make gRPC client for %q: %w", cfg.Address, err)
	}
	return &Native{
		cfg: cfg, conn: conn, api: pushdownv1.NewPushdownClient(conn),
		permits: make(chan struct{}, cfg.MaxConcurrent),
	}, nil
}

// Execute implements Client.
func (n *Native) Execute(ctx context.Context, fragments []plan.Fragment, opts Options) []Result {
	if len(fragments) == 0 {
		return nil
	}
	select {
	case n.permits <- struct{}{}:
		defer func() { <-n.permits }()
	case <-ctx.Done():
		return failAll(len(fragments), contextError(ctx))
	}
	results := make([]Result, 0, len(fragments))
	for _, chunk := range chunks(fragments) {
		results = append(results, n.batch(ctx, chunk, opts)...)
	}
	return results
}

// chunks cuts fragments into requests of a size that backends accept.
func chunks(fragments []plan.Fragment) [][]plan.Fragment {
	var all [][]plan.Fragment
	from, size := 0, 0
	for i, f := range fragments {
		if i > from && (size+len(f.Expr) > requestBytes || i-from >= requestFragments) {
			all, from, size = append(all, fragments[from:i]), i, 0
		}
		size += len(f.Expr)
	}
	return append(all, fragments[from:])
}

// batch runs one request. A stream that was idle may have been broken in the
// meantime, or be full; queries only read, so they are repeated on a fresh one.
func (n *Native) batch(ctx context.Context, fragments []plan.Fragment, opts Options) []Result {
	req := &pushdownv1.BatchRequest{
		BatchId:    n.batches.Add(1),
		LookbackMs: opts.Lookback.Milliseconds(),
		Fragments:  make([]*pushdownv1.Fragment, len(fragments)),
	}
	for i, f := range fragments {
		req.Fragments[i] = &pushdownv1.Fragment{
			Expr: f.Expr, StartMs: f.Window.Start, EndMs: f.Window.End, StepMs: f.Window.Step, Limits: wireLimits(f.Limits),
		}
	}
	for {
		s, reused := n.acquire()
		answer, err := s.run(ctx, n.api, req, fragments)
		if err == nil {
			n.release(s)
			return answer.finish()
		}
		s.cancel()
		if !reused || !broken(err) || ctx.Err() != nil {
			return answer.unless(streamError(ctx, err))
		}
	}
}

func wireLimits(l plan.Limits) *pushdownv1.Limits {
	if l == (plan.Limits{}) {
		return nil
	}
	return &pushdownv1.Limits{
		Samples: uint64(l.Samples), Series: uint64(l.Series), Bytes: uint64(l.Bytes), TimeMs: uint64(l.Time.Milliseconds()),
	}
}

// acquire takes an idle stream, or opens one. The stream outlives the batch,
// so it does not have the batch's context.
func (n *Native) acquire() (s *stream, reused bool) {
	n.mu.Lock()
	if last := len(n.idle) - 1; last >= 0 {
		s, n.idle = n.idle[last], n.idle[:last]
	}
	n.mu.Unlock()
	if s != nil {
		return s, true
	}
	s = &stream{limit: n.cfg.MaxResponseBytes}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, false
}

func (n *Native) release(s *stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		s.cancel()
		return
	}
	n.idle = append(n.idle, s)
}

// broken tells whether an error is about the stream rather than the batch.
func broken(err error) bool {
	code := status.Code(err)
	return errors.Is(err, io.EOF) || code == codes.Unavailable || code == codes.ResourceExhausted || code == codes.Canceled
}

// streamError gives an error of a stream its kind.
func streamError(ctx context.Context, err error) *Error {
	if ended := contextError(ctx); ended != nil {
		return ended
	}
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, io.EOF):
		return errorf(KindBackend, "the stream ended before the answer did")
	case status.Code(err) == codes.ResourceExhausted:
		return errorf(KindLimit, "%s", status.Convert(err).Message())
	}
	return errorf(KindBackend, "%s", status.Convert(err).Message())
}

// Probe implements Client: the backend has to evaluate a constant. It does not
// wait for requests in progress.
func (n *Native) Probe(ctx context.Context) error {
	return n.batch(ctx, []plan.Fragment{{Expr: "1"}}, Options{})[0].Err
}

// Close implements Client.
func (n *Native) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, s := range n.idle {
		s.cancel()
	}
	n.idle = nil
	return n.conn.Close()
}
