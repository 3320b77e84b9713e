package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// How long a request may take, unless its context ends sooner.
const (
	// ClaimDeadline is longer than an answer waits for slots in progress
	// (handoff.Config.AnswerTimeout).
	ClaimDeadline      = 3 * time.Second
	CheckpointDeadline = 5 * time.Second
	StatusDeadline     = 3 * time.Second

	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
)

// ClientConfig says who this member is and how it reaches others.
type ClientConfig struct {
	// Member is this member's name.
	Member string
	// Transport secures the connections.
	Transport transport.Config
}

// Client asks other members, with one connection for each address.
type Client struct {
	cfg             ClientConfig
	requests        *prometheus.CounterVec
	checkpointBytes *prometheus.CounterVec

	mu        sync.Mutex
	conns     map[string]*grpc.ClientConn // nil once closed
	receivers map[string]*receiver        // of checkpoints, by address
}

// ErrClosed is returned by a client after Close.
var ErrClosed = errors.New("client for other members is closed")

// NewClient returns a client without connections.
func NewClient(cfg ClientConfig, reg prometheus.Registerer) *Client {
	f := promauto.With(reg)
	return &Client{
		cfg:       cfg,
		conns:     map[string]*grpc.ClientConn{},
		receivers: map[string]*receiver{},
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_cluster_rpc_client_requests_total",
			Help: "Requests to other members, by method and gRPC code.",
		}, []string{"method", "code"}),
		checkpointBytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_cluster_checkpoint_bytes_total",
			Help: "Bytes of group states left with successors, as whole states and as changes of the last ones.",
		}, []string{"kind"}),
	}
}

// Claim asks the member at address for groups and returns a state for each one
// that it doesn't run.
func (c *Client) Claim(ctx context.Context, address string, keys []string) ([]handoff.GroupState, error) {
	ctx, cancel := context.WithTimeout(ctx, ClaimDeadline)
	defer cancel()
	cluster, err := c.cluster(address)
	if err != nil {
		return nil, err
	}
	resp, err := cluster.Claim(ctx, &clusterv1.ClaimRequest{Member: c.cfg.Member, GroupKeys: keys})
	if err != nil {
		return nil, fmt.Errorf("claim %d groups from %s: %w", len(keys), address, err)
	}
	return fromProto(resp.GetGroups()), nil
}

// Status asks the member at address for its part of the answer to a request of
// the HTTP API.
func (c *Client) Status(ctx context.Context, address, endpoint, query string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, StatusDeadline)
	defer cancel()
	cluster, err := c.cluster(address)
	if err != nil {
		return nil, err
	}
	stream, err := cluster.Status(ctx, &clusterv1.StatusRequest{Endpoint: endpoint, Query: query})
	if err != nil {
		return nil, fmt.Errorf("ask %s for its status: %w", address, err)
	}
	var encoded []byte
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return encoded, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s for its status: %w", address, err)
		}
		if encoded = append(encoded, resp.GetPiece()...); len(encoded) > maxStatusBytes {
			return nil, fmt.Errorf("status of %s takes more than %d bytes", address, maxStatusBytes)
		}
	}
}

// Describe asks the member at address how it is, a JSON object.
func (c *Client) Describe(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, StatusDeadline)
	defer cancel()
	cluster, err := c.cluster(address)
	if err != nil {
		return nil, err
	}
	resp, err := cluster.Describe(ctx, &clusterv1.DescribeRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask %s how it is: %w", address, err)
	}
	return resp.GetMemberJson(), nil
}

// Costs asks the member at address what the groups that it runs cost, by the
// hash of their keys.
func (c *Client) Costs(ctx context.Context, address string) (map[uint64]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, StatusDeadline)
	defer cancel()
	cluster, err := c.cluster(address)
	if err != nil {
		return nil, err
	}
	resp, err := cluster.Costs(ctx, &clusterv1.CostsRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask %s what its groups cost: %w", address, err)
	}
	if len(resp.GetCosts()) != len(resp.GetGroups()) {
		return nil, fmt.Errorf("ask %s what its groups cost: %d costs of %d groups", address, len(resp.GetCosts()), len(resp.GetGroups()))
	}
	costs := make(map[uint64]uint64, len(resp.GetGroups()))
	for i, group := range resp.GetGroups() {
		costs[group] = resp.GetCosts()[i]
	}
	return costs, nil
}

// Clock asks the member at address for its time and returns by how much that is
// ahead of this member's, give or take half of the time that the answer took.
func (c *Client) Clock(ctx context.Context, address string) (ahead, within time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, StatusDeadline)
	defer cancel()
	cluster, err := c.cluster(address)
	if err != nil {
		return 0, 0, err
	}
	asked := time.Now()
	resp, err := cluster.Clock(ctx, &clusterv1.ClockRequest{})
	if err != nil {
		return 0, 0, fmt.Errorf("ask %s for its time: %w", address, err)
	}
	half := time.Since(asked) / 2
	return time.Unix(0, resp.GetUnixNanos()).Sub(asked.Add(half)), half, nil
}

// Keep closes the connections to all other addresses: those of members that
// have left.
func (c *Client) Keep(addresses []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.receivers, func(address string, _ *receiver) bool { return !slices.Contains(addresses, address) })
	maps.DeleteFunc(c.conns, func(address string, conn *grpc.ClientConn) bool {
		gone := !slices.Contains(addresses, address)
		if gone {
			_ = conn.Close() // it can only say that it is closed already
		}
		return gone
	})
}

// Close ends all connections, and the client.
func (c *Client) Close() {
	c.Keep(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = nil
}

func (c *Client) cluster(address string) (clusterv1.ClusterClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		return nil, ErrClosed
	}
	conn, ok := c.conns[address]
	if !ok {
		var err error
		if conn, err = c.dial(address); err != nil {
			return nil, fmt.Errorf("connect to member at %q: %w", address, err)
		}
		c.conns[address] = conn
	}
	return clusterv1.NewClusterClient(conn), nil
}

// dial prepares a connection, which is made with the first request. A member
// that restarts is found again within a second.
func (c *Client) dial(address string) (*grpc.ClientConn, error) {
	if err := c.cfg.Transport.Validate(address); err != nil {
		return nil, err
	}
	creds, err := c.cfg.Transport.Client()
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
		),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: ClaimDeadline,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithUnaryInterceptor(c.observe),
	)
}

func (c *Client) observe(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	c.requests.WithLabelValues(methodName(method), status.Code(err).String()).Inc()
	return err
}

// methodName is the last part of "/package.Service/Method".
func methodName(full string) string { return full[strings.LastIndexByte(full, '/')+1:] }
