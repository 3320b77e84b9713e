package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// receiver is a member that checkpoints are left with.
type receiver struct {
	mu sync.Mutex
	// changes tells that it takes changes; bases are what it has.
	changes bool
	bases   bases
}

// Checkpoint leaves states with the member at address, in as many messages as
// they need, as changes of the last ones where it has those. What can be sent is
// sent, also if an error is returned for a state that is too large.
func (c *Client) Checkpoint(ctx context.Context, address string, states []handoff.GroupState) error {
	ctx, cancel := context.WithTimeout(ctx, CheckpointDeadline)
	defer cancel()
	cluster, err := c.cluster(address)
	if err != nil {
		return err
	}
	to := c.receiver(address)
	to.mu.Lock()
	defer to.mu.Unlock()
	to.bases.sweep(time.Now())
	split, tooLarge := batches(states)
	for _, batch := range split {
		if err := c.leave(ctx, cluster, to, batch); err != nil {
			return errors.Join(fmt.Errorf("leave checkpoints with %s: %w", address, err), tooLarge)
		}
	}
	return tooLarge
}

func (c *Client) receiver(address string) *receiver {
	c.mu.Lock()
	defer c.mu.Unlock()
	to, ok := c.receivers[address]
	if !ok {
		to = &receiver{}
		c.receivers[address] = to
	}
	return to
}

// leave sends a batch; states whose bases the receiver had lost go again, whole.
func (c *Client) leave(ctx context.Context, cluster clusterv1.ClusterClient, to *receiver, batch []handoff.GroupState) error {
	req := c.request(to, batch)
	resp, err := cluster.Checkpoint(ctx, req)
	if err != nil {
		return err
	}
	to.changes = resp.GetTakesChanges()
	lost := map[string]bool{}
	for _, key := range resp.GetUnknownKeys() {
		lost[key] = true
	}
	if !to.changes {
		to.bases = bases{}
		for _, change := range req.GetChanges() {
			lost[change.GetGroupKey()] = true
		}
	}
	var again []handoff.GroupState
	for _, s := range batch {
		if lost[s.Key] {
			to.bases.drop(s.Key)
			again = append(again, s)
		} else if to.changes {
			to.bases.put(s, time.Now())
		}
	}
	if len(again) == 0 || len(req.GetChanges()) == 0 {
		return nil
	}
	return c.leave(ctx, cluster, to, again)
}

// request has each state as a change if the receiver takes those and has what it
// is a change of.
func (c *Client) request(to *receiver, batch []handoff.GroupState) *clusterv1.CheckpointRequest {
	req := &clusterv1.CheckpointRequest{Member: c.cfg.Member}
	var whole []handoff.GroupState
	wholeBytes, changeBytes := 0, 0
	for _, s := range batch {
		var change *clusterv1.GroupChange
		if to.changes {
			change = to.bases.change(s)
		}
		if change == nil {
			whole = append(whole, s)
			wholeBytes += stateBytes(s)
			continue
		}
		req.Changes = append(req.Changes, change)
		changeBytes += len(s.Key) + len(change.GetMiddle()) + stateOverhead
	}
	req.Groups = toProto(whole)
	c.checkpointBytes.WithLabelValues("whole").Add(float64(wholeBytes))
	c.checkpointBytes.WithLabelValues("change").Add(float64(changeBytes))
	return req
}

// Checkpoint is the Cluster service's.
func (s *Server) Checkpoint(ctx context.Context, req *clusterv1.CheckpointRequest) (*clusterv1.CheckpointResponse, error) {
	if err := check(req.GetMember(), len(req.GetGroups())+len(req.GetChanges()), maxStates); err != nil {
		return nil, err
	}
	states, unknown := s.resolve(req, time.Now())
	if err := s.handler.Checkpoint(ctx, req.GetMember(), states); err != nil {
		return nil, asStatus(err)
	}
	return &clusterv1.CheckpointResponse{TakesChanges: true, UnknownKeys: unknown}, nil
}

// resolve makes states of the changes, and keeps all as bases of the next ones.
func (s *Server) resolve(req *clusterv1.CheckpointRequest, now time.Time) (states []handoff.GroupState, unknown []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.basesOf(req.GetMember(), now)
	states = fromProto(req.GetGroups())
	for _, change := range req.GetChanges() {
		state, ok := known.apply(change)
		if !ok {
			unknown = append(unknown, change.GetGroupKey())
			continue
		}
		states = append(states, state)
	}
	for _, state := range states {
		known.put(state, now)
	}
	return states, unknown
}

// basesOf are those of one sender. Senders that are gone are forgotten.
func (s *Server) basesOf(member string, now time.Time) *bases {
	for name, b := range s.senders {
		if b.sweep(now); len(b.states) == 0 {
			delete(s.senders, name)
		}
	}
	known, ok := s.senders[member]
	if !ok {
		known = &bases{swept: now}
		s.senders[member] = known
	}
	return known
}
