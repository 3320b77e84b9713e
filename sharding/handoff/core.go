package handoff

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-rules/tocsin/sharding"
)

// Core decides for one member. Its only input is Step.
type Core struct {
	cfg      Config
	view     sharding.View
	groups   map[string]*group
	order    []*group // sorted by key
	store    *store
	answers  []*answer
	draining bool
	drained  bool
	late     uint64
	swept    time.Time
	out      *outbox
}

// New returns the core of a member that knows neither a view nor groups yet.
// The configuration is valid.
func New(cfg Config) *Core {
	return &Core{
		cfg:    cfg,
		groups: map[string]*group{},
		store:  newStore(cfg.MaxStates, cfg.MaxStateBytes),
	}
}

// Step takes one event at a time that is not before the last one, and returns
// what to do about it.
func (c *Core) Step(now time.Time, ev Event) Ready {
	c.out = newOutbox()
	switch e := ev.(type) {
	case ViewChanged:
		c.viewChanged(now, e.View)
	case GroupsChanged:
		c.groupsChanged(now, e.Keys)
	case ClaimReceived:
		c.claimReceived(now, e)
	case Stopped:
		c.stopped(now, e.State)
	case ClaimAnswered:
		c.claimAnswered(now, e)
	case ClaimFailed:
		c.claimFailed(now, e)
	case Recovered:
		c.recovered(now, e)
	case RecoverFailed:
		c.recoverFailed(now, e.Keys)
	case Committed:
		c.committed(e.States)
	case CheckpointReceived:
		c.checkpointReceived(now, e)
	case Woke:
		c.woke(now)
	case Tick:
		c.tick(now)
	case Drain:
		c.drain(now)
	}
	c.finishDrain()
	return c.out.ready()
}

// viewChanged takes a new view. A member that drains is leaving in its own
// view from the start, however long its news takes to come back.
func (c *Core) viewChanged(now time.Time, v sharding.View) {
	old := c.view
	if c.draining {
		v = v.WithState(c.cfg.Self, sharding.Leaving)
	}
	c.view = v
	fresh, change := c.newcomers(old), old.ChangeTo(v)
	for _, g := range c.order {
		g.forgetMissing(v)
		owner, successor := g.owner, g.successor
		if g.loaded {
			owner, successor = change.Owner(g.key, owner, successor)
		}
		c.assign(now, g, owner, successor)
		if c.owns(g) {
			c.ask(g, fresh, now)
		}
		c.advance(now, g)
	}
}

// newcomers are the other members that the old view didn't hold, or held at
// another address: they may run anything.
func (c *Core) newcomers(old sharding.View) []string {
	var fresh []string
	for _, name := range c.others() {
		m, _ := c.view.Member(name)
		if before, ok := old.Member(name); !ok || before.GRPCAddress != m.GRPCAddress {
			fresh = append(fresh, name)
		}
	}
	return fresh
}

// others are the names of all members of the view but this one.
func (c *Core) others() []string {
	var names []string
	for _, m := range c.view.Members() {
		if m.Name != c.cfg.Self {
			names = append(names, m.Name)
		}
	}
	return names
}

func (c *Core) groupsChanged(now time.Time, keys []string) {
	loaded := make(map[string]bool, len(keys))
	for _, key := range keys {
		loaded[key] = true
		if _, ok := c.groups[key]; !ok {
			c.groups[key] = &group{key: key, phase: idle}
		}
	}
	c.order = slices.SortedFunc(maps.Values(c.groups), func(a, b *group) int { return strings.Compare(a.key, b.key) })
	for _, g := range c.order {
		c.load(now, g, loaded[g.key])
		c.advance(now, g)
	}
	c.forgetRemoved()
}

// forgetRemoved drops groups that are neither loaded nor running.
func (c *Core) forgetRemoved() {
	c.order = slices.DeleteFunc(c.order, func(g *group) bool {
		if g.loaded || g.active() {
			return false
		}
		delete(c.groups, g.key)
		return true
	})
}

func (c *Core) tick(now time.Time) {
	for _, g := range c.order {
		c.advance(now, g)
	}
	c.finishAnswers(now)
	if now.Sub(c.swept) >= c.cfg.KeepTimeout/sweepsPerKeep {
		c.swept = now
		c.store.sweep(now, c.cfg.KeepTimeout, c.needs)
	}
}

// sweepsPerKeep is how often kept states are looked through in the time that
// they are kept without need.
const sweepsPerKeep = 10

// needs tells whether this member has to keep a group's state.
func (c *Core) needs(key string) bool {
	g, ok := c.groups[key]
	return ok && (c.owns(g) || g.successor == c.cfg.Self || g.active())
}

func (c *Core) drain(now time.Time) {
	if c.draining {
		return
	}
	c.draining = true
	c.viewChanged(now, c.view)
}

func (c *Core) finishDrain() {
	if !c.draining || c.drained || len(c.answers) > 0 {
		return
	}
	for _, g := range c.groups {
		if g.active() {
			return
		}
	}
	c.drained = true
	c.out.drained = true
}

// Stats counts what the core holds and what it gave up, for metrics.
type Stats struct {
	// Claiming, Recovering, Running and Stopping are numbers of groups.
	Claiming, Recovering, Running, Stopping int
	// Asked is the number of pairs of an owned group and a member that may
	// still run it.
	Asked int
	// States and StateBytes are what is kept; the bounds are in Config.
	States, StateBytes int
	// EvictedStates counts states dropped for these bounds.
	EvictedStates uint64
	// LateStates counts states that were newer than what their group had
	// already started with.
	LateStates uint64
}

// Stats returns the present numbers. It costs a look at every group.
func (c *Core) Stats() Stats {
	s := Stats{
		States: c.store.order.Len(), StateBytes: c.store.bytes,
		EvictedStates: c.store.evicted, LateStates: c.late,
	}
	for _, g := range c.groups {
		s.Asked += len(g.asks)
		switch g.phase {
		case idle:
		case claiming:
			s.Claiming++
		case recovering:
			s.Recovering++
		case running:
			s.Running++
		case stopping:
			s.Stopping++
		}
	}
	return s
}

// String gives the groups that are not idle, the kept states, and what was
// given up, one a line.
func (c *Core) String() string {
	var b strings.Builder
	for _, g := range c.order {
		if g.phase != idle || c.owns(g) {
			fmt.Fprintln(&b, g)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.store.byKey)) {
		state, from := c.store.get(key)
		fmt.Fprintf(&b, "keeps %s from=%s\n", state, from)
	}
	if c.late > 0 || c.store.evicted > 0 {
		fmt.Fprintf(&b, "late %d, evicted %d\n", c.late, c.store.evicted)
	}
	return b.String()
}
