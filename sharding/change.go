package sharding

// Change is the step from one view to the next, for who keeps the owners of
// many groups: it finds the new ones at the price of the members that changed,
// where asking the new view would cost that of all members.
type Change struct {
	from, to View
	// staying are the candidates of both views that score alike in both, by
	// name; gained are those of the new view that don't.
	staying map[string]int
	gained  []int
}

// ChangeTo returns the step from v to another view.
func (v View) ChangeTo(to View) *Change {
	before := make(map[string]candidate, len(v.candidates))
	for _, c := range v.candidates {
		before[c.name] = c
	}
	change := &Change{from: v, to: to, staying: make(map[string]int, len(to.candidates))}
	for i, c := range to.candidates {
		if before[c.name] == c {
			change.staying[c.name] = i
		} else {
			change.gained = append(change.gained, i)
		}
	}
	return change
}

// Owner returns what to.Owner(key) does, given what from.Owner(key) did.
func (c *Change) Owner(key, owner, successor string) (newOwner, newSuccessor string) {
	group := Hash(key)
	if c.stays(group, owner, successor) {
		return owner, successor
	}
	return c.to.names(c.to.place(group))
}

// stays tells that neither owner nor successor change. It may say no for
// nothing, never yes. The order of staying candidates is what it was, so only
// the gained ones can have come before them.
func (c *Change) stays(group uint64, owner, successor string) bool {
	_, wasHeavy := c.from.heavy[group]
	_, isHeavy := c.to.heavy[group]
	first, ownerStays := c.staying[owner]
	next, successorStays := c.staying[successor]
	if wasHeavy || isHeavy || !ownerStays || !successorStays {
		return false
	}
	for _, i := range c.gained {
		if c.takes(i, place{first, next}, group) {
			return false
		}
	}
	return true
}

// takes tells whether a candidate comes before the owner or the successor.
func (c *Change) takes(i int, p place, group uint64) bool {
	all := c.to.candidates
	score := c.to.score(all[i], group)
	if score > c.to.score(all[p.owner], group) {
		return true
	}
	outside := all[i].zone != all[p.owner].zone
	if all[p.successor].zone != all[p.owner].zone {
		return outside && score > c.to.score(all[p.successor], group)
	}
	return outside || score > c.to.score(all[p.successor], group)
}
