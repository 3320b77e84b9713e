package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	thanosv1 "github.com/tocsin-rules/tocsin/proto/thanos/v1"
)

// seriesPerMessage is how many series a message of an answer holds at most.
const seriesPerMessage = 64

// ThanosConfig describes a Thanos querier.
type ThanosConfig struct {
	// Address is "host:port" of its gRPC server.
	Address string
	// TLS is nil for plaintext.
	TLS *config.TLSConfig
	// Credentials holds what calls say of the caller: authorization, basic
	// auth, OAuth2 and headers of this configuration are sent as metadata.
	Credentials config.HTTPClientConfig
	// MaxConcurrent is the number of calls in progress at a time, over all
	// batches.
	MaxConcurrent int
	// MaxResponseBytes bounds one answer.
	MaxResponseBytes int64
	// MaxSamples bounds the samples of the raw series that one selector
	// fetches.
	MaxSamples int
}

// Thanos asks a Thanos querier over its gRPC APIs, one call a fragment. Times
// are whole seconds there, and the values of expressions scalars or vectors:
// what cannot be said so is asked over the querier's HTTP API. Partial
// responses are disabled.
type Thanos struct {
	cfg     ThanosConfig
	conn    *grpc.ClientConn
	queries thanosv1.QueryClient
	stores  thanosv1.StoreClient
	api     *HTTP
	calls   pool
}

var (
	_ Client       = (*Thanos)(nil)
	_ SeriesSource = (*Thanos)(nil)
)

// NewThanos returns a client of the querier whose HTTP API is api. It reads
// certificates but does not connect.
func NewThanos(cfg ThanosConfig, api *HTTP) (*Thanos, error) {
	opts, err := cfg.dialOptions()
	if err != nil {
		return nil, fmt.Errorf("gRPC of the Thanos querier at %q: %w", cfg.Address, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+cfg.Address, opts...)
	if err != nil {
		return nil, fmt.Errorf("make gRPC client for %q: %w", cfg.Address, err)
	}
	return &Thanos{
		cfg: cfg, conn: conn, api: api, calls: make(pool, cfg.MaxConcurrent),
		queries: thanosv1.NewQueryClient(conn), stores: thanosv1.NewStoreClient(conn),
	}, nil
}

func (c ThanosConfig) dialOptions() ([]grpc.DialOption, error) {
	creds := insecure.NewCredentials()
	if c.TLS != nil {
		tls, err := config.NewTLSConfig(c.TLS)
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(tls)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(newCallCredentials(c.Credentials)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(int(c.MaxResponseBytes))),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingInterval}),
		grpc.WithConnectParams(connectParams),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(repeatOnce),
	}, nil
}

// repeatOnce makes gRPC ask again if a connection turns out to be gone before an
// answer began, as one does that was kept while the server was restarted: all
// calls only read.
const repeatOnce = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 2, "initialBackoff": "0.02s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]
}}]}`

// Execute implements Client.
func (t *Thanos) Execute(ctx context.Context, fragments []plan.Fragment, opts Options) []Result {
	return t.calls.each(ctx, len(fragments), func(i int) Result {
		f := fragments[i]
		return within(ctx, f.Limits, func(ctx context.Context) Result { return t.query(ctx, f, opts) })
	})
}

func (t *Thanos) query(ctx context.Context, f plan.Fragment, opts Options) Result {
	expr, err := parser.ParseExpr(f.Expr)
	if err != nil {
		return Result{Err: &Error{Kind: KindUser, Err: err}}
	}
	if !sayable(expr.Type(), f.Window, opts) {
		return t.api.query(ctx, f, opts)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := t.call(ctx, f, opts)
	if err != nil {
		return Result{Err: thanosError(ctx, err)}
	}
	answer := thanosAnswer{budget: budget{limit: t.cfg.MaxResponseBytes}, window: f.Window, valueType: expr.Type()}
	if err := receive(stream, answer.add); err != nil {
		return Result{Err: thanosError(ctx, err)}
	}
	return answer.finish()
}

// sayable tells whether the Query API can express the call: it counts in
// seconds, takes second 0 for the present, and leaves out values that are
// range vectors or strings.
func sayable(t parser.ValueType, w plan.Window, opts Options) bool {
	whole := func(ms int64) bool { return ms%1000 == 0 }
	return whole(w.Start) && whole(w.End) && whole(w.Step) && w.Start != 0 &&
		opts.Lookback%time.Second == 0 &&
		(t == parser.ValueTypeVector || t == parser.ValueTypeScalar)
}

func (t *Thanos) call(ctx context.Context, f plan.Fragment, opts Options) (grpc.ServerStreamingClient[thanosv1.QueryResponse], error) {
	lookback := int64(opts.Lookback / time.Second)
	if f.Window.Step == 0 {
		return t.queries.Query(ctx, &thanosv1.QueryRequest{
			Query:                f.Expr,
			TimeSeconds:          f.Window.Start / 1000,
			EnableDedup:          true,
			LookbackDeltaSeconds: lookback,
			ResponseBatchSize:    seriesPerMessage,
		})
	}
	return t.queries.QueryRange(ctx, &thanosv1.QueryRangeRequest{
		Query:                f.Expr,
		StartTimeSeconds:     f.Window.Start / 1000,
		EndTimeSeconds:       f.Window.End / 1000,
		IntervalSeconds:      f.Window.Step / 1000,
		EnableDedup:          true,
		LookbackDeltaSeconds: lookback,
		ResponseBatchSize:    seriesPerMessage,
	})
}

// receive hands all messages of a stream to add. It returns nil once the
// server has said that the answer is complete.
func receive[M any](stream grpc.ServerStreamingClient[M], add func(*M) error) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := add(msg); err != nil {
			return err
		}
	}
}

// Probe implements Client: the querier has to evaluate a constant. It does not
// wait for requests in progress.
func (t *Thanos) Probe(ctx context.Context) error {
	return t.query(ctx, plan.Fragment{Expr: "1", Window: plan.Window{Start: 1000, End: 1000}}, Options{}).Err
}

// Close implements Client.
func (t *Thanos) Close() error { return errors.Join(t.conn.Close(), t.api.Close()) }
