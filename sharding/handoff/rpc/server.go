// Package rpc carries what members say to each other directly: claims,
// checkpoints and status, over gRPC with mutual TLS (proto/cluster).
//
// It decides nothing: the server passes requests to a Handler, the client to
// another member. Messages, keys and concurrent streams are bounded. Servers
// and clients are safe for concurrent use.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	// maxMessageBytes bounds a message; senders split what is larger.
	maxMessageBytes = 64 << 20
	// maxStreams bounds the requests that one connection has in progress.
	maxStreams = 64
	// maxKeys bounds the groups of one claim, maxKeyBytes one key.
	maxKeys     = 200_000
	maxKeyBytes = 4096
	stopTimeout = time.Second
)

// Handler answers other members.
type Handler interface {
	// Claim gives up the groups that another member owns now and answers with
	// their states.
	Claim(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error)
	// Checkpoint keeps states for the case that from dies.
	Checkpoint(ctx context.Context, from string, states []handoff.GroupState) error
	// Status is what this member alone knows: its groups, as JSON.
	Status(ctx context.Context) ([]byte, error)
}

// ServerConfig says where to listen and how connections are secured.
type ServerConfig struct {
	// Self is the name of this member.
	Self          string
	ListenAddress string
	Transport     transport.Config
}

// Server answers other members.
type Server struct {
	clusterv1.UnimplementedClusterServer
	cfg      ServerConfig
	handler  Handler
	logger   *slog.Logger
	requests *prometheus.CounterVec
	listener net.Listener
}

// NewServer returns a server that does not listen yet.
func NewServer(cfg ServerConfig, h Handler, logger *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Transport.Validate(cfg.ListenAddress); err != nil {
		return nil, fmt.Errorf("cluster gRPC: %w", err)
	}
	s := &Server{cfg: cfg, handler: h, logger: logger}
	s.requests = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "tocsin_cluster_requests_total",
		Help: "Requests of other members, by method and outcome.",
	}, []string{"method", "code"})
	return s, nil
}

// Listen opens the port, so that a taken one is reported before anything else
// starts.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen for members on %q: %w", s.cfg.ListenAddress, err)
	}
	s.listener = l
	return nil
}

// Addr is the address that the server listens on after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets requests in progress finish for a short
// while.
func (s *Server) Run(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.Creds(s.cfg.Transport.Server()),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.count),
	)
	clusterv1.RegisterClusterServer(srv, s)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve members on %q: %w", s.cfg.ListenAddress, err)
	case <-ctx.Done():
	}
	bound := time.AfterFunc(stopTimeout, srv.Stop)
	defer bound.Stop()
	srv.GracefulStop()
	return nil
}

func (s *Server) count(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	s.requests.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	return resp, err
}

// Claim implements the service.
func (s *Server) Claim(ctx context.Context, req *clusterv1.ClaimRequest) (*clusterv1.ClaimResponse, error) {
	if err := checkKeys(req.GetGroupKeys()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	states, err := s.handler.Claim(ctx, req.GetMember(), req.GetGroupKeys())
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &clusterv1.ClaimResponse{Groups: encode(states)}, nil
}

// Checkpoint implements the service.
func (s *Server) Checkpoint(ctx context.Context, req *clusterv1.CheckpointRequest) (*clusterv1.CheckpointResponse, error) {
	states := decode(req.GetGroups())
	for _, st := range states {
		if err := checkKeys([]string{st.Key}); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	if err := s.handler.Checkpoint(ctx, req.GetMember(), states); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &clusterv1.CheckpointResponse{}, nil
}

// Status implements the service.
func (s *Server) Status(ctx context.Context, _ *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	body, err := s.handler.Status(ctx)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &clusterv1.StatusResponse{Member: s.cfg.Self, GroupsJson: body}, nil
}

func checkKeys(keys []string) error {
	if len(keys) > maxKeys {
		return fmt.Errorf("%d groups in one message, the limit is %d", len(keys), maxKeys)
	}
	for _, k := range keys {
		if k == "" || len(k) > maxKeyBytes {
			return errors.New("a group key is empty or longer than the limit")
		}
	}
	return nil
}

func encode(states []handoff.GroupState) []*clusterv1.GroupState {
	out := make([]*clusterv1.GroupState, len(states))
	for i, s := range states {
		out[i] = &clusterv1.GroupState{GroupKey: s.Key, State: s.Data, StateVersion: s.Version}
		if !s.CommittedSlot.IsZero() {
			out[i].CommittedSlotMs = s.CommittedSlot.UnixMilli()
		}
	}
	return out
}

func decode(states []*clusterv1.GroupState) []handoff.GroupState {
	out := make([]handoff.GroupState, len(states))
	for i, s := range states {
		out[i] = handoff.GroupState{Key: s.GetGroupKey(), Data: s.GetState(), Version: s.GetStateVersion()}
		if ms := s.GetCommittedSlotMs(); ms != 0 {
			out[i].CommittedSlot = time.UnixMilli(ms).UTC()
		}
	}
	return out
}
