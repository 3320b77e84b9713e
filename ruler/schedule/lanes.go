package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// maxLanes bounds how often tenants may be divided: what is slow for all of
	// them would get worse by it. It is enough to find one in thousands by halves.
	maxLanes = 16
	// A lane is given up when it was in time for that many intervals; one whose
	// only tenant was slow for longer, but not for more than calmMost.
	calmAgain, calmAlone = 3, 100
	calmMost             = time.Hour
)

// Lanes decide which tenants are evaluated in one batch: all of them, except for
// those whose rules take too long, which delay only themselves then. Nobody
// tells which of the tenants in a slow batch it is, so the batch is halved until
// a slow one is alone; those that turn out to be in time come together again.
//
// The zero value has all tenants in the common lane, 0. It is as pure as a
// Schedule.
type Lanes struct {
	of    map[string]int // tenants that are not in the common lane
	lanes map[int]*lane
	last  int
}

type lane struct {
	members int
	// alone tells that the only member was slow all by itself.
	alone bool
	// until is the slot after which the lane is given up if it was in time.
	until time.Time
}

// Evaluated is a batch that was evaluated; its tenants, each named any number of
// times, were in one lane.
type Evaluated struct {
	Slot    time.Time
	Tenants []string
	Took    time.Duration
	// Shortest and Longest are those of the intervals of its groups.
	Shortest, Longest time.Duration
}

// slow tells that the batch holds up slots: it took more than a quarter of an
// interval.
func (e Evaluated) slow() bool { return e.Took > max(time.Second, e.Shortest/4) }

// Of is the lane of a tenant.
func (l *Lanes) Of(tenant string) int { return l.of[tenant] }

// Apart is the number of tenants that are not in the common lane.
func (l *Lanes) Apart() int { return len(l.of) }

// Observe takes note of a batch. It returns the tenant that was found to be slow
// by it, if one was.
func (l *Lanes) Observe(e Evaluated) (found string) {
	if len(e.Tenants) == 0 {
		return ""
	}
	tenants := slices.Compact(slices.Sorted(slices.Values(e.Tenants)))
	in := l.lanes[l.Of(tenants[0])]
	switch {
	case !e.slow() && in != nil && e.Slot.After(in.until):
		l.giveUp(l.Of(tenants[0]))
		return ""
	case !e.slow():
		return ""
	case len(tenants) > 1:
		l.move(tenants[len(tenants)/2:])
	case in == nil || in.members > 1:
		l.move(tenants)
	}
	for _, t := range tenants {
		if at := l.lanes[l.Of(t)]; at != nil {
			at.until = e.Slot.Add(calmAgain * e.Longest)
		}
	}
	if len(tenants) > 1 {
		return ""
	}
	return l.alone(tenants[0], e)
}

// alone notes that a tenant was slow all by itself.
func (l *Lanes) alone(tenant string, e Evaluated) (found string) {
	at := l.lanes[l.Of(tenant)]
	if at == nil || at.members > 1 { // there are lanes enough
		return ""
	}
	if !at.alone {
		found = tenant
	}
	at.alone, at.until = true, e.Slot.Add(min(calmAlone*e.Longest, calmMost))
	return found
}

// move puts tenants into a new lane, if there may be one more.
func (l *Lanes) move(tenants []string) {
	if len(l.lanes) >= maxLanes {
		return
	}
	if l.of == nil {
		l.of, l.lanes = map[string]int{}, map[int]*lane{}
	}
	l.last++
	for _, t := range tenants {
		if old, ok := l.of[t]; ok {
			l.leave(old)
		}
		l.of[t] = l.last
	}
	l.lanes[l.last] = &lane{members: len(tenants)}
}

func (l *Lanes) leave(old int) {
	l.lanes[old].members--
	if l.lanes[old].members == 0 {
		delete(l.lanes, old)
	}
}

func (l *Lanes) giveUp(n int) {
	delete(l.lanes, n)
	maps.DeleteFunc(l.of, func(_ string, of int) bool { return of == n })
}

// String lists the lanes beside the common one.
func (l *Lanes) String() string {
	members := map[int][]string{}
	for _, t := range slices.Sorted(maps.Keys(l.of)) {
		members[l.of[t]] = append(members[l.of[t]], t)
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(members)) {
		fmt.Fprintf(&b, "lane %d until %s: %s", n, l.lanes[n].until.UTC().Format(time.TimeOnly), strings.Join(members[n], " "))
		if l.lanes[n].alone {
			b.WriteString(" alone")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
