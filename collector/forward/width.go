package forward

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// width is how many requests a destination may have under way at once. Twice
// as many as before when there was more to send than they could hold, half as
// many when the destination did not take one, and otherwise as many as were
// needed.
type width struct {
	least, most int64
	now         atomic.Int64
}

func newWidth(least, most int) *width {
	w := &width{least: max(1, int64(least)), most: max(1, int64(most))}
	w.least = min(w.least, w.most)
	w.now.Store(w.least)
	return w
}

// wave is what came of the requests that were sent at once.
type wave struct {
	requests int
	// full says that no more would have fit in, away that the destination did
	// not take one of them at first.
	full, away bool
}

func (w *width) adapt(last wave) {
	next := int64(last.requests)
	switch {
	case last.away:
		next = w.now.Load() / 2
	case last.full:
		next = w.now.Load() * 2
	}
	w.now.Store(min(max(next, w.least), w.most))
}

// split divides items into lots of about the same size, each for a request of
// its own. All that is of one series is in one lot, in its order. A lot has at
// most so many items, unless it is one series alone. The items are reordered.
func split(items []item, most int) (lots [][]item) {
	if len(items) <= most {
		return [][]item{items}
	}
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(a.Number, b.Number) })
	requests := (len(items) + most - 1) / most
	size := (len(items) + requests - 1) / requests
	for len(items) > 0 {
		n := seriesWithin(items, size)
		lots = append(lots, items[:n])
		items = items[n:]
	}
	return lots
}

// seriesWithin is the number of items at the beginning that are whole series
// and, if the first is no longer, at most so many.
func seriesWithin(items []item, most int) int {
	if len(items) <= most {
		return len(items)
	}
	for n := most; n > 0; n-- {
		if items[n].Number != items[n-1].Number {
			return n
		}
	}
	next := slices.IndexFunc(items, func(it item) bool { return it.Number != items[0].Number })
	if next < 0 {
		return len(items)
	}
	return next
}
