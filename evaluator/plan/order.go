package plan

import (
	"cmp"
	"slices"
	"time"
)

// Order puts some fragments into the order in which they are to be run, so that
// no tenant waits for another one that asks for more: those that several tenants
// need come first, then those of each tenant, of the one first that they are the
// least work for. Those of one tenant stay together and in their order, since a
// backend reads what neighbours have in common once.
//
// The fragments are indexes into the plan's, the queries are those of the plan;
// took is how long a fragment took the last time, 0 if unknown, which counts as
// much as the others do on average.
func (p *Plan) Order(fragments []int, queries []Query, took func(Fragment) time.Duration) []int {
	work, unknown := p.works(fragments, took)
	var order []int
	var shares []*share
	of := map[uint64]*share{}
	for n, i := range fragments {
		tenant, one := p.Fragments[i].tenant(queries)
		if !one {
			order = append(order, i)
			continue
		}
		s := of[tenant]
		if s == nil {
			s = &share{}
			of[tenant], shares = s, append(shares, s)
		}
		s.fragments = append(s.fragments, i)
		s.work += cmp.Or(work[n], unknown)
	}
	slices.SortStableFunc(shares, func(a, b *share) int { return cmp.Compare(a.work, b.work) })
	for _, s := range shares {
		order = append(order, s.fragments...)
	}
	return order
}

// share is what one tenant asks for.
type share struct {
	fragments []int
	work      time.Duration
}

// works are the times of fragments, and what counts for one that is unknown.
func (p *Plan) works(fragments []int, took func(Fragment) time.Duration) (work []time.Duration, unknown time.Duration) {
	work = make([]time.Duration, len(fragments))
	var sum, known time.Duration
	for n, i := range fragments {
		if work[n] = took(p.Fragments[i]); work[n] > 0 {
			sum, known = sum+work[n], known+1
		}
	}
	if known == 0 {
		return work, 1
	}
	return work, max(1, sum/known)
}

// tenant identifies the only one that needs the fragment, if there is only one.
func (f Fragment) tenant(queries []Query) (tenant uint64, one bool) {
	for n, i := range f.Consumers {
		q := queries[i]
		scope := q.Scope.Hash()
		if q.Folded || n > 0 && scope != tenant {
			return 0, false
		}
		tenant = scope
	}
	return tenant, true
}
