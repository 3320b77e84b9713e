package app

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/web"
)

func running(keys ...string) answer {
	var a answer
	for _, key := range keys {
		a.Running = append(a.Running, web.RunningGroup{Key: key, Since: time.Unix(100, 0).UTC(), From: "backend"})
	}
	return a
}

func TestTheOverviewSaysWhoShouldEvaluateAndWhoDoes(t *testing.T) {
	t.Parallel()
	view := sharding.NewView([]sharding.Member{
		{Name: "a", State: sharding.Ready, Zone: "z", HTTPAddress: "h", GRPCAddress: "g", Version: 1},
		{Name: "b", State: sharding.Ready},
		{Name: "c", State: sharding.Leaving},
	})
	loaded := []rule.Group{{Key: "k1", Rules: make([]rule.Rule, 2)}, {Key: "k2"}}
	silent := answer{err: errors.New("no answer in time")}
	s := overview(view, loaded, []answer{running("k1", "old"), silent, running("k1")})

	require.Len(t, s.Members, 3)
	require.Equal(t, "ready", s.Members[0].State)
	require.Equal(t, "z", s.Members[0].Zone)
	require.NotNil(t, s.Members[0].Status)
	require.Equal(t, "no answer in time", s.Members[1].Error)
	require.Nil(t, s.Members[1].Status)
	require.Equal(t, "leaving", s.Members[2].State)

	var keys []string
	for _, g := range s.Groups {
		keys = append(keys, g.Key)
		owner, successor := view.Owner(g.Key)
		require.Equal(t, []string{owner, successor}, []string{g.Owner, g.Successor}, g.Key)
	}
	require.Equal(t, []string{"k1", "k2", "old"}, keys)
	require.Equal(t, 2, s.Groups[0].Rules)
	require.Equal(t, []string{"a", "c"}, []string{s.Groups[0].Running[0].Member, s.Groups[0].Running[1].Member})
	require.Empty(t, s.Groups[1].Running)
	require.Equal(t, "backend", s.Groups[2].Running[0].From)
}

func TestWhyASlotIsLateIsSaid(t *testing.T) {
	t.Parallel()
	due := time.Date(2030, 1, 1, 0, 0, 15, 0, time.UTC)
	p := ruler.Progress{Slot: due, Phase: "being written", Since: due.Add(time.Second)}
	require.Empty(t, late(p, due.Add(2*time.Second)), "it may take its time")
	require.Empty(t, late(ruler.Progress{}, due))
	require.Equal(t, "slot 00:00:15 is being written since 00:00:16", late(p, due.Add(9*time.Second)))
}

func TestAMemberThatLeavesNeverBecomesReadyAgain(t *testing.T) {
	t.Parallel()
	var s memberState
	announced := []string{}
	ready := func() { announced = append(announced, "ready") }
	leaving := func() { announced = append(announced, "leaving") }
	require.EqualError(t, s.Ready(), "starting")
	s.rulesLoaded(source.Snapshot{Groups: []rule.Group{{Key: "k"}}})
	require.Len(t, s.loadedGroups(), 1)
	require.False(t, s.probed(errors.New("backend east is away"), ready))
	require.EqualError(t, s.Ready(), "backend east is away")
	require.True(t, s.probed(nil, ready))
	require.NoError(t, s.Ready())
	require.True(t, s.leave(leaving))
	require.False(t, s.leave(leaving))
	require.True(t, s.probed(nil, ready), "there is no need to try again")
	require.Error(t, s.Ready())
	require.Equal(t, []string{"ready", "leaving"}, announced)
}

func TestTheLastReadyMemberIsNotDrained(t *testing.T) {
	t.Parallel()
	members := []sharding.Member{{Name: "a", State: sharding.Ready}, {Name: "b", State: sharding.Leaving}, {Name: "c", State: sharding.Joining}}
	require.False(t, othersReady(sharding.NewView(members), "a"))
	require.True(t, othersReady(sharding.NewView(members), "b"))
}
