package rpc

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

func TestQuickAChangeOfAStateMakesTheState(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		text := func() []byte {
			b := make([]byte, r.IntN(12))
			for i := range b {
				b[i] = "ab"[r.IntN(2)]
			}
			return b
		}
		var sender, receiver bases
		before := handoff.GroupState{Key: "g", CommittedSlot: slot, Data: text(), Version: 1}
		after := handoff.GroupState{Key: "g", CommittedSlot: slot.Add(time.Minute), Data: text(), Version: 1}
		sender.put(before, slot)
		receiver.put(before, slot)
		change := sender.change(after)
		if change == nil {
			continue // nothing in common
		}
		got, ok := receiver.apply(change)
		require.True(t, ok, "seed %d", seed)
		require.Equal(t, string(after.Data), string(got.Data), "seed %d: %q to %q", seed, before.Data, after.Data)
		require.Equal(t, after.CommittedSlot, got.CommittedSlot)
	}
}

func TestAChangeOfAnotherStateIsNotApplied(t *testing.T) {
	t.Parallel()
	var sender, receiver bases
	_, ok := receiver.apply(&clusterv1.GroupChange{GroupKey: "g"})
	require.False(t, ok, "unknown")
	sender.put(handoff.GroupState{Key: "g", Data: []byte("one state"), Version: 1}, slot)
	receiver.put(handoff.GroupState{Key: "g", Data: []byte("1 state"), Version: 1}, slot)
	_, ok = receiver.apply(sender.change(handoff.GroupState{Key: "g", CommittedSlot: slot, Data: []byte("a state"), Version: 1}))
	require.False(t, ok)
	_, ok = receiver.apply(&clusterv1.GroupChange{GroupKey: "g", Prefix: 1 << 31, Suffix: 1 << 31})
	require.False(t, ok, "nonsense")
	require.Nil(t, sender.change(handoff.GroupState{Key: "g", CommittedSlot: slot, Data: []byte("a state"), Version: 2}), "another encoding")
}

func TestBasesAreForgottenWhenIdleOrTooMany(t *testing.T) {
	t.Parallel()
	var b bases
	for i := range 3 {
		b.put(handoff.GroupState{Key: fmt.Sprint(i), Data: make([]byte, 100)}, slot.Add(time.Duration(i)*keepBase))
	}
	b.sweep(slot.Add(2*keepBase + 1))
	require.Len(t, b.states, 1)
	b.put(handoff.GroupState{Key: "2", Data: make([]byte, 10)}, slot)
	require.Equal(t, stateBytes(handoff.GroupState{Key: "2", Data: make([]byte, 10)}), b.bytes)
	b.put(handoff.GroupState{Key: "huge", Data: make([]byte, maxBaseBytes)}, slot)
	require.Empty(t, b.states)
	require.Zero(t, b.bytes)
}

// largeState has rules of which one depends on the slot.
func largeState(key string, n int) handoff.GroupState {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, `{"id":"rule-%d","series":[{"__name__":"r","instance":"host-%d"}]},`, i, i)
		if i == 40 {
			fmt.Fprintf(&b, "slot %d", n)
		}
	}
	return handoff.GroupState{Key: key, CommittedSlot: slot.Add(time.Duration(n) * time.Minute), Data: []byte(b.String()), Version: 1}
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	t.Parallel()
	m := &member{}
	s := serve(t, m, ServerConfig{})
	c, address := client(t, transport.Config{}), s.Addr().String()
	sent := func(kind string) float64 { return testutil.ToFloat64(c.checkpointBytes.WithLabelValues(kind)) }
	for n := range 10 {
		states := []handoff.GroupState{largeState("g", n), largeState("h", n)}
		require.NoError(t, c.Checkpoint(t.Context(), address, states))
		require.ElementsMatch(t, states, slices.Concat(m.checkpoints...))
		m.checkpoints = nil
	}
	require.InDelta(t, 2*stateBytes(largeState("g", 0)), sent("whole"), 0, "each once")
	require.Less(t, sent("change"), 9*2*100.0)

	// The receiver has forgotten one of the two: it gets that one again.
	s.mu.Lock()
	s.senders["a"].drop("h")
	s.mu.Unlock()
	states := []handoff.GroupState{largeState("g", 10), largeState("h", 10)}
	require.NoError(t, c.Checkpoint(t.Context(), address, states))
	require.ElementsMatch(t, states, slices.Concat(m.checkpoints...))
	require.InDelta(t, 3*stateBytes(largeState("g", 0)), sent("whole"), 4)
}

// firstVersion is a member as it was: it knows nothing of changes.
type firstVersion struct {
	clusterv1.UnimplementedClusterServer

	got []handoff.GroupState
}

func (f *firstVersion) Checkpoint(_ context.Context, req *clusterv1.CheckpointRequest) (*clusterv1.CheckpointResponse, error) {
	f.got = append(f.got, fromProto(req.GetGroups())...)
	return &clusterv1.CheckpointResponse{}, nil
}

func TestAMemberIsReplacedByOneOfTheFirstVersionAndBack(t *testing.T) {
	t.Parallel()
	m := &member{}
	s := serve(t, m, ServerConfig{})
	c, address := client(t, transport.Config{}), s.Addr().String()
	checkpoint := func(n int) error {
		return c.Checkpoint(t.Context(), address, []handoff.GroupState{largeState("g", n)})
	}
	require.NoError(t, checkpoint(0))
	require.NoError(t, checkpoint(1))
	s.stop(t)

	old := &firstVersion{}
	srv := grpc.NewServer()
	clusterv1.RegisterClusterServer(srv, old)
	l := listen(t, address)
	go func() { _ = srv.Serve(l) }()
	require.Eventually(t, func() bool { return checkpoint(2) == nil }, 30*time.Second, 20*time.Millisecond)
	require.NoError(t, checkpoint(3))
	require.Equal(t, []handoff.GroupState{largeState("g", 2), largeState("g", 3)}, old.got)
	_, err := c.Costs(t.Context(), address)
	require.ErrorContains(t, err, "Unimplemented")
	srv.Stop()

	again := &member{}
	serve(t, again, ServerConfig{ListenAddress: address})
	require.Eventually(t, func() bool { return checkpoint(4) == nil }, 30*time.Second, 20*time.Millisecond)
	require.NoError(t, checkpoint(5))
	require.Equal(t, []handoff.GroupState{largeState("g", 4), largeState("g", 5)}, slices.Concat(again.checkpoints...))
}

// Messages as members of the first version send them, made by its code.
const (
	claimRequestV1      = "0a0162120178120179"
	claimResponseV1     = "0a140a017810fbd0eab6b7331a06616c6572747320010a030a0179"
	checkpointRequestV1 = "0a016212140a017810fbd0eab6b7331a06616c657274732001"
)

func TestMessagesOfTheFirstVersionAreUnderstood(t *testing.T) {
	t.Parallel()
	known := handoff.GroupState{Key: "x", CommittedSlot: slot, Data: []byte("alerts"), Version: 1}
	var claim clusterv1.ClaimRequest
	decodeHex(t, claimRequestV1, &claim)
	require.Equal(t, "b", claim.GetMember())
	require.Equal(t, []string{"x", "y"}, claim.GetGroupKeys())
	var answer clusterv1.ClaimResponse
	decodeHex(t, claimResponseV1, &answer)
	require.Equal(t, []handoff.GroupState{known, {Key: "y"}}, fromProto(answer.GetGroups()))
	var checkpoint clusterv1.CheckpointRequest
	decodeHex(t, checkpointRequestV1, &checkpoint)
	require.Equal(t, []handoff.GroupState{known}, fromProto(checkpoint.GetGroups()))
	require.Empty(t, checkpoint.GetChanges())

	// And this version writes them the same way.
	b, err := proto.Marshal(&clusterv1.ClaimResponse{Groups: toProto([]handoff.GroupState{known, {Key: "y"}})})
	require.NoError(t, err)
	require.Equal(t, claimResponseV1, hex.EncodeToString(b))
}

func decodeHex(t *testing.T, text string, m proto.Message) {
	t.Helper()
	b, err := hex.DecodeString(text)
	require.NoError(t, err)
	require.NoError(t, proto.Unmarshal(b, m))
}
