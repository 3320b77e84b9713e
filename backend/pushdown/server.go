// Package pushdown serves the native pushdown protocol (proto/pushdown/v1):
// rule-evaluators send batches of PromQL fragments over long-lived streams and
// get typed columns back.
//
// The fragments of a batch run side by side, begun in their order, on one read of the storage as far
// as they select the same series (package scan), and share what they have in
// common (package columns); what that does not cover runs on the engine.
//
// The package never evaluates PromQL itself and never changes a result: what
// a client decodes equals what the engine returned, bit by bit. How it fills
// the columns of a result:
//
//   - Parts of a result come in order; results of different fragments come in
//     the order in which they are ready.
//   - label_sets has one entry for every sample. values has one for every
//     float and histograms one for every native histogram; histogram_rows
//     says which entries of label_sets those are, in ascending order.
//   - A scalar is one sample with the empty label set.
//   - All parts carry the type, only the last one warnings, samples_read and
//     duration_us; it is marked complete.
//   - A fragment that exceeds the limits it came with has an error in its last
//     part, whatever was sent before.
//
// A Server is safe for concurrent use. Every stream is one goroutine that owns
// the stream's tables; a batch adds a bounded number of workers.
package pushdown

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // A client may ask for compression.
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/backend/columns"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
)

// stopTimeout bounds how long batches in progress hold up a stop.
const stopTimeout = 2 * time.Second

// minPingInterval is how often a client may check a connection.
const minPingInterval = 5 * time.Second

// Config says where the protocol is served and bounds what clients may ask
// for. The zero value of a number asks for its default.
type Config struct {
	// ListenAddress is "host:port".
	ListenAddress string
	Transport     transport.Config
	// MaxStreams is the number of streams open at a time; default 256.
	MaxStreams int
	// MaxFragments is the number of fragments of one batch; default 20,000.
	MaxFragments int
	// MaxExprBytes is the length of one expression; default 64 KiB.
	MaxExprBytes int
	// MaxSteps is the number of steps of a range fragment; default 11,000.
	MaxSteps int64
	// MaxRequestBytes is the size of one batch on the wire; default 16 MiB.
	MaxRequestBytes int
	// MaxLabelSets is the number of label sets that a stream's table may hold
	// before the stream is ended between two batches; default 250,000.
	MaxLabelSets int
	// MessageBytes is about the size of one response message; default 1 MiB.
	MessageBytes int
	// Concurrency is the number of fragments of one batch that run at a time;
	// default 4.
	Concurrency int
	// Lookback is the engine's, for batches that name none; default 5 minutes.
	Lookback time.Duration
	// Columns bounds what the fragments of batches share.
	Columns columns.Config
}

func (c Config) withDefaults() Config {
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&c.MaxStreams, 256},
		{&c.MaxFragments, 20_000},
		{&c.MaxExprBytes, 64 << 10},
		{&c.MaxRequestBytes, 16 << 20},
		{&c.MaxLabelSets, 250_000},
		{&c.MessageBytes, 1 << 20},
		{&c.Concurrency, 4},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if c.MaxSteps == 0 {
		c.MaxSteps = 11_000
	}
	if c.Lookback == 0 {
		c.Lookback = 5 * time.Minute
	}
	return c
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error { return c.Transport.Validate(c.ListenAddress) }

// Deps is what a server works with.
type Deps struct {
	// Engine runs what is not evaluated in columns; Admit waits until one more
	// of the rest may run, nil lets all run.
	Engine    promql.QueryEngine
	Admit     func(context.Context) (release func(), err error)
	Queryable storage.Queryable
	// Ready says why the storage can't be queried yet; nil means that it can.
	Ready    func() error
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Server serves the protocol on a port of its own.
type Server struct {
	pushdownv1.UnimplementedPushdownServer

	cfg      Config
	deps     Deps
	columns  *columns.Evaluator
	metrics  *metrics
	listener net.Listener
	streams  atomic.Int64
	stopping chan struct{}
}

// New returns a server. It opens no port.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Server{
		cfg:  cfg,
		deps: deps,
		columns: columns.New(cfg.Columns, columns.Deps{
			Queryable: deps.Queryable, Admit: deps.Admit, Registry: deps.Registry, Logger: deps.Logger,
		}),
		metrics:  newMetrics(deps.Registry),
		stopping: make(chan struct{}),
	}, nil
}

// Listen opens the port, so that Addr is known and a taken port is reported
// before anything else starts.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen for gRPC on %q: %w", s.cfg.ListenAddress, err)
	}
	s.listener = l
	return nil
}

// Addr is the address that the server listens on after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close gives the port back if Run is never called.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends, then lets batches in progress finish for a short
// while. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.Creds(s.cfg.Transport.Server()),
		grpc.MaxRecvMsgSize(s.cfg.MaxRequestBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
	)
	pushdownv1.RegisterPushdownServer(srv, s)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve gRPC on %q: %w", s.cfg.ListenAddress, err)
	case <-ctx.Done():
	}
	close(s.stopping)
	cut := time.AfterFunc(stopTimeout, srv.Stop)
	defer cut.Stop()
	srv.GracefulStop()
	if err := <-failed; !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil // It was stopped before it began.
}

// Execute implements pushdownv1.PushdownServer.
func (s *Server) Execute(stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
	if n := s.streams.Add(1); n > int64(s.cfg.MaxStreams) {
		s.streams.Add(-1)
		return status.Errorf(codes.Unavailable, "too many streams: the limit is %d", s.cfg.MaxStreams)
	}
	s.metrics.streams.Inc()
	defer func() {
		s.streams.Add(-1)
		s.metrics.streams.Dec()
	}()
	if err := s.deps.Ready(); err != nil {
		return status.Errorf(codes.Unavailable, "backend is not ready: %s", err)
	}
	return s.serve(stream)
}

// serve runs the batches of one stream one after the other.
func (s *Server) serve(stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
	ctx := stream.Context()
	enc := newEncoder(stream.Send, s.cfg.MessageBytes)
	requests := receive(stream)
	for {
		select {
		case <-s.stopping:
			return status.Error(codes.Unavailable, "backend is stopping")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case r := <-requests:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			if err := s.runBatch(ctx, r.batch, enc); err != nil {
				return err
			}
			if enc.tables.labelSets() > s.cfg.MaxLabelSets {
				return status.Error(codes.ResourceExhausted, "stream table full")
			}
		}
	}
}

type received struct {
	batch *pushdownv1.BatchRequest
	err   error
}

// receive reads the stream in a goroutine that ends with the stream, so that
// a server that stops does not wait for a client's next batch.
func receive(stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) <-chan received {
	requests := make(chan received)
	go func() {
		for {
			batch, err := stream.Recv()
			select {
			case requests <- received{batch, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return requests
}
