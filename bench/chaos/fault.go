package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

type what int

const (
	aMember what = iota
	aBackend
	anAlertmanager
)

func (w what) String() string { return [...]string{"member", "backend", "alertmanager"}[w] }

type how int

const (
	kill how = iota
	terminate
	hang
)

func (h how) String() string { return [...]string{"is killed", "is restarted", "hangs"}[h] }

// fault happens to one process of a kind, some time after the one before it.
type fault struct {
	what  what
	index int
	how   how
	// after is the peace before it, lasts the time until it is undone.
	after, lasts time.Duration
}

func (f fault) String() string {
	return fmt.Sprintf("%s %d %s for %s", f.what, f.index, f.how, f.lasts)
}

// soakLanes are the endless sequences of faults of a soak that go on beside
// each other. They follow from the seed alone. No fault lasts as long as the
// raw series reach ahead, or as a unit is at fault.
func soakLanes(o options) []iter.Seq[fault] {
	lane := func(n uint64, next func(r *rand.Rand) fault) iter.Seq[fault] {
		return func(yield func(fault) bool) {
			r := rand.New(rand.NewPCG(o.seed, n))
			for yield(next(r)) {
			}
		}
	}
	return []iter.Seq[fault]{
		lane(1, func(r *rand.Rand) fault {
			return fault{aMember, r.IntN(3), []how{kill, kill, terminate, hang}[r.IntN(4)], seconds(r, 15, 40), seconds(r, 0, 25)}
		}),
		lane(2, func(r *rand.Rand) fault {
			return fault{aBackend, r.IntN(3), []how{kill, terminate, hang}[r.IntN(3)], seconds(r, 60, 150), seconds(r, 0, 45)}
		}),
		lane(3, func(r *rand.Rand) fault {
			return fault{anAlertmanager, 0, []how{kill, terminate, hang}[r.IntN(3)], seconds(r, 30, 90), seconds(r, 5, 60)}
		}),
		lane(4, func(r *rand.Rand) fault {
			return fault{anAlertmanager, 1, []how{kill, terminate, hang}[r.IntN(3)], seconds(r, 30, 90), seconds(r, 5, 60)}
		}),
	}
}

func seconds(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+r.IntN(to-from+1)) * time.Second
}
