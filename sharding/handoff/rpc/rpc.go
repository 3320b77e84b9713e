// Package rpc carries what sharding/handoff has members say to each other:
// claims, checkpoints and their answers, what groups cost, and each member's
// status and time, by the Cluster service of proto/cluster/v1. Checkpoints go as
// changes of the last ones.
//
// It decides nothing: the Server hands requests to a Handler, the Client sends
// what it is told to, once. Both are safe for concurrent use. Ports other than
// those on loopback are secured by mutual TLS (proto/transport).
package rpc

import (
	"fmt"
	"time"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

const (
	// maxMessageBytes bounds every message, sent or received.
	maxMessageBytes = 32 << 20
	// maxAnswerBytes bounds the states of one answer to a claim. Groups that
	// don't fit are left out, so the claimant asks for them again.
	maxAnswerBytes = 24 << 20
	// maxStatusBytes bounds the answer to a status request, which comes in
	// pieces of statusPieceBytes.
	maxStatusBytes   = 512 << 20
	statusPieceBytes = 1 << 20
	// checkpointBytes is what a checkpoint is split at.
	checkpointBytes = 4 << 20
	// maxKeys and maxStates bound the groups of one request.
	maxKeys   = 200_000
	maxStates = 200_000
	// stateOverhead is what a state takes in a message beside its key and
	// data, at most.
	stateOverhead = 64
)

func stateBytes(s handoff.GroupState) int { return len(s.Key) + len(s.Data) + stateOverhead }

func toProto(states []handoff.GroupState) []*clusterv1.GroupState {
	groups := make([]*clusterv1.GroupState, 0, len(states))
	for _, s := range states {
		g := &clusterv1.GroupState{GroupKey: s.Key, State: s.Data, StateVersion: s.Version, Outdated: s.Outdated}
		if !s.CommittedSlot.IsZero() {
			g.CommittedSlotMs = s.CommittedSlot.UnixMilli()
		}
		groups = append(groups, g)
	}
	return groups
}

// fromProto takes a slot at the epoch for none: no member ever evaluated it.
func fromProto(groups []*clusterv1.GroupState) []handoff.GroupState {
	states := make([]handoff.GroupState, 0, len(groups))
	for _, g := range groups {
		s := handoff.GroupState{Key: g.GetGroupKey(), Data: g.GetState(), Version: g.GetStateVersion(), Outdated: g.GetOutdated()}
		if ms := g.GetCommittedSlotMs(); ms != 0 {
			s.CommittedSlot = time.UnixMilli(ms).UTC()
		}
		states = append(states, s)
	}
	return states
}

// batches splits states so that each message stays small. One that no message
// can carry is an error; the others are sent nevertheless.
func batches(states []handoff.GroupState) (split [][]handoff.GroupState, err error) {
	size := 0
	for _, s := range states {
		n := stateBytes(s)
		if n > maxAnswerBytes {
			err = fmt.Errorf("state of group %q takes %d bytes: a checkpoint carries at most %d", s.Key, n, maxAnswerBytes)
			continue
		}
		if len(split) == 0 || size+n > checkpointBytes {
			split, size = append(split, nil), 0
		}
		last := len(split) - 1
		split[last] = append(split[last], s)
		size += n
	}
	return split, err
}
