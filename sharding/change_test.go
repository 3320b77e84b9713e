package sharding

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutate changes a view as a cluster does: members come, go, change state, zone
// or weight, costs are agreed on anew.
func mutate(r *rand.Rand, v View) View {
	ms := v.Members()
	switch r.IntN(5) {
	case 0:
		ms = append(ms, Member{Name: fmt.Sprintf("new-%d", r.IntN(100)), Zone: string(rune('a' + r.IntN(3))), State: Ready, Version: costsVersion})
	case 1:
		if len(ms) > 0 {
			i := r.IntN(len(ms))
			ms = append(ms[:i], ms[i+1:]...)
		}
	case 2:
		if len(ms) > 0 {
			ms[r.IntN(len(ms))].State = []State{Joining, Ready, Leaving}[r.IntN(3)]
		}
	case 3:
		if len(ms) > 0 {
			m := &ms[r.IntN(len(ms))]
			m.Zone, m.Weight = string(rune('a'+r.IntN(3))), float64(1+r.IntN(2))
		}
	case 4:
		return v.WithCosts(v.Costs().Revise(randomCosts(r, 100), len(ms)))
	}
	return NewView(ms).WithCosts(v.Costs())
}

func TestQuickAChangeGivesTheOwnersOfTheNewView(t *testing.T) {
	t.Parallel()
	kept := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 4))
		v := NewView(randomMembers(r))
		for range 10 {
			next := mutate(r, v)
			change := v.ChangeTo(next)
			for i := range 40 {
				key := fmt.Sprintf("group-%d", i)
				owner, successor := v.Owner(key)
				wantOwner, wantSuccessor := next.Owner(key)
				gotOwner, gotSuccessor := change.Owner(key, owner, successor)
				require.Equal(t, [2]string{wantOwner, wantSuccessor}, [2]string{gotOwner, gotSuccessor}, "seed %d\n%s->\n%s", seed, v, next)
				if change.stays(Hash(key), owner, successor) {
					kept++
				}
			}
			v = next
		}
	}
	require.Greater(t, kept, 300*10*40/10, "often nothing has to be computed, in small clusters too")
}

// BenchmarkChange finds the owners of 100,000 groups in a cluster of 1,000
// members in three zones, of which one comes or goes.
func BenchmarkChange(b *testing.B) {
	ks := keys(100_000)
	for _, heavy := range []int{0, 1000} {
		b.Run(fmt.Sprintf("heavy=%d", heavy), func(b *testing.B) {
			ms := someMembers(1000)
			for i := range ms {
				ms[i].Zone = fmt.Sprintf("zone-%d", i%3)
			}
			all := map[uint64]uint64{}
			for i, k := range ks {
				all[Hash(k)] = 100
				if i < heavy {
					all[Hash(k)] = 2000
				}
			}
			with := NewView(ms)
			if heavy > 0 {
				with = with.WithCosts(with.Costs().Revise(all, len(ms)))
			}
			views := []View{with, NewView(ms[1:]).WithCosts(with.Costs())}
			type owned struct{ owner, successor string }
			owners := make([]owned, len(ks))
			for i, k := range ks {
				owners[i].owner, owners[i].successor = with.Owner(k)
			}
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				from, members := views[i%2], ms
				if i%2 == 0 {
					members = ms[1:]
				}
				change := from.ChangeTo(NewView(members).WithCosts(with.Costs()))
				for j, k := range ks {
					owners[j].owner, owners[j].successor = change.Owner(k, owners[j].owner, owners[j].successor)
				}
			}
		})
	}
}
