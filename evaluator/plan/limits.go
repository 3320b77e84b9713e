package plan

import "time"

// Limits bound what evaluating something may cost, over all backends; a field
// that is 0 bounds nothing.
type Limits struct {
	// Samples read.
	Samples int64
	// Series moved from backends.
	Series int64
	// Bytes moved from backends.
	Bytes int64
	Time  time.Duration
}

// widest returns what permits everything that either of two limits permits.
func (l Limits) widest(other Limits) Limits {
	return Limits{
		Samples: wider(l.Samples, other.Samples),
		Series:  wider(l.Series, other.Series),
		Bytes:   wider(l.Bytes, other.Bytes),
		Time:    wider(l.Time, other.Time),
	}
}

func wider[T int64 | time.Duration](a, b T) T {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// limit gives each fragment and scalar the widest limits of the queries that need it: a
// query is not to fail since it shares with one that may cost less.
func (p *Plan) limit(queries []Query) *Plan {
	for i := range p.Fragments {
		p.Fragments[i].Limits = widest(queries, p.Fragments[i].Consumers)
	}
	for i := range p.Scalars {
		p.Scalars[i].Limits = widest(queries, p.Scalars[i].Consumers)
	}
	return p
}

func widest(queries []Query, consumers []int) Limits {
	l := queries[consumers[0]].Limits
	for _, c := range consumers[1:] {
		l = l.widest(queries[c].Limits)
	}
	return l
}
