package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

const (
	// stopTimeout bounds how long requests in flight hold up a stop. Answers
	// to claims of a member that drains are among them.
	stopTimeout = 3 * time.Second
	// maxStreams bounds the requests of one other member at a time.
	maxStreams = 64
	// keepaliveMin is how often a client may ping, at most.
	keepaliveMin = 5 * time.Second
)

// Handler is what a member does with requests of others. Its methods are
// called concurrently and end with their context.
type Handler interface {
	// Claim returns a state for each group that this member does not run and
	// is not about to: of handoff.Answer, to a handoff.ClaimReceived.
	Claim(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error)
	// Checkpoint takes states of another member: a handoff.CheckpointReceived.
	Checkpoint(ctx context.Context, from string, states []handoff.GroupState) error
	// Status returns what this member alone knows in answer to a request of the
	// HTTP API, encoded for the composition root of the other member.
	Status(ctx context.Context, endpoint, query string) ([]byte, error)
	// Describe returns how this member is, as a JSON object.
	Describe(ctx context.Context) ([]byte, error)
	// Costs returns what the groups that run here cost, by the hash of their
	// keys (sharding.Hash); 0 if it is not known yet.
	Costs(ctx context.Context) (map[uint64]uint64, error)
}

// ServerConfig says who this member is and where it listens.
type ServerConfig struct {
	// Member is this member's name.
	Member string
	// ListenAddress is "host:port".
	ListenAddress string
	// Transport secures the port.
	Transport transport.Config
}

// Server answers other members.
type Server struct {
	clusterv1.UnimplementedClusterServer

	cfg      ServerConfig
	handler  Handler
	logger   *slog.Logger
	listener net.Listener
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	oversize prometheus.Counter

	mu      sync.Mutex
	senders map[string]*bases // of checkpoints, by member
}

// NewServer returns a server for the handler. It opens no port.
func NewServer(cfg ServerConfig, h Handler, logger *slog.Logger, reg prometheus.Registerer) *Server {
	f := promauto.With(reg)
	return &Server{
		cfg:     cfg,
		senders: map[string]*bases{},
		handler: h,
		logger:  logger,
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_cluster_rpc_requests_total",
			Help: "Requests of other members, by method and gRPC code.",
		}, []string{"method", "code"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tocsin_cluster_rpc_duration_seconds",
			Help:    "How long requests of other members took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 7),
		}, []string{"method"}),
		oversize: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_cluster_oversize_states_total",
			Help: "Group states given up at a claim, because no message could carry them.",
		}),
	}
}

// Listen opens the port, so that Addr is known and a taken port or bad
// certificates are reported before anything else starts.
func (s *Server) Listen() error {
	if err := s.cfg.Transport.Validate(s.cfg.ListenAddress); err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen for other members on %q: %w", s.cfg.ListenAddress, err)
	}
	s.listener = l
	return nil
}

// Addr is the address that the server listens on after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets requests in flight finish for a short
// while.
func (s *Server) Run(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.Creds(s.cfg.Transport.Server()),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.observe),
		grpc.StreamInterceptor(s.observeStream),
	)
	clusterv1.RegisterClusterServer(srv, s)
	stopped := context.AfterFunc(ctx, func() {
		hard := time.AfterFunc(stopTimeout, srv.Stop)
		defer hard.Stop()
		srv.GracefulStop()
	})
	defer stopped()
	if err := srv.Serve(s.listener); err != nil {
		return fmt.Errorf("serve other members on %q: %w", s.cfg.ListenAddress, err)
	}
	return nil
}

func (s *Server) observe(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := next(ctx, req)
	s.count(info.FullMethod, start, err)
	return resp, err
}

func (s *Server) observeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	start := time.Now()
	err := next(srv, stream)
	s.count(info.FullMethod, start, err)
	return err
}

func (s *Server) count(fullMethod string, start time.Time, err error) {
	method := methodName(fullMethod)
	s.duration.WithLabelValues(method).Observe(time.Since(start).Seconds())
	s.requests.WithLabelValues(method, status.Code(err).String()).Inc()
}

// Claim is the Cluster service's.
func (s *Server) Claim(ctx context.Context, req *clusterv1.ClaimRequest) (*clusterv1.ClaimResponse, error) {
	if err := check(req.GetMember(), len(req.GetGroupKeys()), maxKeys); err != nil {
		return nil, err
	}
	states, err := s.handler.Claim(ctx, req.GetMember(), req.GetGroupKeys())
	if err != nil {
		return nil, asStatus(err)
	}
	return &clusterv1.ClaimResponse{Groups: toProto(s.fit(states, req.GetMember()))}, nil
}

// fit leaves out what one message can't carry. A state that none can carry is
// given up: its group is released with nothing known, so that the claimant
// recovers it from the backend.
func (s *Server) fit(states []handoff.GroupState, member string) []handoff.GroupState {
	var fitting []handoff.GroupState
	size := 0
	for _, state := range states {
		n := stateBytes(state)
		if n > maxAnswerBytes {
			s.oversize.Inc()
			s.logger.Error("group state too large to hand over", "group", state.Key, "member", member, "bytes", n, "limit", maxAnswerBytes)
			state, n = handoff.GroupState{Key: state.Key}, stateBytes(handoff.GroupState{Key: state.Key})
		}
		if size+n <= maxAnswerBytes {
			fitting = append(fitting, state)
			size += n
		}
	}
	return fitting
}

// Status is the Cluster service's.
func (s *Server) Status(req *clusterv1.StatusRequest, stream grpc.ServerStreamingServer[clusterv1.StatusResponse]) error {
	encoded, err := s.handler.Status(stream.Context(), req.GetEndpoint(), req.GetQuery())
	if err != nil {
		return asStatus(err)
	}
	for piece := range slices.Chunk(encoded, statusPieceBytes) {
		if err := stream.Send(&clusterv1.StatusResponse{Piece: piece}); err != nil {
			return err
		}
	}
	return nil
}

// Describe is the Cluster service's.
func (s *Server) Describe(ctx context.Context, _ *clusterv1.DescribeRequest) (*clusterv1.DescribeResponse, error) {
	member, err := s.handler.Describe(ctx)
	if err != nil {
		return nil, asStatus(err)
	}
	return &clusterv1.DescribeResponse{MemberJson: member}, nil
}

// Costs is the Cluster service's.
func (s *Server) Costs(ctx context.Context, _ *clusterv1.CostsRequest) (*clusterv1.CostsResponse, error) {
	costs, err := s.handler.Costs(ctx)
	if err != nil {
		return nil, asStatus(err)
	}
	resp := &clusterv1.CostsResponse{}
	for group, cost := range costs {
		resp.Groups = append(resp.Groups, group)
		resp.Costs = append(resp.Costs, cost)
	}
	return resp, nil
}

// Clock is the Cluster service's.
func (s *Server) Clock(context.Context, *clusterv1.ClockRequest) (*clusterv1.ClockResponse, error) {
	return &clusterv1.ClockResponse{UnixNanos: time.Now().UnixNano()}, nil
}

func check(member string, groups, limit int) error {
	if member == "" {
		return status.Error(codes.InvalidArgument, "request without the name of the member")
	}
	if groups > limit {
		return status.Errorf(codes.ResourceExhausted, "request for %d groups: at most %d are taken", groups, limit)
	}
	return nil
}

// asStatus keeps the code of context errors and of statuses; the rest is
// internal.
func asStatus(err error) error {
	if s := status.FromContextError(err); s.Code() != codes.Unknown {
		return s.Err()
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.Error(codes.Internal, err.Error())
}
