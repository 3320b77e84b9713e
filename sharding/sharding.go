// Package sharding decides which member evaluates which rule group: a view of
// the members and a group's key give the group's owner and its successor, by
// weighted rendezvous hashing.
//
// It is pure: equal views give equal answers on every member, whatever order
// the members were learnt in. It never learns who the members are (that is
// sharding/gossip's business) and never moves a group (sharding/handoff does).
// All values are immutable once made and safe for concurrent use. The scripts
// of its tests are in testdata.
package sharding

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
)

// State is how far a member is in its life. Only ready members own groups.
type State uint8

// The states of a member, in the order in which it goes through them.
const (
	// Joining: the member is known, but can't evaluate yet.
	Joining State = iota + 1
	// Ready: the member has its rules and reaches its backends.
	Ready
	// Leaving: the member hands its groups over and takes none.
	Leaving
)

// String returns the word for the state, as in metrics and scripts.
func (s State) String() string {
	switch s {
	case Joining:
		return "joining"
	case Ready:
		return "ready"
	case Leaving:
		return "leaving"
	default:
		return "state(" + strconv.Itoa(int(s)) + ")"
	}
}

// Member is one rule-evaluator of the cluster as its view shows it.
type Member struct {
	// Name identifies the member in the cluster.
	Name string
	// Zone is the failure domain that the member runs in; empty is a zone
	// like any other.
	Zone string
	// Weight is the member's capacity relative to the others. A value that
	// is not a positive finite number counts as 1.
	Weight float64
	State  State
	// HTTPAddress and GRPCAddress are where other members and users reach
	// it, "host:port".
	HTTPAddress string
	GRPCAddress string
	// Version is the version of the protocol between members that it speaks.
	Version uint32
}

// String returns the member on one line.
func (m Member) String() string {
	return fmt.Sprintf("%s %s zone=%s weight=%s http=%s grpc=%s version=%d",
		m.Name, m.State, m.Zone, strconv.FormatFloat(m.Weight, 'g', -1, 64),
		m.HTTPAddress, m.GRPCAddress, m.Version)
}

func (m Member) normalised() Member {
	if !(m.Weight > 0) || math.IsInf(m.Weight, 1) {
		m.Weight = 1
	}
	return m
}

// compare orders members by name first; the other fields only make the order
// of two members of one name independent of the input's.
func compare(a, b Member) int {
	return cmp.Or(
		cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.State, b.State),
		cmp.Compare(a.Zone, b.Zone),
		cmp.Compare(a.Weight, b.Weight),
		cmp.Compare(a.HTTPAddress, b.HTTPAddress),
		cmp.Compare(a.GRPCAddress, b.GRPCAddress),
		cmp.Compare(a.Version, b.Version),
	)
}
