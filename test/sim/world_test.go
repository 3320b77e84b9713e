package sim_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/sharding"
)

// world is a whole cluster in one bubble of virtual time: real rulers, and
// between them a network, gossip and backends made of function calls, which
// delay, lose, repeat and fail as they are told.
type world struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // the life of the world

	// careful means that what happens leaves enough members and backends
	// that no slot is late, so that alerts have to be exact, too.
	careful bool

	mu sync.Mutex
	// seed and drawn decide what chance brings; each thing that chance decides
	// draws for itself, whatever else goes on.
	seed    uint64
	drawn   map[string]uint64
	members map[string]*member
	loss    float64
	// cut holds directions in which nothing passes: from, to.
	cut      map[[2]string]bool
	backends [backends]backend
	groups   []rule.Group
	edits    int
	sent     []alert.Notification
	// faults are promises broken so far.
	faults []string
	// calm is since when nothing happens.
	calm time.Time
	// unowned is since when a group runs nowhere although it could.
	unowned map[string]time.Time
}

// backend is one partition of the data.
type backend struct {
	down bool
	slow time.Duration
	data map[string]*series // by text form
}

type series struct {
	metric labels.Labels
	points map[int64]float64 // by milliseconds
}

// at is the sample of a series at a time.
func (b *backend) at(name string, t time.Time) (v float64, ok bool) {
	if s := b.data[name]; s != nil {
		v, ok = s.points[t.UnixMilli()]
	}
	return v, ok
}

type member struct {
	*ruler.Ruler
	name  string
	state sharding.State
	skew  time.Duration
	// readySince is when the member became ready.
	readySince time.Time
	stop       context.CancelFunc
	ended      chan struct{}
	dead       bool
	died       time.Time
	// noticed is when each other member finds out that this one is dead.
	noticed map[string]time.Time
	// told is the fingerprint of the view that this one has.
	told string
}

func newWorld(ctx context.Context, t *testing.T, s script) *world {
	w := &world{
		t: t, ctx: ctx, careful: s.careful, seed: s.seed, drawn: map[string]uint64{}, members: map[string]*member{}, cut: map[[2]string]bool{},
		groups: groupsOf(s.groups, 0), unowned: map[string]time.Time{}, calm: time.Now(),
	}
	for i := range w.backends {
		w.backends[i].data = map[string]*series{}
	}
	return w
}

// draw returns the next number, from 0 to below 1, for what is named. The lock
// is held.
func (w *world) draw(what string) float64 {
	w.drawn[what]++
	h := fnv.New64a()
	fmt.Fprint(h, what)
	return rand.New(rand.NewPCG(w.seed, h.Sum64()^w.drawn[what])).Float64()
}

func (w *world) chance(what string, p float64) bool { return w.draw(what) < p }

func (w *world) between(what string, from, to time.Duration) time.Duration {
	return from + time.Duration(w.draw(what)*float64(to-from))
}

// broken notes a promise that was not kept.
func (w *world) broken(format string, args ...any) {
	if len(w.faults) < 20 {
		w.faults = append(w.faults, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func (w *world) logger(name string) *slog.Logger {
	if os.Getenv("TOCSIN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("member", name)
}

// join starts a member, in place of a dead one of the name if there is one.
func (w *world) join(name string) {
	w.mu.Lock()
	old := w.members[name]
	w.mu.Unlock()
	if old != nil {
		if !old.dead {
			return
		}
		<-old.ended
	}
	ctx, stop := context.WithCancel(w.ctx)
	m := &member{name: name, state: sharding.Joining, stop: stop, ended: make(chan struct{})}
	cfg := ruler.DefaultConfig()
	cfg.Member = name
	for i := range w.backends {
		cfg.Partitions = append(cfg.Partitions, labels.FromStrings("backend", backendOf(i)))
	}
	var err error
	m.Ruler, err = ruler.New(cfg, ruler.Deps{
		Evaluator: evaluator{w, name}, Writer: w, Notifier: w, Templates: w, Peers: peers{w, name}, History: history{w},
		Now:    func() time.Time { return time.Now().Add(w.skewOf(m)) },
		Logger: w.logger(name), Reg: prometheus.NewRegistry(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.members[name] = m
	groups := w.groups
	w.mu.Unlock()
	go func() {
		defer close(m.ended)
		_ = m.Run(ctx) // It ends with ctx.
	}()
	m.SetGroups(groups)
	w.gossip()
	w.after(2*time.Second, func() { w.become(m, sharding.Ready) })
}

func (w *world) skewOf(m *member) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m.skew
}

// after runs f once some time has passed.
func (w *world) after(d time.Duration, f func()) {
	go func() {
		select {
		case <-time.After(d):
			f()
		case <-w.ctx.Done():
		}
	}()
}

func (w *world) become(m *member, s sharding.State) {
	w.mu.Lock()
	if !m.dead && s > m.state {
		m.state, m.readySince = s, time.Now()
	}
	w.mu.Unlock()
}

// end waits until all members have ended.
func (w *world) end() {
	for _, m := range w.members {
		<-m.ended
	}
	synctest.Wait()
}

// crash ends a member without a word. The others find out one by one.
func (w *world) crash(name string) {
	w.mu.Lock()
	m := w.members[name]
	if m == nil || m.dead {
		w.mu.Unlock()
		return
	}
	w.bury(m, 2*time.Second, 8*time.Second)
	w.mu.Unlock()
	m.stop()
}

// bury decides when a member is missed.
func (w *world) bury(m *member, from, to time.Duration) {
	m.dead, m.died, m.noticed = true, time.Now(), map[string]time.Time{}
	for other := range w.members {
		m.noticed[other] = time.Now().Add(w.between("notice "+m.name+other, from, to))
	}
}

// leave lets a member hand over and end.
func (w *world) leave(name string) {
	w.mu.Lock()
	m := w.members[name]
	w.mu.Unlock()
	if m == nil || m.dead || m.state == sharding.Leaving {
		return
	}
	w.become(m, sharding.Leaving)
	m.Drain()
	go func() {
		select {
		case <-m.Drained():
		case <-time.After(20 * time.Second):
		case <-m.ended:
		}
		w.mu.Lock()
		if !m.dead {
			w.bury(m, 0, time.Second)
		}
		w.mu.Unlock()
		m.stop()
	}()
}

// alive are the members that run, sorted by name.
func (w *world) alive() []*member {
	var list []*member
	for _, name := range slices.Sorted(maps.Keys(w.members)) {
		if m := w.members[name]; !m.dead {
			list = append(list, m)
		}
	}
	return list
}

// viewOf is what gossip would tell a member now. Members hear of each other
// over any chain of links that work in both directions.
func (w *world) viewOf(m *member) sharding.View {
	reached := map[string]bool{m.name: true}
	for queue := []string{m.name}; len(queue) > 0; queue = queue[1:] {
		for _, other := range w.alive() {
			if !reached[other.name] && !w.cut[[2]string{queue[0], other.name}] && !w.cut[[2]string{other.name, queue[0]}] {
				reached[other.name] = true
				queue = append(queue, other.name)
			}
		}
	}
	var seen []sharding.Member
	for _, other := range w.members {
		missed := other.dead && time.Now().After(other.noticed[m.name])
		if !missed && (reached[other.name] || other.dead) {
			seen = append(seen, sharding.Member{Name: other.name, State: other.state, Weight: 1, GRPCAddress: other.name})
		}
	}
	return sharding.NewView(seen)
}

// gossip tells some members what there is to know.
func (w *world) gossip() {
	type news struct {
		m *member
		v sharding.View
	}
	var all []news
	w.mu.Lock()
	for _, m := range w.alive() {
		if v := w.viewOf(m); w.chance("gossip "+m.name, 0.5) && v.Fingerprint() != m.told {
			m.told = v.Fingerprint()
			all = append(all, news{m, v})
		}
	}
	w.mu.Unlock()
	for _, n := range all {
		n.m.SetView(n.v)
	}
}

// edit changes the rules of all members, of each at its own time.
func (w *world) edit(n int) {
	w.mu.Lock()
	w.edits++
	w.groups = groupsOf(len(w.groups), n)
	groups := w.groups
	type change struct {
		m     *member
		after time.Duration
	}
	var all []change
	for _, m := range w.alive() {
		all = append(all, change{m, w.between("edit "+m.name, 0, 3*time.Second)})
	}
	edits := w.edits
	w.mu.Unlock()
	for _, c := range all {
		w.after(c.after, func() {
			w.mu.Lock()
			stale := edits != w.edits
			w.mu.Unlock()
			if !stale {
				c.m.SetGroups(groups)
			}
		})
	}
}

// Send implements ruler.Notifier.
func (w *world) Send(_ string, ns ...alert.Notification) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, ns...)
}

// Expander implements ruler.Templates.
func (w *world) Expander(context.Context, rule.Group, string, time.Time) alert.Expander {
	return func(text string, _ promql.Sample) (string, error) { return text, nil }
}

var errDown = errors.New("backend is away")

// store keeps a sample. One that is there with another value means that two
// members evaluated a slot and disagreed.
func (b *backend) store(s promql.Sample) (conflict string) {
	name := s.Metric.String()
	if b.data[name] == nil {
		b.data[name] = &series{s.Metric, map[int64]float64{}}
	}
	points := b.data[name].points
	if old, twice := points[s.T]; twice && math.Float64bits(old) != math.Float64bits(s.F) {
		conflict = fmt.Sprintf("%s at %s was %v and becomes %v", name, time.UnixMilli(s.T).UTC().Format("15:04:05"), old, s.F)
	}
	points[s.T] = s.F
	return conflict
}

func matches(lset labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}
