package sharding

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// candidate is a ready member with what scoring needs of it.
type candidate struct {
	name   string
	zone   string
	weight float64
	hash   uint64
}

func newCandidate(m Member) candidate {
	return candidate{name: m.Name, zone: m.Zone, weight: m.Weight, hash: xxhash.Sum64String(m.Name)}
}

// scored is a candidate, by its index, with its score for one key. Scores are
// positive, so a score of 0 loses against every candidate's.
type scored struct {
	index int
	score float64
}

// nobody is no candidate.
var nobody = scored{index: -1}

// Owner returns the name of the ready member that evaluates the group with
// the given key, and that of the one which keeps its checkpoints. The owner is
// empty if no member is ready; the successor if there is only one. The
// successor is in another zone than the owner where any ready member is.
//
// Each member gets a pseudo-random score per key, and the highest one wins
// (rendezvous or highest-random-weight hashing: Thaler and Ravishankar, "Using
// name-based mappings to increase hit rates", IEEE/ACM Transactions on
// Networking 6(1), 1998). Weights enter by the logarithmic method of
// Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005:
// with u uniform in (0,1) the score -w/ln(u) is the greatest with a
// probability proportional to w, and depends on no other member. Hence a
// member that comes takes keys only for itself, and one that goes gives up
// only its own.
//
// Groups that the view's Costs list as heavy are spread so that no member has
// more than its share and a third, as far as that is possible.
//
// The cost is linear in the number of ready members and allocates nothing. Who
// keeps the owners of many groups from view to view takes Change.
func (v View) Owner(key string) (owner, successor string) { return v.names(v.place(Hash(key))) }

func (v *View) place(group uint64) place {
	if p, ok := v.heavy[group]; ok {
		return p
	}
	best, second, outside := nobody, nobody, nobody
	for i, c := range v.candidates {
		s := scored{i, v.score(c, group)}
		if s.score > best.score {
			if best.index >= 0 && v.candidates[best.index].zone != c.zone {
				outside = best
			}
			best, second = s, best
			continue
		}
		if s.score > second.score {
			second = s
		}
		if s.score > outside.score && c.zone != v.candidates[best.index].zone {
			outside = s
		}
	}
	if outside.index >= 0 {
		return place{best.index, outside.index}
	}
	return place{best.index, second.index}
}

func (v *View) names(p place) (owner, successor string) {
	if p.owner >= 0 {
		owner = v.candidates[p.owner].name
	}
	if p.successor >= 0 {
		successor = v.candidates[p.successor].name
	}
	return owner, successor
}

// score leaves the logarithm out where all weights are equal: -w/ln(u) grows
// with u, so the order is that of u.
func (v *View) score(c candidate, group uint64) float64 {
	u := unit(mix(c.hash ^ group))
	if v.uniform {
		return u
	}
	return weighted(u, c.weight)
}

func weighted(u, weight float64) float64 { return -weight / math.Log(u) }

// unit maps a hash to the open interval (0,1): the top 52 bits and a half, all
// exact in a float64.
func unit(h uint64) float64 {
	return (float64(h>>12) + 0.5) / (1 << 52)
}

// mix is the finaliser of SplitMix64 in David Stafford's variant 13. It is a
// bijection in which every input bit changes every output bit with a
// probability near one half, so two hashes xor-ed give scores that are
// independent between members.
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
