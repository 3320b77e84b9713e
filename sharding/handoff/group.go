package handoff

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tocsin-rules/tocsin/sharding"
)

// phase is what this member does with a group.
type phase uint8

const (
	// idle: nothing.
	idle phase = iota
	// claiming: waits for the others to give it up.
	claiming
	// recovering: nobody knew it; waits for the backend.
	recovering
	// running: the shell evaluates it.
	running
	// stopping: the shell finishes its last slot.
	stopping
)

func (p phase) String() string {
	return [...]string{"idle", "claiming", "recovering", "running", "stopping"}[p]
}

// group is one rule group as this member sees it.
type group struct {
	key    string
	loaded bool
	// owner and successor are by the current view, empty if not loaded.
	owner, successor string
	phase            phase
	// asks are the members that may run the group, while this one owns it.
	asks map[string]ask
	// outdated tells that this member, or the one that answered with it, was
	// neither owner nor successor for a while after it had got the state that this
	// one keeps, so others have gone on.
	outdated bool
	// woken tells that another member may have run the group while this one was
	// asleep, and that it is claimed for that reason.
	woken bool
	// deadline ends claiming or recovering, whichever it is.
	deadline time.Time
	// retryAt is when to ask the backend again; zero while it is being asked.
	retryAt time.Time
	// part is what those of the backends knew that answered, while others do
	// not; nil if none has answered.
	part *GroupState
	// lostAt is when the present owner became the owner in place of this
	// member.
	lostAt time.Time
}

// ask is an open question to a member whether it has given the group up.
type ask struct {
	// sent tells whether the question is on its way, since the time at; else
	// it is due at that time.
	sent bool
	at   time.Time
}

func (a ask) due(now time.Time, expiry time.Duration) bool {
	if a.sent {
		return now.Sub(a.at) >= expiry
	}
	return !now.Before(a.at)
}

// active tells whether the shell evaluates the group.
func (g *group) active() bool { return g.phase == running || g.phase == stopping }

// forgetMissing ends questions to members that the view no longer holds.
func (g *group) forgetMissing(v sharding.View) {
	maps.DeleteFunc(g.asks, func(name string, _ ask) bool {
		_, ok := v.Member(name)
		return !ok
	})
}

// String gives the group's phase, owner, and whom it is asked from.
func (g *group) String() string {
	s := fmt.Sprintf("%s %s owner=%s successor=%s", g.key, g.phase, orNone(g.owner), orNone(g.successor))
	if len(g.asks) > 0 {
		s += " asks=" + bracket(slices.Sorted(maps.Keys(g.asks)))
	}
	return s
}

func orNone(name string) string {
	if name == "" {
		return "none"
	}
	return name
}

func (c *Core) owns(g *group) bool { return g.owner == c.cfg.Self }

// concerns tells whether this member gets to know of every slot of the group.
func (c *Core) concerns(g *group) bool { return c.owns(g) || g.successor == c.cfg.Self }

// keeper is who gets checkpoints of a group running here: the successor, or
// the owner if that is another member.
func (c *Core) keeper(g *group) string {
	if c.owns(g) {
		return g.successor
	}
	return g.owner
}

// load notes whether the group is loaded; one that isn't belongs to nobody.
func (c *Core) load(now time.Time, g *group, loaded bool) {
	if loaded == g.loaded {
		return
	}
	g.loaded = loaded
	if loaded {
		owner, successor := c.view.Owner(g.key)
		c.assign(now, g, owner, successor)
	} else {
		c.assign(now, g, "", "")
	}
}

// assign gives the group to its owner by the current view. One that wasn't the
// owner before asks everybody.
func (c *Core) assign(now time.Time, g *group, owner, successor string) {
	before := *g
	g.owner, g.successor = owner, successor
	if c.concerns(&before) && !c.concerns(g) {
		g.outdated = true
	}
	switch {
	case !c.owns(g):
		c.lose(now, g, before.owner)
	case !c.owns(&before):
		c.ask(g, c.others(), now)
	}
	if g.phase == running && c.owns(g) && g.successor != before.successor {
		c.checkpoint(g)
	}
}

// lose ends a claim that is no longer this member's to make. A running group
// runs on until it is claimed.
func (c *Core) lose(now time.Time, g *group, before string) {
	if g.owner != before {
		g.lostAt = now
	}
	g.asks = nil
	if !g.active() {
		g.phase = idle
	}
}

// ask notes that the members may run the group, to be asked at the given time.
// An open question stays as it is.
func (c *Core) ask(g *group, members []string, at time.Time) {
	for _, name := range members {
		if _, open := g.asks[name]; open {
			continue
		}
		if g.asks == nil {
			g.asks = make(map[string]ask, len(members))
		}
		g.asks[name] = ask{at: at}
	}
}

// advance moves a group on as far as it goes now.
func (c *Core) advance(now time.Time, g *group) {
	if g.phase == idle && c.owns(g) {
		g.phase, g.deadline = claiming, now.Add(c.claimTimeout(g))
	}
	if g.phase == claiming && (len(g.asks) == 0 || !now.Before(g.deadline)) {
		g.phase, g.deadline, g.retryAt, g.part = recovering, now.Add(c.cfg.RecoverTimeout), now, nil
	}
	if g.phase == recovering {
		c.advanceRecovery(now, g)
	}
	if reason := c.stopReason(now, g); g.phase == running && reason != 0 {
		c.stop(g, reason)
	}
	c.sendAsks(now, g)
}

// claimTimeout is longer for a group that another member may well run: until it
// has found out that this one is alive it refuses, and what this one knows of
// the group is old.
func (c *Core) claimTimeout(g *group) time.Duration {
	if g.woken {
		return c.cfg.WokenTimeout
	}
	return c.cfg.ClaimTimeout
}

// advanceRecovery starts the group if its state is known by now, as it mostly
// is from the claims, and else, or if that state is an old one, asks the backends. As long as none of those that
// concern the group answers it could not be evaluated either, and started anew
// it would forget its slots and alerts.
func (c *Core) advanceRecovery(now time.Time, g *group) {
	state, _ := c.store.get(g.key)
	late := !now.Before(g.deadline)
	switch {
	case state.known() && !g.outdated:
		c.start(g)
	case late && (state.known() || g.part != nil):
		if g.part != nil {
			c.store.put(*g.part, backend, false)
		}
		c.start(g)
	case !g.retryAt.IsZero() && !now.Before(g.retryAt):
		g.retryAt = time.Time{}
		c.out.recovers = append(c.out.recovers, g.key)
	}
}

func (c *Core) start(g *group) {
	state, from := c.store.get(g.key)
	g.phase, g.woken, g.outdated = running, false, false
	c.out.starts = append(c.out.starts, Start{
		Key: g.key, State: state, From: from, Unanswered: slices.Sorted(maps.Keys(g.asks)),
	})
}

// stopReason says why a running group has to stop without being claimed; zero
// if it hasn't.
func (c *Core) stopReason(now time.Time, g *group) StopReason {
	switch {
	case !g.loaded:
		return StopRemoved
	case c.owns(g):
		return 0
	case g.owner == "" && c.draining:
		return StopAlone
	case g.owner != "" && now.Sub(g.lostAt) >= c.cfg.UnclaimedTimeout:
		return StopUnclaimed
	default:
		return 0
	}
}

func (c *Core) stop(g *group, reason StopReason) {
	g.phase = stopping
	c.out.stops = append(c.out.stops, Stop{Key: g.key, Reason: reason})
}

func (c *Core) sendAsks(now time.Time, g *group) {
	for name, a := range g.asks {
		if a.due(now, c.cfg.ClaimExpiry) {
			g.asks[name] = ask{sent: true, at: now}
			c.out.claims[name] = append(c.out.claims[name], g.key)
		}
	}
}

// checkpoint leaves the last committed state with whom it concerns.
func (c *Core) checkpoint(g *group) {
	state, _ := c.store.get(g.key)
	if to := c.keeper(g); to != "" && state.known() {
		c.out.checkpoints[to] = append(c.out.checkpoints[to], state)
	}
}
