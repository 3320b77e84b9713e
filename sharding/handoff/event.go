package handoff

import (
	"fmt"
	"strings"

	"github.com/tocsin-rules/tocsin/sharding"
)

// Event is something that happened, as the shell tells the core. The types of
// this file are all there are.
type Event interface {
	fmt.Stringer
	event()
}

// ViewChanged says that the member sees the cluster differently now. The view
// holds this member too, in the state that it has told the others.
type ViewChanged struct{ View sharding.View }

// GroupsChanged gives the keys of all loaded rule groups, in any order. A
// group that is missing has been removed.
type GroupsChanged struct{ Keys []string }

// ClaimReceived says that another member claims groups. ID is the shell's and
// unique among the claims that have no Answer yet.
type ClaimReceived struct {
	ID   uint64
	From string
	Keys []string
}

// Stopped says that a group asked to stop has finished its slot. The state is
// the one after it; one without slot and data if no slot was ever committed.
type Stopped struct{ State GroupState }

// ClaimAnswered gives the answer to a Claim: States holds one for each key
// that the other member doesn't run.
type ClaimAnswered struct {
	From   string
	Keys   []string
	States []GroupState
}

// ClaimFailed says that a Claim has no answer.
type ClaimFailed struct {
	From string
	Keys []string
	Err  string
}

// Recovered gives what the backends knew of the keys of one Recover; a key
// without a state has left no trace there.
type Recovered struct {
	Keys   []string
	States []GroupState
	// Partial tells that some of the backends that may hold traces of the keys
	// can't be asked now.
	Partial bool
}

// RecoverFailed says that none of the backends that may hold traces of the
// keys can be asked now.
type RecoverFailed struct {
	Keys []string
	Err  string
}

// Committed gives the states of running groups after slots that the backend
// has acknowledged, best all of one batch together.
type Committed struct{ States []GroupState }

// CheckpointReceived gives states that another member leaves here.
type CheckpointReceived struct {
	From   string
	States []GroupState
}

// Woke says that this member did nothing for a while, so that others may have
// taken it for dead and evaluate its groups.
type Woke struct{}

// Tick says that time has passed.
type Tick struct{}

// Drain says that this member is to hand everything over and end. There is no
// way back.
type Drain struct{}

func (ViewChanged) event()        {}
func (GroupsChanged) event()      {}
func (ClaimReceived) event()      {}
func (Stopped) event()            {}
func (ClaimAnswered) event()      {}
func (ClaimFailed) event()        {}
func (Recovered) event()          {}
func (RecoverFailed) event()      {}
func (Woke) event()               {}
func (Committed) event()          {}
func (CheckpointReceived) event() {}
func (Tick) event()               {}
func (Drain) event()              {}

// String lists the members with their states.
func (e ViewChanged) String() string {
	var names []string
	for _, m := range e.View.Members() {
		names = append(names, m.Name+":"+m.State.String())
	}
	return "view-changed " + bracket(names)
}

// String gives the event and its fields on one line, as do the other events'.
func (e GroupsChanged) String() string { return "groups-changed " + bracket(e.Keys) }

// String gives the event on one line.
func (e ClaimReceived) String() string {
	return fmt.Sprintf("claim-received id=%d from=%s %s", e.ID, e.From, bracket(e.Keys))
}

// String gives the event on one line.
func (e Stopped) String() string { return "stopped " + e.State.String() }

// String gives the event on one line.
func (e ClaimAnswered) String() string {
	return fmt.Sprintf("claim-answered from=%s %s states=%s", e.From, bracket(e.Keys), states(e.States))
}

// String gives the event on one line.
func (e ClaimFailed) String() string {
	return fmt.Sprintf("claim-failed from=%s %s err=%q", e.From, bracket(e.Keys), e.Err)
}

// String gives the event on one line.
func (e Recovered) String() string {
	kind := "recovered"
	if e.Partial {
		kind = "recovered-partly"
	}
	return fmt.Sprintf("%s %s states=%s", kind, bracket(e.Keys), states(e.States))
}

// String gives the event on one line.
func (e RecoverFailed) String() string {
	return fmt.Sprintf("recover-failed %s err=%q", bracket(e.Keys), e.Err)
}

// String gives the event on one line.
func (e Committed) String() string { return "committed " + states(e.States) }

// String gives the event on one line.
func (e CheckpointReceived) String() string {
	return fmt.Sprintf("checkpoint-received from=%s states=%s", e.From, states(e.States))
}

// String gives the event's name.
func (Tick) String() string { return "tick" }

// String gives the event's name.
func (Woke) String() string { return "woke" }

// String gives the event's name.
func (Drain) String() string { return "drain" }

func bracket(words []string) string { return "[" + strings.Join(words, " ") + "]" }

func states(ss []GroupState) string {
	words := make([]string, len(ss))
	for i, s := range ss {
		words[i] = s.String()
	}
	return bracket(words)
}
