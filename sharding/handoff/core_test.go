package handoff

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/sharding"
)

func state(key string, slot time.Duration, data string) GroupState {
	return GroupState{Key: key, CommittedSlot: epoch.Add(slot), Data: []byte(data), Version: 1}
}

func viewOf(t *testing.T, words ...string) sharding.View {
	t.Helper()
	v, err := view(words)
	require.NoError(t, err)
	return v
}

func TestStoreKeepsTheNewestState(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		old      GroupState
		from     string
		next     GroupState
		own      bool
		replaces bool
	}{
		{"a later slot wins", state("g", 1, "a"), "m", state("g", 2, "b"), false, true},
		{"an earlier slot loses", state("g", 2, "a"), "m", state("g", 1, "b"), false, false},
		{"the same slot of another member changes nothing", state("g", 1, "a"), "m", state("g", 1, "b"), false, false},
		{"the same slot committed here wins", state("g", 1, "a"), "m", state("g", 1, "b"), true, true},
		{"an earlier slot committed here loses", state("g", 2, "a"), "m", state("g", 1, "b"), true, false},
		{"a member knows more of a slot than the backend", state("g", 1, "a"), backend, state("g", 1, "b"), false, true},
		{"a state that says nothing is not kept", state("g", 1, "a"), "m", GroupState{Key: "g"}, true, false},
		{"data without a slot is older than any slot", state("g", 1, "a"), "m", GroupState{Key: "g", Data: []byte("b")}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(10, 1<<20)
			s.put(tt.old, tt.from, false)
			s.put(tt.next, "n", tt.own)
			got, from := s.get("g")
			if tt.replaces {
				require.Equal(t, tt.next, got)
				require.Equal(t, "n", from)
			} else {
				require.Equal(t, tt.old, got)
				require.Equal(t, tt.from, from)
			}
		})
	}
}

func TestStoreIsBoundedInNumberAndBytes(t *testing.T) {
	t.Parallel()
	s := newStore(3, 4*overhead)
	for i := range 5 {
		s.put(state(fmt.Sprintf("g%d", i), 1, ""), "m", false)
	}
	require.Equal(t, 3, s.order.Len())
	require.Equal(t, uint64(2), s.evicted)
	oldest, _ := s.get("g1")
	require.False(t, oldest.known(), "the least recently written state goes first")

	s.put(state("big", 1, string(make([]byte, 2*overhead))), "m", false)
	require.LessOrEqual(t, s.bytes, 4*overhead)
	require.Equal(t, 1, s.order.Len())
	s.put(state("huge", 1, string(make([]byte, 5*overhead))), "m", false)
	require.Equal(t, 1, s.order.Len(), "one state over the bound drives nothing out")
	require.Equal(t, uint64(2+3+1), s.evicted)
}

func TestEveryCheckpointOfABatchGoesToItsSuccessorInOneMessage(t *testing.T) {
	t.Parallel()
	c := New(DefaultConfig("a"))
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("g%02d", i))
	}
	c.Step(epoch, GroupsChanged{Keys: keys})
	c.Step(epoch, ViewChanged{View: viewOf(t, "a")})
	c.Step(epoch, Recovered{Keys: keys})
	c.Step(epoch, ViewChanged{View: viewOf(t, "a", "b:joining", "c:joining")})
	var batch []GroupState
	for _, key := range slices.Backward(keys) {
		batch = append(batch, state(key, time.Second, "x"))
	}
	require.Empty(t, c.Step(epoch, Committed{States: batch}), "nobody else is ready")

	ready := c.Step(epoch, ViewChanged{View: viewOf(t, "a", "b", "c")})
	require.Len(t, ready, 2, "one message for each successor: %s", ready)
	for i, to := range []string{"b", "c"} {
		cp, ok := ready[i].(Checkpoint)
		require.True(t, ok)
		require.Equal(t, to, cp.To)
		require.True(t, slices.IsSortedFunc(cp.States, func(a, b GroupState) int {
			return slices.Compare([]byte(a.Key), []byte(b.Key))
		}))
	}
}

func TestEventsOutOfPlaceChangeNothing(t *testing.T) {
	t.Parallel()
	c := New(DefaultConfig("a"))
	c.Step(epoch, GroupsChanged{Keys: []string{"g"}})
	c.Step(epoch, ViewChanged{View: viewOf(t, "a", "b")})
	before := c.String()
	for _, ev := range []Event{
		Stopped{State: state("g", time.Second, "x")},
		Stopped{State: state("unknown", time.Second, "x")},
		Committed{States: []GroupState{state("g", time.Second, "x"), state("unknown", time.Second, "x")}},
		Recovered{Keys: []string{"g", "unknown"}, States: []GroupState{state("unknown", time.Second, "x")}},
		RecoverFailed{Keys: []string{"g", "unknown"}},
		ClaimFailed{From: "nobody", Keys: []string{"g", "unknown"}},
		ClaimAnswered{From: "nobody", Keys: []string{"g", "unknown"}},
		CheckpointReceived{From: "nobody"},
		Tick{},
	} {
		require.Empty(t, c.Step(epoch, ev), "%s", ev)
		require.Equal(t, before, c.String(), "%s", ev)
	}
}

func TestAClaimIsAnsweredOnceEvenIfItRepeatsKeys(t *testing.T) {
	t.Parallel()
	c := New(DefaultConfig("a"))
	require.Equal(t,
		Ready{Answer{ID: 7, States: []GroupState{{Key: "g"}, {Key: "h"}}}},
		c.Step(epoch, ClaimReceived{ID: 7, From: "b", Keys: []string{"h", "g", "h"}}))
	require.Empty(t, c.Step(epoch.Add(time.Minute), Tick{}))
}

func TestAClaimThatTheShellForgetsIsRepeated(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig("a")
	c := New(cfg)
	c.Step(epoch, GroupsChanged{Keys: []string{"g"}})
	require.Equal(t, Ready{Claim{To: "b", Keys: []string{"g"}}}, c.Step(epoch, ViewChanged{View: viewOf(t, "a", "b:joining")}))
	ready := c.Step(epoch.Add(cfg.ClaimExpiry), Tick{})
	require.Contains(t, ready, Action(Claim{To: "b", Keys: []string{"g"}}))
}

func TestStatsCountEveryPhase(t *testing.T) {
	t.Parallel()
	c := New(DefaultConfig("a"))
	c.Step(epoch, GroupsChanged{Keys: []string{"g", "h"}})
	c.Step(epoch, ViewChanged{View: viewOf(t, "a", "b:joining")})
	require.Equal(t, Stats{Claiming: 2, Asked: 2}, c.Stats())
	c.Step(epoch, ClaimAnswered{From: "b", Keys: []string{"g", "h"}, States: []GroupState{state("g", 1, "x"), {Key: "h"}}})
	require.Equal(t, Stats{Running: 1, Recovering: 1, States: 1, StateBytes: state("g", 1, "x").size()}, c.Stats())
	c.Step(epoch, GroupsChanged{})
	require.Equal(t, 1, c.Stats().Stopping)
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	require.NoError(t, DefaultConfig("a").Validate())
	err := Config{AnswerTimeout: time.Second}.Validate()
	for _, part := range []string{
		"name of this member", "claim timeout", "retry interval", "claim expiry",
		"recover timeout", "unclaimed timeout", "keep timeout", "kept states",
		"must be less than the claim timeout",
	} {
		require.ErrorContains(t, err, part)
	}
}

func BenchmarkViewChange(b *testing.B) {
	c := New(DefaultConfig("m00"))
	var keys, words []string
	for i := range 100_000 {
		keys = append(keys, fmt.Sprintf("tenant/namespace/group-%d", i))
	}
	for i := range 10 {
		words = append(words, fmt.Sprintf("m%02d", i))
	}
	with, _ := view(words)
	without, _ := view(words[:9])
	c.Step(epoch, GroupsChanged{Keys: keys})
	for i := 0; b.Loop(); i++ {
		c.Step(epoch, ViewChanged{View: []sharding.View{with, without}[i%2]})
	}
}

func BenchmarkTick(b *testing.B) {
	c := New(DefaultConfig("a"))
	var keys []string
	for i := range 100_000 {
		keys = append(keys, fmt.Sprintf("tenant/namespace/group-%d", i))
	}
	v, _ := view([]string{"a", "b"})
	c.Step(epoch, GroupsChanged{Keys: keys})
	c.Step(epoch, ViewChanged{View: v})
	for b.Loop() {
		c.Step(epoch, Tick{})
	}
}
