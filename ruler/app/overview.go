package app

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/gossip"
	"github.com/tocsin-rules/tocsin/web"
)

// answer is what a member says of itself, or why it says nothing.
type answer struct {
	web.MemberDescription

	clock *web.Clock
	load  gossip.Load
	err   error
}

// Status asks all members how they are.
func (c cluster) Status(ctx context.Context) web.ClusterStatus {
	view := c.a.gossip.View()
	members := view.Members()
	answers := make([]answer, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { answers[i] = c.ask(ctx, m) })
	}
	asked.Wait()
	for name, load := range c.a.gossip.Loads() {
		if i := slices.IndexFunc(members, func(m sharding.Member) bool { return m.Name == name }); i >= 0 {
			answers[i].load = load
		}
	}
	s := overview(view, c.a.state.loadedGroups(), answers)
	s.Member = c.a.opts.Name
	return s
}

func (c cluster) ask(ctx context.Context, m sharding.Member) (said answer) {
	if m.Name == c.a.opts.Name {
		return answer{MemberDescription: c.a.describe()}
	}
	body, err := c.a.rpcClient.Describe(ctx, m.GRPCAddress)
	if err == nil {
		err = json.Unmarshal(body, &said.MemberDescription)
	}
	said.err = err
	if ahead, within, err := c.a.rpcClient.Clock(ctx, m.GRPCAddress); err == nil {
		said.clock = &web.Clock{AheadSeconds: ahead.Seconds(), WithinSeconds: within.Seconds()}
	}
	return said
}

// describe is what this member tells the others of itself.
func (a *app) describe() web.MemberDescription {
	statuses := a.ruler.Status()
	d := web.MemberDescription{MemberStatus: a.status(), Running: make([]web.RunningGroup, len(statuses))}
	for i, g := range statuses {
		d.Running[i] = runningGroup(g)
	}
	return d
}

func runningGroup(g ruler.GroupStatus) web.RunningGroup {
	return web.RunningGroup{Key: g.Group.Key, Since: g.Since, From: g.From, LastSlot: g.LastSlot, Late: late(g.Progress, time.Now())}
}

// lateAfter is how old a slot is that is not done before anybody is told.
const lateAfter = 3 * time.Second

// late says why a slot is not done long after it was due; nothing if it is.
func late(p ruler.Progress, now time.Time) string {
	if p.Slot.IsZero() || now.Sub(p.Slot) < lateAfter {
		return ""
	}
	return fmt.Sprintf("slot %s is %s since %s", p.Slot.Format(time.TimeOnly), p.Phase, p.Since.Format(time.TimeOnly))
}

// overview joins a view, the loaded groups, sorted by key, and what each
// member of the view answers.
func overview(view sharding.View, loaded []rule.Group, answers []answer) web.ClusterStatus {
	s := web.ClusterStatus{Members: []web.ClusterMember{}}
	places := map[string]*web.GroupPlace{}
	for _, g := range loaded {
		placeOf(places, view, g.Key).Rules = len(g.Rules)
	}
	for i, m := range view.Members() {
		s.Members = append(s.Members, clusterMember(m, answers[i]))
		for _, g := range answers[i].Running {
			p := placeOf(places, view, g.Key)
			p.Running = append(p.Running, web.GroupRun{Member: m.Name, Since: g.Since, From: g.From, LastSlot: g.LastSlot, Late: g.Late})
		}
	}
	s.Groups = make([]web.GroupPlace, 0, len(places))
	for _, p := range places {
		s.Groups = append(s.Groups, *p)
	}
	slices.SortFunc(s.Groups, func(a, b web.GroupPlace) int { return strings.Compare(a.Key, b.Key) })
	return s
}

func placeOf(places map[string]*web.GroupPlace, view sharding.View, key string) *web.GroupPlace {
	p, ok := places[key]
	if !ok {
		p = &web.GroupPlace{Key: key, Running: []web.GroupRun{}}
		p.Owner, p.Successor = view.Owner(key)
		places[key] = p
	}
	return p
}

func clusterMember(m sharding.Member, said answer) web.ClusterMember {
	shown := web.ClusterMember{
		Name: m.Name, State: m.State.String(), Zone: m.Zone,
		HTTPAddress: m.HTTPAddress, GRPCAddress: m.GRPCAddress, Version: m.Version, Clock: said.clock,
		ToldGroups: said.load.Groups, ToldCost: said.load.Cost,
	}
	if said.err != nil {
		shown.Error = said.err.Error()
	} else {
		shown.Status = &said.MemberStatus
	}
	return shown
}
