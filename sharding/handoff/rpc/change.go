package rpc

import (
	"time"

	"github.com/cespare/xxhash/v2"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// Most of a group's state is the same after a slot as before it: often all of
// it, or one rule in the middle. So what is sent is the bytes that differ, from
// the first one to the last. Both sides keep the state that the other one knows,
// and the hash of it in the message says whether they mean the same; where not,
// the state is sent whole. Nothing depends on these copies, so they may be
// forgotten at any time.
const (
	// keepBase is how long the copy of a state is kept that nobody changes.
	keepBase = 15 * time.Minute
	// maxBaseBytes bounds the copies that one member keeps of another.
	maxBaseBytes = 128 << 20
)

// bases are the states that another member has too, by group key.
type bases struct {
	states map[string]base
	bytes  int
	swept  time.Time
}

type base struct {
	state handoff.GroupState
	used  time.Time
}

func (b *bases) put(s handoff.GroupState, now time.Time) {
	if b.states == nil {
		b.states = map[string]base{}
	}
	b.drop(s.Key)
	b.states[s.Key] = base{state: s, used: now}
	b.bytes += stateBytes(s)
	if b.bytes > maxBaseBytes {
		*b = bases{swept: now}
	}
}

func (b *bases) drop(key string) {
	if old, ok := b.states[key]; ok {
		b.bytes -= stateBytes(old.state)
		delete(b.states, key)
	}
}

// sweep forgets what is no longer changed, as it belongs to somebody else now.
func (b *bases) sweep(now time.Time) {
	if now.Sub(b.swept) < keepBase/4 {
		return
	}
	b.swept = now
	for key, old := range b.states {
		if now.Sub(old.used) > keepBase {
			b.drop(key)
		}
	}
}

// change gives a state as the change of the one that the other side has; nil if
// it has none, or if the whole state is not longer.
func (b *bases) change(s handoff.GroupState) *clusterv1.GroupChange {
	old, ok := b.states[s.Key]
	if !ok || old.state.Version != s.Version || s.CommittedSlot.IsZero() {
		return nil
	}
	prefix, suffix := common(old.state.Data, s.Data)
	if prefix+suffix == 0 {
		return nil
	}
	return &clusterv1.GroupChange{
		GroupKey:        s.Key,
		CommittedSlotMs: s.CommittedSlot.UnixMilli(),
		StateVersion:    s.Version,
		Base:            xxhash.Sum64(old.state.Data),
		Prefix:          uint32(prefix),
		Suffix:          uint32(suffix),
		Middle:          s.Data[prefix : len(s.Data)-suffix],
	}
}

// apply gives the state that a change means; false if its base isn't here.
func (b *bases) apply(c *clusterv1.GroupChange) (handoff.GroupState, bool) {
	old, ok := b.states[c.GetGroupKey()]
	data, prefix, suffix := old.state.Data, int(c.GetPrefix()), int(c.GetSuffix())
	if !ok || prefix+suffix > len(data) || xxhash.Sum64(data) != c.GetBase() {
		return handoff.GroupState{}, false
	}
	s := handoff.GroupState{
		Key:           c.GetGroupKey(),
		CommittedSlot: time.UnixMilli(c.GetCommittedSlotMs()).UTC(),
		Data:          data,
		Version:       c.GetStateVersion(),
	}
	if len(c.GetMiddle()) > 0 || prefix+suffix < len(data) {
		s.Data = make([]byte, 0, prefix+len(c.GetMiddle())+suffix)
		s.Data = append(s.Data, data[:prefix]...)
		s.Data = append(s.Data, c.GetMiddle()...)
		s.Data = append(s.Data, data[len(data)-suffix:]...)
	}
	return s, true
}

// common is how many bytes two states have in common, at their beginnings and at
// their ends.
func common(a, b []byte) (prefix, suffix int) {
	shorter := min(len(a), len(b))
	for prefix < shorter && a[prefix] == b[prefix] {
		prefix++
	}
	for suffix < shorter-prefix && a[len(a)-1-suffix] == b[len(b)-1-suffix] {
		suffix++
	}
	return prefix, suffix
}
