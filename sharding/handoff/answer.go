package handoff

import (
	"slices"
	"time"
)

// This file is the side that runs groups and gives them up.

func (c *Core) committed(committed []GroupState) {
	for _, s := range committed {
		if g, ok := c.groups[s.Key]; ok && g.active() {
			c.store.put(s, c.cfg.Self, true)
			c.checkpoint(g)
		}
	}
}

// answer is a claim of another member that waits for groups to stop.
type answer struct {
	id    uint64
	keys  []string
	waits map[string]bool
	// stopped are those that it does not wait for any more: what is known of them
	// is the newest there is.
	stopped map[string]bool
	until   time.Time
}

func (c *Core) claimReceived(now time.Time, e ClaimReceived) {
	a := &answer{
		id:      e.ID,
		keys:    slices.Clone(e.Keys),
		waits:   map[string]bool{},
		stopped: map[string]bool{},
		until:   now.Add(c.cfg.AnswerTimeout),
	}
	slices.Sort(a.keys)
	a.keys = slices.Compact(a.keys)
	_, present := c.view.Member(e.From)
	for _, key := range a.keys {
		g, ok := c.groups[key]
		switch {
		case !ok:
		case c.owns(g) && present:
			c.ask(g, []string{e.From}, now.Add(c.cfg.RetryInterval))
		case !c.owns(g) && g.active():
			a.waits[key] = true
			if g.phase == running {
				c.stop(g, StopClaimed)
			}
		}
	}
	c.answers = append(c.answers, a)
	c.finishAnswers(now)
}

// finishAnswers answers the claims that wait for nothing, or waited too long.
func (c *Core) finishAnswers(now time.Time) {
	c.answers = slices.DeleteFunc(c.answers, func(a *answer) bool {
		if len(a.waits) > 0 && now.Before(a.until) {
			return false
		}
		c.out.answers = append(c.out.answers, Answer{ID: a.id, States: c.released(a)})
		return true
	})
}

// released gives the states of those groups that this member does not run and
// is not about to.
func (c *Core) released(a *answer) []GroupState {
	var given []GroupState
	for _, key := range a.keys {
		g, ok := c.groups[key]
		if ok && (c.owns(g) || g.active()) {
			continue
		}
		state, _ := c.store.get(key)
		state.Outdated = state.known() && ok && g.outdated && !a.stopped[key]
		given = append(given, state)
	}
	return given
}

// stopped keeps the final state. If nobody waits for it with a claim, it goes
// to the owner of its own accord.
func (c *Core) stopped(now time.Time, state GroupState) {
	g, ok := c.groups[state.Key]
	if !ok || g.phase != stopping {
		return
	}
	g.phase = idle
	c.store.put(state, c.cfg.Self, true)
	g.outdated = !c.concerns(g)
	claimed := false
	for _, a := range c.answers {
		if a.waits[state.Key] {
			claimed = true
			a.stopped[state.Key] = true
			delete(a.waits, state.Key)
		}
	}
	if !claimed && !c.owns(g) {
		c.checkpoint(g)
	}
	c.finishAnswers(now)
	c.advance(now, g)
	if !g.loaded {
		c.forgetRemoved()
	}
}
