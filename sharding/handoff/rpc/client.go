package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

const (
	// keepaliveTime finds out about members that are gone without a word.
	keepaliveTime = 20 * time.Second
	// checkpointBytes is the size of state beyond which a checkpoint is split.
	checkpointBytes = maxMessageBytes / 4
)

// ClientConfig says who asks and how connections are secured.
type ClientConfig struct {
	// Self is the name of this member.
	Self      string
	Transport transport.Config
}

// Client asks other members, over one connection to each.
type Client struct {
	cfg ClientConfig

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by address
}

// NewClient returns a client without connections.
func NewClient(cfg ClientConfig) *Client {
	return &Client{cfg: cfg, conns: map[string]*grpc.ClientConn{}}
}

// Claim asks a member for groups that this one owns now.
func (c *Client) Claim(ctx context.Context, to sharding.Member, keys []string) ([]handoff.GroupState, error) {
	service, err := c.service(to)
	if err != nil {
		return nil, err
	}
	resp, err := service.Claim(ctx, &clusterv1.ClaimRequest{Member: c.cfg.Self, GroupKeys: keys})
	if err != nil {
		return nil, fmt.Errorf("claim from member %q: %w", to.Name, err)
	}
	return decode(resp.GetGroups()), nil
}

// Checkpoint leaves states with a member.
func (c *Client) Checkpoint(ctx context.Context, to sharding.Member, states []handoff.GroupState) error {
	service, err := c.service(to)
	if err != nil {
		return err
	}
	for len(states) > 0 {
		n := prefix(states)
		_, err := service.Checkpoint(ctx, &clusterv1.CheckpointRequest{Member: c.cfg.Self, Groups: encode(states[:n])})
		if err != nil {
			return fmt.Errorf("checkpoint to member %q: %w", to.Name, err)
		}
		states = states[n:]
	}
	return nil
}

// prefix is how many of the states go into one message, at least one.
func prefix(states []handoff.GroupState) int {
	size := 0
	for i, s := range states {
		size += len(s.Key) + len(s.Data)
		if size > checkpointBytes && i > 0 {
			return i
		}
	}
	return len(states)
}

// Status asks a member what it alone knows.
func (c *Client) Status(ctx context.Context, of sharding.Member) ([]byte, error) {
	service, err := c.service(of)
	if err != nil {
		return nil, err
	}
	resp, err := service.Status(ctx, &clusterv1.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("status of member %q: %w", of.Name, err)
	}
	return resp.GetGroupsJson(), nil
}

// Keep closes connections to addresses that no member of the view has.
func (c *Client) Keep(v sharding.View) error {
	known := map[string]bool{}
	for _, m := range v.Members() {
		known[m.GRPCAddress] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for address, conn := range c.conns {
		if !known[address] {
			delete(c.conns, address)
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// Close ends all connections.
func (c *Client) Close() error { return c.Keep(sharding.View{}) }

func (c *Client) service(m sharding.Member) (clusterv1.ClusterClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, ok := c.conns[m.GRPCAddress]
	if !ok {
		creds, err := c.cfg.Transport.Client()
		if err != nil {
			return nil, err
		}
		conn, err = grpc.NewClient("passthrough:///"+m.GRPCAddress,
			grpc.WithTransportCredentials(creds),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, PermitWithoutStream: true}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		)
		if err != nil {
			return nil, fmt.Errorf("connect to member %q at %q: %w", m.Name, m.GRPCAddress, err)
		}
		c.conns[m.GRPCAddress] = conn
	}
	return clusterv1.NewClusterClient(conn), nil
}
