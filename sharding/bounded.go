package sharding

import "math"

const (
	// slack is how much more than its fair share a member may be given of heavy
	// groups and its part of the others together, as a fraction.
	slack = 1.0 / 3
	// steps is how finely a member's part of the light groups is reduced.
	steps = 16
)

// place is where a group belongs, by index of candidates; -1 is nowhere.
type place struct{ owner, successor int }

// placeHeavy gives each heavy group to the candidate with the highest score for
// it that has room for it, the heaviest group first: consistent hashing with
// bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018), over rendezvous
// scores in place of a ring. A group that fits nowhere goes to where it leaves
// the least load. The room of a candidate is its share of all costs, by weight,
// and a third more; its part of the light groups is in it from the start.
//
// Candidates come and go and nothing else changes, so mostly a group stays where
// it is: the bound is met by chance already, and only what exceeds it is moved.
func (v *View) placeHeavy() {
	if len(v.costs.heavy) == 0 || len(v.candidates) == 0 {
		return
	}
	v.heavy = make(map[uint64]place, len(v.costs.heavy))
	loads := newLoads(v.candidates, v.costs)
	for _, h := range v.costs.heavy {
		owner := v.bestWithRoom(h, loads)
		loads[owner].load += h.Cost
		v.heavy[h.Group] = place{owner: owner, successor: v.successorOf(owner, h.Group)}
	}
	v.lighten(loads)
}

// load is what a candidate has and may have.
type load struct {
	weight float64
	// light is its part of the light groups, counted in load.
	light, load, room uint64
}

func newLoads(candidates []candidate, costs Costs) []load {
	var weights float64
	for _, c := range candidates {
		weights += c.weight
	}
	loads := make([]load, len(candidates))
	for i, c := range candidates {
		share := c.weight / weights
		light := uint64(share * float64(costs.others))
		room := uint64((1 + slack) * share * float64(costs.total()))
		loads[i] = load{weight: c.weight, light: light, load: light, room: room}
	}
	return loads
}

// bestWithRoom is the owner of a heavy group.
func (v *View) bestWithRoom(h Heavy, loads []load) int {
	best, least := -1, 0
	var bestScore, leastLoad float64 = 0, math.Inf(1)
	for i, c := range v.candidates {
		after := loads[i].load + h.Cost
		if relative := float64(after) / loads[i].weight; relative < leastLoad {
			least, leastLoad = i, relative
		}
		if after > loads[i].room {
			continue
		}
		if s := v.score(c, h.Group); s > bestScore {
			best, bestScore = i, s
		}
	}
	if best < 0 {
		return least
	}
	return best
}

// successorOf is the candidate with the highest score in another zone than the
// owner's, or of all others where there is none.
func (v *View) successorOf(owner int, group uint64) int {
	inside, outside := nobody, nobody
	for i, c := range v.candidates {
		if i == owner {
			continue
		}
		to := &inside
		if c.zone != v.candidates[owner].zone {
			to = &outside
		}
		if s := v.score(c, group); s > to.score {
			*to = scored{index: i, score: s}
		}
	}
	if outside.index >= 0 {
		return outside.index
	}
	return inside.index
}

// lighten gives light groups away where heavy ones leave no room for a
// candidate's part of them.
func (v *View) lighten(loads []load) {
	v.uniform = true
	for i, l := range loads {
		if l.load > l.room {
			spare := float64(l.light) - float64(l.load-l.room)
			part := math.Floor(steps * spare / float64(max(l.light, 1)))
			v.candidates[i].weight *= max(part, 1) / steps
		}
		v.uniform = v.uniform && v.candidates[i].weight == v.candidates[0].weight
	}
}
