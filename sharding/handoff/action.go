package handoff

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Action is something for the shell to do. The types of this file are all
// there are.
type Action interface {
	fmt.Stringer
	action()
}

// Ready lists actions in the order in which the shell performs them.
type Ready []Action

// String gives the actions one a line.
func (r Ready) String() string {
	var b strings.Builder
	for _, a := range r {
		b.WriteString(a.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Stop asks for the end of a group's evaluation, once the slot in progress is
// finished. The end is told by Stopped.
type Stop struct {
	Key    string
	Reason StopReason
}

// StopReason says why a group stops.
type StopReason uint8

// The reasons to stop a group.
const (
	// StopClaimed: the new owner has claimed the group.
	StopClaimed StopReason = iota + 1
	// StopRemoved: the group is no longer loaded.
	StopRemoved
	// StopUnclaimed: the new owner has not claimed it for too long.
	StopUnclaimed
	// StopAlone: this member drains and there is nobody to take the group.
	StopAlone
	// StopWoke: this member was asleep and has to find out first who runs the
	// group now.
	StopWoke
)

// String returns the word for the reason.
func (r StopReason) String() string {
	switch r {
	case StopClaimed:
		return "claimed"
	case StopRemoved:
		return "removed"
	case StopUnclaimed:
		return "unclaimed"
	case StopAlone:
		return "alone"
	case StopWoke:
		return "woke"
	default:
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
}

// Answer is the answer to the ClaimReceived of the same ID.
type Answer struct {
	ID     uint64
	States []GroupState
}

// Start asks to evaluate a group from now on, beginning after the committed
// slot of State. A state without slot means that nothing is known.
type Start struct {
	Key   string
	State GroupState
	// From is where the state comes from: a member's name, this one's too,
	// "backend", or empty if nothing is known.
	From string
	// Unanswered are the members that may still run the group.
	Unanswered []string
}

// Claim asks a member for the groups that this one owns now.
type Claim struct {
	To   string
	Keys []string
}

// Recover asks the backend for what it knows of groups that no member knows.
type Recover struct{ Keys []string }

// Checkpoint leaves states with another member.
type Checkpoint struct {
	To     string
	States []GroupState
}

// Drained says that nothing runs here any more after a Drain, and that all
// claims are answered.
type Drained struct{}

func (Stop) action()       {}
func (Answer) action()     {}
func (Start) action()      {}
func (Claim) action()      {}
func (Recover) action()    {}
func (Checkpoint) action() {}
func (Drained) action()    {}

// String gives the action on one line.
func (a Stop) String() string { return fmt.Sprintf("stop %s reason=%s", a.Key, a.Reason) }

// String gives the action on one line.
func (a Answer) String() string { return fmt.Sprintf("answer id=%d states=%s", a.ID, states(a.States)) }

// String gives the action on one line.
func (a Start) String() string {
	from := cmp.Or(a.From, "nothing")
	if len(a.Unanswered) == 0 {
		return fmt.Sprintf("start %s from=%s", a.State, from)
	}
	return fmt.Sprintf("start %s from=%s unanswered=%s", a.State, from, bracket(a.Unanswered))
}

// String gives the action on one line.
func (a Claim) String() string { return fmt.Sprintf("claim to=%s %s", a.To, bracket(a.Keys)) }

// String gives the action on one line.
func (a Recover) String() string { return "recover " + bracket(a.Keys) }

// String gives the action on one line.
func (a Checkpoint) String() string {
	return fmt.Sprintf("checkpoint to=%s states=%s", a.To, states(a.States))
}

// String gives the action's name.
func (Drained) String() string { return "drained" }

// outbox gathers the actions of one Step, so that each member gets one message.
type outbox struct {
	stops       []Stop
	answers     []Answer
	starts      []Start
	claims      map[string][]string
	recovers    []string
	checkpoints map[string][]GroupState
	drained     bool
}

func newOutbox() *outbox {
	return &outbox{claims: map[string][]string{}, checkpoints: map[string][]GroupState{}}
}

// ready orders the actions: what frees a group for others comes first.
func (o *outbox) ready() Ready {
	var r Ready
	slices.SortFunc(o.stops, func(a, b Stop) int { return strings.Compare(a.Key, b.Key) })
	for _, a := range o.stops {
		r = append(r, a)
	}
	slices.SortFunc(o.answers, func(a, b Answer) int { return cmp.Compare(a.ID, b.ID) })
	for _, a := range o.answers {
		r = append(r, a)
	}
	slices.SortFunc(o.starts, func(a, b Start) int { return strings.Compare(a.Key, b.Key) })
	for _, a := range o.starts {
		r = append(r, a)
	}
	for _, to := range slices.Sorted(maps.Keys(o.claims)) {
		slices.Sort(o.claims[to])
		r = append(r, Claim{To: to, Keys: o.claims[to]})
	}
	if len(o.recovers) > 0 {
		slices.Sort(o.recovers)
		r = append(r, Recover{Keys: o.recovers})
	}
	for _, to := range slices.Sorted(maps.Keys(o.checkpoints)) {
		slices.SortFunc(o.checkpoints[to], func(a, b GroupState) int { return strings.Compare(a.Key, b.Key) })
		r = append(r, Checkpoint{To: to, States: o.checkpoints[to]})
	}
	if o.drained {
		r = append(r, Drained{})
	}
	return r
}
