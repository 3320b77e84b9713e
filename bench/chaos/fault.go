package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
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

// fault happens to processes of a kind, some time after the one before it.
type fault struct {
	what what
	// index is which of them, all if it is -1.
	index int
	how   how
	// after is the peace before it, lasts the time until it is undone.
	after, lasts time.Duration
}

func (f fault) String() string {
	which := strconv.Itoa(f.index)
	if f.index == all {
		which = "(all)"
	}
	return fmt.Sprintf("%s %s %s for %s", f.what, which, f.how, f.lasts)
}

const all = -1

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
			f := fault{anAlertmanager, r.IntN(3) - 1, []how{kill, terminate, hang}[r.IntN(3)], seconds(r, 30, 90), seconds(r, 5, 60)}
			if f.index == all && f.how == kill {
				// An Alertmanager that is killed forgets whom it has told what, which
				// is for its peers to remember; all of them at once tell nobody
				// that an alert is over.
				f.how = terminate
			}
			return f
		}),
	}
}

func seconds(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+r.IntN(to-from+1)) * time.Second
}
