package handoff

import (
	"container/list"
	"fmt"
	"time"
)

// GroupState is what has to survive a change of owner.
type GroupState struct {
	// Key is the group's.
	Key string
	// CommittedSlot is the last slot whose samples the backend has
	// acknowledged; zero if none is known. It is exact to the millisecond.
	CommittedSlot time.Time
	// Data is the rest of the state in the ruler's encoding, and opaque here.
	// It is never changed, by nobody.
	Data []byte
	// Version is the version of the encoding of Data.
	Version uint32
	// Outdated tells that the member which answers with the state was neither
	// owner nor successor for a while after it had got it: others have gone on.
	Outdated bool
}

// String gives the key, the slot and the size of the data, and whether it is
// outdated.
func (s GroupState) String() string {
	if !s.known() {
		return s.Key + "@none"
	}
	text := fmt.Sprintf("%s@%s/%dB", s.Key, s.CommittedSlot.UTC().Format(time.RFC3339), len(s.Data))
	if s.Outdated {
		text += "/outdated"
	}
	return text
}

// known tells a state from a key that nothing is known of.
func (s GroupState) known() bool { return !s.CommittedSlot.IsZero() || len(s.Data) > 0 }

func (s GroupState) newerThan(o GroupState) bool {
	return s.known() && (!o.known() || s.CommittedSlot.After(o.CommittedSlot))
}

// overhead is what a kept state costs beside its key and data, in bytes.
const overhead = 256

func (s GroupState) size() int { return len(s.Key) + len(s.Data) + overhead }

// kept is a state in a store.
type kept struct {
	state GroupState
	from  string
	// idleSince is since when this member is neither owner nor successor of
	// the group; zero if it is.
	idleSince time.Time
}

// store keeps the newest known state of each group, bounded in number and
// bytes: the least recently written ones go first.
type store struct {
	maxStates, maxBytes int

	byKey   map[string]*list.Element
	order   *list.List // of *kept, the most recently written in front
	bytes   int
	evicted uint64
}

func newStore(maxStates, maxBytes int) *store {
	return &store{
		maxStates: maxStates,
		maxBytes:  maxBytes,
		byKey:     map[string]*list.Element{},
		order:     list.New(),
	}
}

// get returns the kept state of a group and who it came from; an unknown one
// has the key only.
func (s *store) get(key string) (GroupState, string) {
	if e, ok := s.byKey[key]; ok {
		k := e.Value.(*kept)
		return k.state, k.from
	}
	return GroupState{Key: key}, ""
}

// put keeps a state if it is newer than the kept one. Of two states of one slot
// the later one stays if it was committed here, or if the other was only
// recovered from the backend.
func (s *store) put(state GroupState, from string, own bool) {
	if !state.known() {
		return
	}
	old, source := s.get(state.Key)
	if old.newerThan(state) {
		return
	}
	if !state.newerThan(old) && !own && source != backend {
		return
	}
	s.drop(state.Key)
	if state.size() > s.maxBytes {
		s.evicted++ // It would drive out all others and then go itself.
		return
	}
	s.byKey[state.Key] = s.order.PushFront(&kept{state: state, from: from})
	s.bytes += state.size()
	for s.order.Len() > s.maxStates || s.bytes > s.maxBytes {
		s.drop(s.order.Back().Value.(*kept).state.Key)
		s.evicted++
	}
}

func (s *store) drop(key string) {
	e, ok := s.byKey[key]
	if !ok {
		return
	}
	s.bytes -= e.Value.(*kept).state.size()
	s.order.Remove(e)
	delete(s.byKey, key)
}

// sweep drops what has not been needed for longer than keep.
func (s *store) sweep(now time.Time, keep time.Duration, needed func(key string) bool) {
	for e := s.order.Front(); e != nil; {
		k, next := e.Value.(*kept), e.Next()
		switch {
		case needed(k.state.Key):
			k.idleSince = time.Time{}
		case k.idleSince.IsZero():
			k.idleSince = now
		case now.Sub(k.idleSince) >= keep:
			s.drop(k.state.Key)
		}
		e = next
	}
}
