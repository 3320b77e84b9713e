package handoff

import "time"

// This file is the side that claims groups.

// woke stops everything and claims what this member owns from all others, with
// its own states as what is known at least.
func (c *Core) woke(now time.Time) {
	for _, g := range c.order {
		if g.phase != running {
			continue
		}
		c.stop(g, StopWoke)
		if c.owns(g) {
			g.woken = true
			c.ask(g, c.others(), now)
			c.sendAsks(now, g)
		}
	}
}

// learn keeps what another member knows of a group, unless the group runs
// here: its own state is the one that counts then.
func (c *Core) learn(from string, state GroupState) {
	g, ok := c.groups[state.Key]
	own, _ := c.store.get(state.Key)
	newer, outdated := state.newerThan(own), state.Outdated
	state.Outdated = false // Kept states are outdated with their group.
	switch {
	case !ok || !g.active():
		c.store.put(state, from, false)
		if ok && newer {
			g.outdated = outdated || !c.concerns(g)
		}
	case newer:
		c.late++
	}
}

func (c *Core) claimAnswered(now time.Time, e ClaimAnswered) {
	released := make(map[string]bool, len(e.States))
	for _, s := range e.States {
		released[s.Key] = true
		c.learn(e.From, s)
	}
	for _, key := range e.Keys {
		g, ok := c.groups[key]
		if !ok {
			continue
		}
		if released[key] {
			delete(g.asks, e.From)
		} else {
			c.askLater(now, g, e.From)
		}
		c.advance(now, g)
	}
}

func (c *Core) claimFailed(now time.Time, e ClaimFailed) {
	for _, key := range e.Keys {
		if g, ok := c.groups[key]; ok {
			c.askLater(now, g, e.From)
		}
	}
}

// askLater repeats an open question after the retry interval.
func (c *Core) askLater(now time.Time, g *group, member string) {
	if _, open := g.asks[member]; open {
		g.asks[member] = ask{at: now.Add(c.cfg.RetryInterval)}
	}
}

// backend is the source of recovered states. No member has it for a name that
// matters: it is shown to people only.
const backend = "backend"

func (c *Core) recovered(now time.Time, e Recovered) {
	if e.Partial {
		c.recoveredPartly(now, e)
		return
	}
	for _, s := range e.States {
		if g, ok := c.groups[s.Key]; ok && g.phase == recovering {
			c.store.put(s, backend, false)
		}
	}
	for _, key := range e.Keys {
		if g, ok := c.groups[key]; ok && g.phase == recovering {
			c.start(g)
		}
	}
}

// recoveredPartly keeps what there is until everything is there, or until it is
// time to begin with that.
func (c *Core) recoveredPartly(now time.Time, e Recovered) {
	c.recoverFailed(now, e.Keys)
	for _, key := range e.Keys {
		if g, ok := c.groups[key]; ok && g.phase == recovering {
			g.part = &GroupState{Key: key}
		}
	}
	for i, s := range e.States {
		if g, ok := c.groups[s.Key]; ok && g.part != nil {
			g.part = &e.States[i]
		}
	}
}

func (c *Core) recoverFailed(now time.Time, keys []string) {
	for _, key := range keys {
		if g, ok := c.groups[key]; ok && g.phase == recovering {
			g.retryAt = now.Add(c.recoverDelay(now, g))
		}
	}
}

// recoverDelay is the time until the backends are asked again: the longer they
// have not answered, the longer.
func (c *Core) recoverDelay(now time.Time, g *group) time.Duration {
	began := g.deadline.Add(-c.cfg.RecoverTimeout)
	return max(c.cfg.RetryInterval, min(now.Sub(began)/4, c.cfg.RecoverTimeout/10))
}

// checkpointReceived keeps the states. A checkpoint of a group that this
// member owns says that the sender runs it, or did when he sent it.
func (c *Core) checkpointReceived(now time.Time, e CheckpointReceived) {
	_, present := c.view.Member(e.From)
	for _, s := range e.States {
		c.learn(e.From, s)
		g, ok := c.groups[s.Key]
		if !ok {
			continue
		}
		if present && c.owns(g) {
			c.ask(g, []string{e.From}, now)
		}
		c.advance(now, g)
	}
}
