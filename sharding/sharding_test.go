package sharding

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestScripts runs testdata: "view" defines the members, one a line as
// "name [state] [zone=z] [weight=w] [version=v]", "costs" what groups cost, one a
// line as "key cost"; the other commands ask about that view.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var v View
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "view":
				v = NewView(parseMembers(t, d.Input))
				return v.String() + "fingerprint " + v.Fingerprint() + "\n"
			case "state":
				var name, state string
				d.ScanArgs(t, "member", &name)
				d.ScanArgs(t, "state", &state)
				v = v.WithState(name, parseState(t, state))
				return v.String()
			case "costs":
				v = v.WithCosts(parseCosts(t, d))
				return loads(v, d.Input)
			case "revise":
				var members int
				d.ScanArgs(t, "members", &members)
				return names(v.Costs().Revise(parseMeasured(t, d.Input), members).String(), d.Input)
			case "owners":
				return owners(v, strings.Fields(d.Input))
			case "spread":
				var n int
				d.ScanArgs(t, "keys", &n)
				return spread(v, n)
			default:
				d.Fatalf(t, "unknown command %q", d.Cmd)
				return ""
			}
		})
	})
}

func parseState(t *testing.T, word string) State {
	t.Helper()
	for _, s := range []State{Joining, Ready, Leaving} {
		if s.String() == word {
			return s
		}
	}
	require.FailNow(t, "unknown state", word)
	return 0
}

func parseMembers(t *testing.T, text string) []Member {
	t.Helper()
	var members []Member
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		m := Member{Name: words[0], State: Ready, Weight: 1, Version: costsVersion}
		for _, w := range words[1:] {
			switch k, val, isPair := strings.Cut(w, "="); {
			case !isPair:
				m.State = parseState(t, w)
			case k == "zone":
				m.Zone = val
			case k == "version":
				n, err := strconv.ParseUint(val, 10, 32)
				require.NoError(t, err)
				m.Version = uint32(n)
			case k == "weight":
				f, err := strconv.ParseFloat(val, 64)
				require.NoError(t, err)
				m.Weight = f
			default:
				require.FailNow(t, "unknown field", w)
			}
		}
		members = append(members, m)
	}
	return members
}

func owners(v View, keys []string) string {
	var b strings.Builder
	for _, k := range keys {
		o, s := v.Owner(k)
		fmt.Fprintf(&b, "%s: %s, %s\n", k, orNone(o), orNone(s))
	}
	return b.String()
}

func orNone(name string) string {
	if name == "" {
		return "none"
	}
	return name
}

func spread(v View, n int) string {
	owned, follows := map[string]int{}, map[string]int{}
	for _, k := range keys(n) {
		o, s := v.Owner(k)
		owned[o]++
		follows[s]++
	}
	var b strings.Builder
	for _, m := range v.Members() {
		fmt.Fprintf(&b, "%s owns %d, follows %d\n", m.Name, owned[m.Name], follows[m.Name])
	}
	return b.String()
}

func keys(n int) []string {
	ks := make([]string, n)
	for i := range ks {
		ks[i] = fmt.Sprintf("tenant-%d/namespace-%d/group-%d", i%7, i%31, i)
	}
	return ks
}

func someMembers(n int) []Member {
	ms := make([]Member, n)
	for i := range ms {
		ms[i] = Member{Name: fmt.Sprintf("evaluator-%d", i), State: Ready, Weight: 1, Version: costsVersion}
	}
	return ms
}

// naiveOwner is Owner as one would explain it: sort all ready members by
// their score, the first is the owner; the first of another zone follows, or
// else the second. It always uses the logarithm.
func naiveOwner(v View, key string) (owner, successor string) {
	ready := v.Ready()
	score := func(m Member) float64 {
		hash := newCandidate(Member{Name: key}).hash
		return -m.Weight / math.Log(unit(mix(newCandidate(m).hash^hash)))
	}
	slices.SortStableFunc(ready, func(a, b Member) int {
		if score(a) > score(b) {
			return -1
		}
		return 1
	})
	if len(ready) == 0 {
		return "", ""
	}
	for _, m := range ready[1:] {
		if m.Zone != ready[0].Zone {
			return ready[0].Name, m.Name
		}
	}
	if len(ready) == 1 {
		return ready[0].Name, ""
	}
	return ready[0].Name, ready[1].Name
}

func randomMembers(r *rand.Rand) []Member {
	ms := someMembers(r.IntN(12))
	weighted, zoned := r.IntN(2) == 0, r.IntN(2) == 0
	for i := range ms {
		ms[i].State = []State{Ready, Ready, Ready, Joining, Leaving}[r.IntN(5)]
		if weighted {
			ms[i].Weight = []float64{1, 2, 0.5, 7}[r.IntN(4)]
		}
		if zoned {
			ms[i].Zone = []string{"a", "b", "c"}[r.IntN(3)]
		}
	}
	return ms
}

func TestQuickOwnerEqualsItsNaiveTwinInAnyInputOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		ms := randomMembers(r)
		v := NewView(ms)
		r.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		shuffled := NewView(ms)
		require.Equal(t, v, shuffled, "seed %d", seed)
		for range 50 {
			key := fmt.Sprintf("key-%d", r.Uint64())
			owner, successor := v.Owner(key)
			wantOwner, wantSuccessor := naiveOwner(v, key)
			require.Equal(t, wantOwner, owner, "owner of %s, seed %d", key, seed)
			require.Equal(t, wantSuccessor, successor, "successor of %s, seed %d", key, seed)
		}
	}
}

func TestLoadIsBalancedInProportionToWeights(t *testing.T) {
	t.Parallel()
	const n = 100_000
	for _, weights := range [][]float64{
		{1, 1, 1},
		{1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		{1, 2, 4},
		{0.5, 0.25, 0.25, 3},
	} {
		ms, total := someMembers(len(weights)), 0.0
		for i, w := range weights {
			ms[i].Weight = w
			total += w
		}
		v, owned := NewView(ms), map[string]int{}
		for _, k := range keys(n) {
			o, _ := v.Owner(k)
			owned[o]++
		}
		for i, w := range weights {
			p := w / total
			// Five standard deviations of a binomial distribution.
			require.InDelta(t, n*p, owned[ms[i].Name], 5*math.Sqrt(n*p*(1-p)),
				"member %d of weights %v", i, weights)
		}
	}
}

func TestOnlyKeysOfTheChangedMemberMove(t *testing.T) {
	t.Parallel()
	const n = 10_000
	for _, members := range []int{2, 3, 5, 10, 40} {
		ms := someMembers(members)
		for i := range ms {
			ms[i].Zone = fmt.Sprintf("zone-%d", i%3)
		}
		with := NewView(ms)
		changed := ms[members/2].Name
		for _, without := range []View{
			NewView(slices.DeleteFunc(slices.Clone(ms), func(m Member) bool { return m.Name == changed })),
			with.WithState(changed, Leaving),
			with.WithState(changed, Joining),
		} {
			moved := 0
			for _, k := range keys(n) {
				before, _ := without.Owner(k)
				after, _ := with.Owner(k)
				if before != after {
					moved++
					require.Equal(t, changed, after, "key %s moved between two others", k)
				}
			}
			require.LessOrEqual(t, float64(moved), 1.2*n/float64(members), "%d members", members)
			require.Positive(t, moved)
		}
	}
}

func TestSuccessorTakesOverWhereThereAreNoZones(t *testing.T) {
	t.Parallel()
	v := NewView(someMembers(5))
	for _, k := range keys(1000) {
		owner, successor := v.Owner(k)
		next, _ := v.WithState(owner, Leaving).Owner(k)
		require.Equal(t, successor, next)
	}
}

func TestViewIsImmutable(t *testing.T) {
	t.Parallel()
	ms := someMembers(3)
	v := NewView(ms)
	before := v.String()
	ms[0].Name = "changed"
	v.Members()[1].Name = "changed"
	v.Ready()[1].Name = "changed"
	require.Equal(t, before, v.String())
}

func TestFingerprintChangesWithEveryField(t *testing.T) {
	t.Parallel()
	base := Member{Name: "a", Zone: "z", Weight: 1, State: Ready, HTTPAddress: "h", GRPCAddress: "g", Version: 1}
	seen := map[string]bool{NewView([]Member{base}).Fingerprint(): true}
	for _, change := range []func(*Member){
		func(m *Member) { m.Name = "b" },
		func(m *Member) { m.Zone = "y" },
		func(m *Member) { m.Weight = 2 },
		func(m *Member) { m.State = Leaving },
		func(m *Member) { m.HTTPAddress = "i" },
		func(m *Member) { m.GRPCAddress = "i" },
		func(m *Member) { m.Version = 2 },
	} {
		m := base
		change(&m)
		f := NewView([]Member{m}).Fingerprint()
		require.False(t, seen[f], "%s", m)
		seen[f] = true
	}
	require.Empty(t, View{}.Fingerprint())
	require.Empty(t, NewView(nil).Fingerprint())
}

func TestWeightsThatAreNoCapacityCountAsOne(t *testing.T) {
	t.Parallel()
	for _, w := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		m, ok := NewView([]Member{{Name: "a", Weight: w}}).Member("a")
		require.True(t, ok)
		require.InDelta(t, 1.0, m.Weight, 0)
	}
}

func BenchmarkOwner(b *testing.B) {
	ks := keys(100_000)
	for _, members := range []int{3, 100} {
		for _, weighted := range []bool{false, true} {
			ms := someMembers(members)
			if weighted {
				ms[0].Weight = 2
			}
			v := NewView(ms)
			b.Run(fmt.Sprintf("members=%d/weighted=%v", members, weighted), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					for _, k := range ks {
						v.Owner(k)
					}
				}
			})
		}
	}
}
