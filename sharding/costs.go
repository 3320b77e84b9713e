package sharding

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

const (
	// heavyShare is the part of a member's fair share from which on a group is
	// heavy: up to here chance spreads groups well enough. A hundred groups of
	// this size on each member differ by a tenth between members.
	heavyShare = 1.0 / 100
	// MaxHeavy bounds the heavy groups; the heaviest ones count.
	MaxHeavy = 4096
	// tolerance is by how much what was agreed on may be wrong, as a part of it,
	// before it is agreed on anew. It keeps small changes from moving groups.
	tolerance = 0.25
	// forget is the part of the threshold under which a heavy group is heavy no
	// longer, so that one near the threshold doesn't come and go.
	forget = 0.5
	// maxCost keeps sums of costs in 64 bits.
	maxCost = 1 << 48
)

// Heavy is a group that costs much more than most.
type Heavy struct {
	// Group is the Hash of the group's key.
	Group uint64
	// Cost is what the group costs in a time, in the unit of Costs.
	Cost uint64
}

// Costs is what the members have agreed on that groups cost. The heavy groups
// are listed, all others are one sum, because chance spreads them evenly. It is
// immutable; the zero value knows nothing.
//
// Ownership has to be a function of what all members share. What each measures
// is not, nor is what it has loaded: rule files reach members at different
// times. Hence one member gathers what all of them measured, revises the costs
// if they are wrong by much (Revise), and passes the next version on; a member
// takes costs that are NewerThan its own. The unit of cost is anybody's, as
// long as everybody's is the same.
type Costs struct {
	version uint64
	others  uint64
	heavy   []Heavy // the heaviest first
}

// Hash is what a group is known by in Costs.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// NewCosts returns a version of the costs: those of the heavy groups, in any
// order, and the sum of all others. Of more than MaxHeavy groups the lightest
// are added to the others.
func NewCosts(version, others uint64, heavy []Heavy) Costs {
	sorted := slices.Clone(heavy)
	for i := range sorted {
		sorted[i].Cost = min(sorted[i].Cost, maxCost)
	}
	slices.SortFunc(sorted, func(a, b Heavy) int {
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Group, b.Group))
	})
	c := Costs{version: version, others: min(others, maxCost), heavy: sorted[:min(len(sorted), MaxHeavy)]}
	for _, h := range sorted[len(c.heavy):] {
		c.others = min(c.others+h.Cost, maxCost)
	}
	return c
}

// Version counts the revisions; 0 is that of the zero value.
func (c Costs) Version() uint64 { return c.version }

// Others is the cost of all groups that are not heavy.
func (c Costs) Others() uint64 { return c.others }

// Heavy returns the heavy groups, the heaviest first. The slice is a copy.
func (c Costs) Heavy() []Heavy { return slices.Clone(c.heavy) }

// NewerThan orders all costs there may be, those of one version too, which two
// members make at the two sides of a partition.
func (c Costs) NewerThan(o Costs) bool {
	return cmp.Or(
		cmp.Compare(c.version, o.version),
		cmp.Compare(c.others, o.others),
		slices.CompareFunc(c.heavy, o.heavy, func(a, b Heavy) int {
			return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Group, b.Group))
		}),
	) > 0
}

func (c Costs) total() uint64 {
	total := c.others
	for _, h := range c.heavy {
		total += h.Cost
	}
	return total
}

// Revise returns the costs that fit what was measured, in a cluster of the given
// number of members; the same costs if they still fit. measured has every group
// that there is; one at 0 could not be measured, as one that has just moved, and
// keeps what was agreed on.
func (c Costs) Revise(measured map[uint64]uint64, members int) Costs {
	now := maps.Clone(measured)
	for _, h := range c.heavy {
		if cost, ok := now[h.Group]; ok && (cost == 0 || near(h.Cost, cost)) {
			now[h.Group] = h.Cost
		}
	}
	next := c.split(now, members)
	if near(c.others, next.others) {
		next.others = c.others
	}
	if next.others == c.others && slices.Equal(next.heavy, c.heavy) {
		return c
	}
	return next
}

// split makes the next version out of the costs of all groups. What was heavy
// before stays so a little longer.
func (c Costs) split(all map[uint64]uint64, members int) Costs {
	var total, others uint64
	for _, cost := range all {
		total += min(cost, maxCost)
	}
	threshold := float64(total) / float64(max(members, 1)) * heavyShare
	before := make(map[uint64]bool, len(c.heavy))
	for _, h := range c.heavy {
		before[h.Group] = true
	}
	var heavy []Heavy
	for group, cost := range all {
		limit := threshold
		if before[group] {
			limit *= forget
		}
		if cost > 0 && float64(cost) >= limit {
			heavy = append(heavy, Heavy{Group: group, Cost: cost})
		} else {
			others += cost
		}
	}
	return NewCosts(c.version+1, others, heavy)
}

// near tells whether a cost may go on standing for another one.
func near(agreed, measured uint64) bool {
	return math.Abs(float64(measured)-float64(agreed)) <= tolerance*float64(agreed)
}

// String gives the version, then the heavy groups and the others, one a line.
func (c Costs) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "costs version %d\n", c.version)
	for _, h := range c.heavy {
		fmt.Fprintf(&b, "%016x %d\n", h.Group, h.Cost)
	}
	fmt.Fprintf(&b, "others %d\n", c.others)
	return b.String()
}
