package sharding

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// parseMeasured reads lines of a key, its cost, and how many such groups there
// are if it is not one.
func parseMeasured(t *testing.T, text string) map[uint64]uint64 {
	t.Helper()
	measured := map[uint64]uint64{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		n, err := strconv.ParseUint(words[1], 10, 64)
		require.NoError(t, err)
		measured[Hash(words[0])] = n
		if len(words) > 2 {
			copies, err := strconv.Atoi(words[2])
			require.NoError(t, err)
			for i := range copies - 1 {
				measured[Hash(fmt.Sprint(words[0], i))] = n
			}
		}
	}
	return measured
}

// parseCosts reads heavy groups from the input, the others from an argument.
func parseCosts(t *testing.T, d *datadriven.TestData) Costs {
	t.Helper()
	var version, others uint64
	d.ScanArgs(t, "version", &version)
	d.ScanArgs(t, "others", &others)
	var heavy []Heavy
	for group, cost := range parseMeasured(t, d.Input) {
		heavy = append(heavy, Heavy{Group: group, Cost: cost})
	}
	return NewCosts(version, others, heavy)
}

// names puts keys in place of their hashes.
func names(text, input string) string {
	for line := range strings.Lines(input) {
		key := strings.Fields(line)[0]
		text = strings.ReplaceAll(text, fmt.Sprintf("%016x", Hash(key)), key)
	}
	return text
}

// loads shows who owns which heavy groups, what they cost together, and the
// weight that remains for the light ones.
func loads(v View, input string) string {
	text := ""
	for _, c := range v.candidates {
		var cost uint64
		var owned []string
		for line := range strings.Lines(input) {
			words := strings.Fields(line)
			if owner, _ := v.Owner(words[0]); owner == c.name {
				n, _ := strconv.ParseUint(words[1], 10, 64)
				owned, cost = append(owned, words[0]), cost+n
			}
		}
		text += fmt.Sprintf("%s has %v of cost %d, weight %v\n", c.name, owned, cost, c.weight)
	}
	return text
}

// randomCosts are of groups as they are in fleets: few cost most.
func randomCosts(r *rand.Rand, groups int) map[uint64]uint64 {
	costs := map[uint64]uint64{}
	for i := range groups {
		costs[Hash(fmt.Sprintf("group-%d", i))] = uint64(20 * math.Exp(1.2*r.NormFloat64()))
	}
	return costs
}

// naiveHeavy is placeHeavy as one would explain it.
func naiveHeavy(v View) map[uint64]string {
	full := NewView(v.Members()).candidates
	var weights float64
	for _, c := range full {
		weights += c.weight
	}
	load := map[string]uint64{}
	room := func(c candidate) uint64 {
		return uint64((1 + slack) * (c.weight / weights) * float64(v.costs.total()))
	}
	for _, c := range full {
		load[c.name] = uint64(c.weight / weights * float64(v.costs.others))
	}
	owners := map[uint64]string{}
	for _, h := range v.costs.Heavy() {
		ranked := slices.Clone(full)
		slices.SortFunc(ranked, func(a, b candidate) int {
			score := func(c candidate) float64 { return -c.weight / math.Log(unit(mix(c.hash^h.Group))) }
			return cmp.Compare(score(b), score(a))
		})
		i := slices.IndexFunc(ranked, func(c candidate) bool { return load[c.name]+h.Cost <= room(c) })
		if i < 0 {
			slices.SortFunc(ranked, func(a, b candidate) int {
				return cmp.Or(cmp.Compare(float64(load[a.name]+h.Cost)/a.weight, float64(load[b.name]+h.Cost)/b.weight), cmp.Compare(a.name, b.name))
			})
			i = 0
		}
		owners[h.Group] = ranked[i].name
		load[ranked[i].name] += h.Cost
	}
	return owners
}

func TestQuickHeavyGroupsAreWhereTheNaiveTwinPutsThem(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		ms := randomMembers(r)
		costs := Costs{}.Revise(randomCosts(r, 1+r.IntN(400)), len(ms))
		v := NewView(ms).WithCosts(costs)
		r.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		require.Equal(t, v, NewView(ms).WithCosts(costs), "seed %d", seed)
		if len(v.candidates) == 0 {
			continue
		}
		for group, owner := range naiveHeavy(v) {
			p := v.place(group)
			require.Equal(t, owner, v.candidates[p.owner].name, "seed %d", seed)
			if len(v.candidates) == 1 {
				require.Equal(t, -1, p.successor)
				continue
			}
			require.NotEqual(t, p.owner, p.successor)
			others := slices.ContainsFunc(v.candidates, func(c candidate) bool { return c.zone != v.candidates[p.owner].zone })
			require.Equal(t, others, v.candidates[p.successor].zone != v.candidates[p.owner].zone)
		}
	}
}

// spreadOf is what each member has of all costs, in parts of its fair share.
func spreadOf(v View, all map[uint64]uint64) []float64 {
	loads, total := make([]float64, len(v.candidates)), 0.0
	for group, cost := range all {
		loads[v.place(group).owner] += float64(cost)
		total += float64(cost)
	}
	for i := range loads {
		loads[i] /= total / float64(len(loads))
	}
	return loads
}

func TestLoadIsBoundedWhereChanceAloneWouldNotDo(t *testing.T) {
	t.Parallel()
	worst, worstByChance := 0.0, 0.0
	for _, members := range []int{2, 3, 5, 10, 30} {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, uint64(members)))
			all := randomCosts(r, 60*members)
			v := NewView(someMembers(members))
			worstByChance = max(worstByChance, slices.Max(spreadOf(v, all)))
			v = v.WithCosts(v.Costs().Revise(all, members))
			most := slices.Max(spreadOf(v, all))
			worst = max(worst, most)
			// The bound, and what chance does to groups that are not heavy.
			require.LessOrEqual(t, most, 1+slack+0.1, "%d members, seed %d", members, seed)
		}
	}
	require.Greater(t, worstByChance, 1.5)
	t.Logf("most that a member has, in parts of its share: %.2f, by chance alone %.2f", worst, worstByChance)
}

func TestAGroupThatIsHeavierThanAMemberLeavesItLittleElse(t *testing.T) {
	t.Parallel()
	all := map[uint64]uint64{Hash("giant"): 1000}
	for i := range 1000 {
		all[Hash(fmt.Sprintf("light-%d", i))] = 1
	}
	v := NewView(someMembers(4))
	v = v.WithCosts(v.Costs().Revise(all, 4))
	giant := v.place(Hash("giant")).owner
	for i, part := range spreadOf(v, all) {
		if i == giant {
			require.InDelta(t, 2.0, part, 0.1, "the group itself is two shares")
		} else {
			require.InDelta(t, 2.0/3, part, 0.1)
		}
	}
}

func TestFewGroupsMoveWithAMemberWhateverTheyCost(t *testing.T) {
	t.Parallel()
	for _, members := range []int{3, 5, 10, 40} {
		var moved, most float64
		const seeds = 20
		for seed := range uint64(seeds) {
			r := rand.New(rand.NewPCG(seed, uint64(members)))
			all := randomCosts(r, 100*members)
			with := NewView(someMembers(members))
			with = with.WithCosts(with.Costs().Revise(all, members))
			without := with.WithState("evaluator-1", Leaving)
			var total, changed uint64
			for group, cost := range all {
				before, _ := with.names(with.place(group))
				after, _ := without.names(without.place(group))
				total += cost
				if before != after {
					changed += cost
				}
			}
			part := float64(changed) / float64(total) * float64(members)
			moved += part / seeds
			most = max(most, part)
		}
		// A member's own load, which has to move, is up to 4/3 of a share.
		require.LessOrEqual(t, moved, 1.2, "of %d members", members)
		require.LessOrEqual(t, most, 1+slack+0.2, "of %d members", members)
		t.Logf("%d members: %.2f shares move, at most %.2f", members, moved, most)
	}
}

func TestCostsChangeNothingWhileAMemberDoesNotKnowThem(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	all := randomCosts(r, 500)
	ms := someMembers(5)
	ms[2].Version = costsVersion - 1
	ms[2].State = Leaving
	v := NewView(ms)
	costly := v.WithCosts(v.Costs().Revise(all, 5))
	for group := range all {
		require.Equal(t, v.place(group), costly.place(group))
	}
	require.NotEqual(t, v.Fingerprint(), costly.Fingerprint())
}

func TestMeasuringAgainChangesNothingUnlessCostsDo(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		all := randomCosts(r, 300)
		costs := Costs{}.Revise(all, 3)
		require.Equal(t, uint64(1), costs.Version())
		for range 20 {
			noisy := map[uint64]uint64{}
			for _, group := range slices.Sorted(maps.Keys(all)) { // The seed is to make the noise.
				noisy[group] = uint64(float64(all[group]) * (0.9 + 0.2*r.Float64()))
				if r.IntN(20) == 0 {
					noisy[group] = 0 // not measured
				}
			}
			again := costs.Revise(noisy, 3)
			require.LessOrEqual(t, again.Version(), costs.Version()+1)
			for _, h := range costs.heavy {
				i := slices.IndexFunc(again.heavy, func(o Heavy) bool { return o.Group == h.Group })
				require.GreaterOrEqual(t, i, 0, "a heavy group stays one, seed %d", seed)
				require.Equal(t, h.Cost, again.heavy[i].Cost, "at the same cost, seed %d", seed)
			}
			costs = again
		}
		require.Less(t, costs.Version(), uint64(12), "only groups near the threshold were added, seed %d", seed)
	}
}

func TestOneOfTwoCostsIsNewer(t *testing.T) {
	t.Parallel()
	h := func(group, cost uint64) []Heavy { return []Heavy{{Group: group, Cost: cost}} }
	sorted := []Costs{{}, NewCosts(1, 0, nil), NewCosts(1, 5, nil), NewCosts(1, 5, h(1, 2)), NewCosts(1, 5, h(2, 2)), NewCosts(1, 5, h(1, 3)), NewCosts(2, 0, nil)}
	for i, a := range sorted {
		for j, b := range sorted {
			require.Equal(t, i > j, a.NewerThan(b), "%v %v", a, b)
		}
	}
}

func TestCostsAreBounded(t *testing.T) {
	t.Parallel()
	heavy := make([]Heavy, MaxHeavy+10)
	for i := range heavy {
		heavy[i] = Heavy{Group: uint64(i), Cost: uint64(i + 1)}
	}
	c := NewCosts(1, 7, heavy)
	require.Len(t, c.Heavy(), MaxHeavy)
	require.Equal(t, uint64(7+55), c.Others(), "the ten lightest are no longer listed")
	huge := NewCosts(1, math.MaxUint64, []Heavy{{1, math.MaxUint64}, {2, math.MaxUint64}})
	require.Equal(t, uint64(3*maxCost), huge.total())
}
