package handoff

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/sharding"
)

var (
	simulations = flag.Int("simulations", 60, "how many seeded simulations to run")
	simSeed     = flag.Uint64("seed", 0, "run only the simulation of this seed, and print its trace")
)

// TestSimulation lets random things happen to a small cluster, then gives it
// time to settle, and again. Run it with -seed to see what happened.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if *simSeed != 0 {
		simulate(t, *simSeed, true)
		return
	}
	for seed := range uint64(*simulations) {
		simulate(t, seed+1, false)
	}
}

const (
	simTick = 250 * time.Millisecond
	// simSlot is the interval of all groups.
	simSlot = 2 * time.Second
	// settleBound is how long it may take from the moment that all views agree
	// and messages flow: messages still under way, one slot until a checkpoint
	// tells of a second runner, and the claims that follow.
	settleBound = simMaxDelay + simSlot + 4*time.Second
	simMaxDelay = 2 * time.Second
)

// simulation is a world in which members come and go.
type simulation struct {
	*world
	t      *testing.T
	seed   uint64
	r      *rand.Rand
	states map[string]sharding.State
	keys   []string
	loss   float64
	booted int
	// flowing: messages arrive, and soon. calm: nothing sent before that is
	// left, either.
	flowing, calm bool
}

func simulate(t *testing.T, seed uint64, verbose bool) {
	s := &simulation{
		world:  newWorld(),
		t:      t,
		seed:   seed,
		r:      rand.New(rand.NewPCG(seed, 0)),
		states: map[string]sharding.State{},
	}
	s.delay, s.started = s.randomDelay, s.checkStart
	if verbose {
		s.trace = func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, s.now.Format("05.000 ")+format, args...)
		}
	}
	for i := range 12 {
		s.keys = append(s.keys, fmt.Sprintf("g%02d", i))
	}
	for range 1 + s.r.IntN(4) {
		s.join()
	}
	for range 4 {
		s.trouble()
		s.settle()
		s.calmChanges()
	}
}

func (s *simulation) fail(format string, args ...any) {
	s.t.Helper()
	require.FailNow(s.t, fmt.Sprintf(format, args...),
		"seed %d at %s; run with -run TestSimulation -seed %d\n%s", s.seed, s.now.Format("04:05.000"), s.seed, s)
}

// randomDelay reorders and, in trouble, loses messages.
func (s *simulation) randomDelay(string, string) (time.Duration, bool) {
	if s.flowing {
		return time.Duration(s.r.Int64N(int64(50 * time.Millisecond))), true
	}
	if s.r.Float64() < s.loss {
		return 0, false
	}
	if s.r.IntN(4) > 0 {
		return time.Duration(s.r.Int64N(int64(100 * time.Millisecond))), true
	}
	return time.Duration(s.r.Int64N(int64(simMaxDelay))), true
}

// checkStart: while nothing goes wrong a group starts from the newest state
// that any member has.
func (s *simulation) checkStart(name string, start Start) {
	if s.nodes[name].runs[start.Key].Key != "" {
		s.fail("%s starts %s, which it runs", name, start.Key)
	}
	if !s.calm {
		return
	}
	for _, other := range s.names() {
		known, _ := s.nodes[other].core.store.get(start.Key)
		if known.CommittedSlot.After(start.State.CommittedSlot) {
			s.fail("%s starts %s, though %s knows %s", name, start.State, other, known)
		}
	}
}

// join boots a member under a new name, or that of one which has gone.
func (s *simulation) join() {
	s.booted++
	name := fmt.Sprintf("m%d", s.booted%7)
	if s.nodes[name] != nil {
		return
	}
	s.boot(name)
	s.states[name] = sharding.Joining
	s.step(name, GroupsChanged{Keys: s.keys})
	s.step(name, ViewChanged{View: s.viewOf(name)})
}

// viewOf is what gossip would tell a member now, if it were quick.
func (s *simulation) viewOf(name string) sharding.View {
	var members []sharding.Member
	for _, other := range s.names() {
		if !s.isCut(name, other) {
			members = append(members, sharding.Member{Name: other, State: s.states[other], GRPCAddress: other})
		}
	}
	return sharding.NewView(members)
}

// tick lets a moment pass: messages arrive, slots end, members are told that
// time passes and what gossip knows.
func (s *simulation) tick() {
	s.now = s.now.Add(simTick)
	s.deliver()
	for _, name := range s.names() {
		n := s.nodes[name]
		if s.now.Equal(s.now.Truncate(simSlot)) {
			s.commit(name, s.now, sortedRuns(n))
		}
		for _, key := range sortedRuns(n) {
			if n.stops[key] && (s.calm || s.r.IntN(3) == 0) {
				s.finish(name, n, key)
			}
		}
		s.step(name, Tick{})
		s.deliver()
		if n.drained {
			delete(s.states, name)
			s.crash(name)
		}
	}
}

func sortedRuns(n *node) []string {
	var keys []string
	for key := range n.runs {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// trouble lasts for a while in which anything may happen, and views are late,
// wrong, and of different ages.
func (s *simulation) trouble() {
	s.flowing, s.calm, s.loss = false, false, s.r.Float64()*0.3
	for range 40 + s.r.IntN(200) {
		if s.r.IntN(8) == 0 {
			s.mishap()
		}
		for _, name := range s.names() {
			n := s.nodes[name]
			for key := range n.runs {
				n.held[key] = true
			}
			if s.r.IntN(6) == 0 {
				s.step(name, ViewChanged{View: s.viewOf(name)})
			}
		}
		s.tick()
	}
}

func (s *simulation) mishap() {
	names := s.names()
	if len(names) == 0 {
		s.join()
		return
	}
	name, other := names[s.r.IntN(len(names))], names[s.r.IntN(len(names))]
	switch s.r.IntN(9) {
	case 0, 1:
		s.join()
	case 2, 3:
		s.become(name, sharding.Ready)
	case 4:
		delete(s.states, name)
		s.crash(name)
	case 5:
		s.become(name, sharding.Leaving)
	case 6:
		if name != other {
			s.cut[[2]string{min(name, other), max(name, other)}] = s.r.IntN(2) == 0
		}
	case 7:
		s.backendDown = s.r.IntN(2) == 0
	case 8:
		s.step(name, ViewChanged{View: s.wrongView(name)})
	}
}

// become moves a member on in its life; it never goes back.
func (s *simulation) become(name string, to sharding.State) {
	if to <= s.states[name] {
		return
	}
	s.states[name] = to
	if to == sharding.Leaving {
		s.step(name, Drain{})
	}
	s.step(name, ViewChanged{View: s.viewOf(name)})
}

// wrongView leaves members out that are there, and has them in older states.
func (s *simulation) wrongView(name string) sharding.View {
	var members []sharding.Member
	for _, m := range s.viewOf(name).Members() {
		if m.Name != name && s.r.IntN(2) == 0 {
			continue
		}
		if m.Name != name && s.r.IntN(2) == 0 {
			m.State = sharding.State(1 + s.r.IntN(int(m.State)))
		}
		members = append(members, m)
	}
	return sharding.NewView(members)
}

// settle ends all trouble and waits until every group has one runner, its
// owner.
func (s *simulation) settle() {
	s.flowing, s.backendDown = true, false
	clear(s.cut)
	for _, n := range s.nodes {
		clear(n.held)
	}
	if len(s.names()) == 0 {
		s.join()
	}
	s.becomeReady()
	s.spread()
	from := s.now
	for !s.settled() {
		if s.now.Sub(from) > settleBound {
			s.fail("not settled %s after all views agreed", settleBound)
		}
		s.tick()
		s.spread()
	}
	s.calm, s.queue = true, nil
}

// becomeReady makes all that joined ready, or a new one if none has.
func (s *simulation) becomeReady() {
	for _, name := range s.names() {
		s.become(name, sharding.Ready)
	}
	if len(s.viewOf(s.names()[0]).Ready()) == 0 {
		for before := len(s.names()); len(s.names()) == before; {
			s.join()
		}
		s.becomeReady()
	}
}

// spread tells all members the truth, once.
func (s *simulation) spread() {
	for _, name := range s.names() {
		s.tell(name)
	}
	s.deliver()
}

// spreadToSome is a moment of gossip.
func (s *simulation) spreadToSome() {
	for _, name := range s.names() {
		if s.r.IntN(2) == 0 {
			s.tell(name)
		}
	}
}

func (s *simulation) tell(name string) {
	n := s.nodes[name]
	if truth := s.viewOf(name); truth.Fingerprint() != n.core.view.Fingerprint() {
		s.step(name, ViewChanged{View: truth})
	}
}

func (s *simulation) settled() bool {
	for _, key := range s.keys {
		owner, _ := s.viewOf(s.names()[0]).Owner(key)
		if !slices.Equal(s.runners(key), []string{owner}) {
			return false
		}
	}
	for _, name := range s.names() {
		st := s.nodes[name].core.Stats()
		if st.Claiming+st.Recovering+st.Stopping+st.Asked > 0 || s.states[name] == sharding.Leaving {
			return false
		}
	}
	return true
}

// calmChanges lets members join and leave in order: now everything is exact.
func (s *simulation) calmChanges() {
	for range 3 {
		names := s.names()
		if len(names) > 1 && s.r.IntN(2) == 0 {
			s.become(names[s.r.IntN(len(names))], sharding.Leaving)
		} else {
			s.join()
			for _, name := range s.names() {
				s.become(name, sharding.Ready)
			}
		}
		for range 4 {
			s.tick()
			s.spreadToSome()
		}
		for from := s.now; !s.settled(); {
			if s.now.Sub(from) > settleBound {
				s.fail("not settled %s after a change in calm", settleBound)
			}
			s.spread()
			s.tick()
		}
	}
}
