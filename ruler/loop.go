package ruler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

const (
	// tick is how often the handoff core is told that time passes.
	tick = 250 * time.Millisecond
	// peerTimeout bounds one message to another member.
	peerTimeout = 3 * time.Second
	// asleep is the time without a tick after which this member has to expect
	// that others have taken it for dead: less than they need for that.
	asleep = 2 * time.Second
	// recoverTimeout bounds reading what groups left in the backends.
	recoverTimeout = 20 * time.Second
)

// Ruler evaluates the groups that its member owns. Its methods are safe for
// concurrent use.
type Ruler struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	inbox   chan func()   // run by the loop, one after the other
	done    chan struct{} // closed when the loop has ended
	drained chan struct{} // closed when everything was handed over
	batches chan struct{} // a token for each batch that may be evaluated
	// batchesApart are the same for batches that are not in the common lane.
	batchesApart chan struct{}

	// Owned by the loop.
	core   *handoff.Core
	sched  *schedule.Schedule
	lanes  schedule.Lanes
	view   sharding.View
	loaded map[string]rule.Group
	// identities are those of all loaded rules.
	identities map[uint64]struct{}
	events     []handoff.Event
	claims     map[uint64]chan<- []handoff.GroupState
	claimID    uint64
	outbox     map[string]*checkpoints // by member
	work       sync.WaitGroup

	mu      sync.RWMutex // of running, which only the loop changes
	running map[string]*runner
	counts  Counts
}

// runner is a group that runs here.
type runner struct {
	*group
	since    time.Time
	from     string
	jobs     int // in progress
	edit     *rule.Group
	stopping bool
	removed  bool
}

// checkpoints are on their way to one member: one message at a time, the
// newest state of each group in the next.
type checkpoints struct {
	busy    bool
	waiting map[string]handoff.GroupState
}

// Counts sum up what a ruler has done since it started.
type Counts struct {
	// Evaluated, Repeated and Missed are numbers of slots.
	Evaluated, Repeated, Missed uint64
	// Lag is the age of the oldest slot that is due and not evaluated.
	Lag time.Duration
}

// New returns a ruler that runs nothing yet.
func New(cfg Config, deps Deps) (*Ruler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ruler: %w", err)
	}
	now := deps.Now
	if now == nil {
		now = time.Now
	}
	return &Ruler{
		cfg:     cfg,
		deps:    deps,
		log:     deps.Logger,
		now:     now,
		metrics: newMetrics(deps.Reg),
		inbox:   make(chan func()),
		done:    make(chan struct{}),
		drained: make(chan struct{}),
		batches: make(chan struct{}, cfg.Concurrency),

		batchesApart: make(chan struct{}, max(1, cfg.Concurrency/2)),

		core:    handoff.New(handoff.DefaultConfig(cfg.Member)),
		sched:   schedule.New(cfg.Limits),
		loaded:  map[string]rule.Group{},
		claims:  map[uint64]chan<- []handoff.GroupState{},
		outbox:  map[string]*checkpoints{},
		running: map[string]*runner{},
	}, nil
}

// Run evaluates until ctx ends. To hand groups over first, call Drain and wait
// for Drained.
func (r *Ruler) Run(ctx context.Context) error {
	defer r.work.Wait()
	defer close(r.done)
	due := time.NewTimer(0)
	defer due.Stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		before := r.now()
		select {
		case <-ctx.Done():
			return nil
		case f := <-r.inbox:
			f()
		case <-ticker.C:
			r.events = append(r.events, handoff.Tick{})
		case <-due.C:
		}
		if slept := r.now().Sub(before); slept > asleep {
			r.log.Warn("this member was asleep, or its clock was set: asking the others who runs its groups", "slept", slept)
			r.events = append(r.events, handoff.Woke{})
		}
		r.settle(ctx)
		r.dispatch(ctx)
		due.Reset(r.wait(r.now()))
	}
}

// wait is how long nothing is due, at most a while.
func (r *Ruler) wait(now time.Time) time.Duration {
	const while = time.Minute
	next := r.sched.Next()
	if next.IsZero() {
		return while
	}
	return min(while, max(time.Millisecond, next.Sub(now)))
}

// do runs f in the loop; it is dropped when the loop has ended.
func (r *Ruler) do(f func()) {
	select {
	case r.inbox <- f:
	case <-r.done:
	}
}

// SetGroups replaces the loaded rule groups. Groups that stay keep the state
// of every rule that keeps its identity.
func (r *Ruler) SetGroups(groups []rule.Group) {
	r.do(func() {
		loaded := make(map[string]rule.Group, len(groups))
		keys := make([]string, 0, len(groups))
		for _, g := range groups {
			loaded[g.Key] = g
			keys = append(keys, g.Key)
		}
		r.loaded, r.identities = loaded, identitiesOf(groups)
		for _, g := range groups {
			if run, ok := r.running[g.Key]; ok && run.def.String() != g.String() {
				run.edit = &g
				r.applyEdit(run)
			}
		}
		r.events = append(r.events, handoff.GroupsChanged{Keys: keys})
	})
}

// SetView tells the ruler who the members are.
func (r *Ruler) SetView(v sharding.View) {
	r.do(func() {
		r.view = v
		r.events = append(r.events, handoff.ViewChanged{View: v})
	})
}

// Claim answers another member that owns groups now, see handoff.
func (r *Ruler) Claim(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error) {
	answer := make(chan []handoff.GroupState, 1)
	r.do(func() {
		r.claimID++
		r.claims[r.claimID] = answer
		r.events = append(r.events, handoff.ClaimReceived{ID: r.claimID, From: from, Keys: keys})
	})
	select {
	case states := <-answer:
		return states, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.done:
		return nil, fmt.Errorf("member %q is gone", r.cfg.Member)
	}
}

// Checkpoint keeps states that another member leaves here.
func (r *Ruler) Checkpoint(_ context.Context, from string, states []handoff.GroupState) error {
	r.do(func() {
		r.events = append(r.events, handoff.CheckpointReceived{From: from, States: states})
	})
	return nil
}

// Drain begins to hand all groups over. The other members have to see this
// one as leaving.
func (r *Ruler) Drain() {
	r.do(func() { r.events = append(r.events, handoff.Drain{}) })
}

// Drained is closed when a drain is complete.
func (r *Ruler) Drained() <-chan struct{} { return r.drained }

// Status lists the groups that run here, sorted by key.
func (r *Ruler) Status() []GroupStatus {
	r.mu.RLock()
	defer r.mu.RUnlock()
	statuses := make([]GroupStatus, 0, len(r.running))
	for _, run := range r.running {
		s := run.status()
		s.Since, s.From = run.since, run.from
		statuses = append(statuses, s)
	}
	slices.SortFunc(statuses, func(a, b GroupStatus) int { return strings.Compare(a.Group.Key, b.Group.Key) })
	return statuses
}

// Counts returns the sums so far.
func (r *Ruler) Counts() Counts {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.counts
}

// settle gives the handoff core what has happened and does what it asks for,
// until nothing is left.
func (r *Ruler) settle(ctx context.Context) {
	for len(r.events) > 0 {
		ev := r.events[0]
		r.events = r.events[1:]
		for _, action := range r.core.Step(r.now(), ev) {
			r.perform(ctx, action)
		}
	}
}

func (r *Ruler) perform(ctx context.Context, action handoff.Action) {
	switch a := action.(type) {
	case handoff.Stop:
		r.stop(a)
	case handoff.Answer:
		r.claims[a.ID] <- a.States
		delete(r.claims, a.ID)
	case handoff.Start:
		r.start(a)
	case handoff.Claim:
		r.claim(ctx, a)
	case handoff.Recover:
		r.recover(ctx, a)
	case handoff.Checkpoint:
		r.checkpoint(ctx, a)
	case handoff.Drained:
		close(r.drained)
	}
}

func (r *Ruler) start(a handoff.Start) {
	g := newGroup(r.loaded[a.Key], r.cfg.ResendDelay)
	p, err := g.restore(a.State)
	if err != nil {
		r.log.Warn("starting a group without its state", "group", a.Key, "err", err)
	}
	r.log.Info("group starts here", "group", a.Key, "from", a.From, "slot", p.Committed)
	r.mu.Lock()
	r.running[a.Key] = &runner{group: g, since: r.now().UTC(), from: a.From}
	r.mu.Unlock()
	r.metrics.started(g)
	r.metrics.handoffs.WithLabelValues(origin(a.From)).Inc()
	r.metrics.groups.Set(float64(len(r.running)))
	r.missed(r.sched.Add(g.scheduled(), p, r.now()))
}

// origin is where a state came from, as few words.
func origin(from string) string {
	switch from {
	case "", "backend":
		return from
	default:
		return "member"
	}
}

func (r *Ruler) stop(a handoff.Stop) {
	run := r.running[a.Key]
	r.log.Info("group stops here", "group", a.Key, "reason", a.Reason.String())
	run.stopping = true
	run.removed = a.Reason == handoff.StopRemoved
	r.sched.Pause(a.Key)
	r.finishStop(run)
}

// finishStop ends a group that was asked to stop, once no slot is in progress.
func (r *Ruler) finishStop(run *runner) {
	if !run.stopping || run.jobs > 0 {
		return
	}
	key := run.def.Key
	state := r.snapshot(run)
	if p, ok := r.sched.Progress(key); ok && run.removed {
		every := func(int) bool { return true }
		r.end(run.group, every, p.Committed)
	}
	r.sched.Remove(key)
	r.mu.Lock()
	delete(r.running, key)
	r.mu.Unlock()
	r.metrics.stopped(key)
	r.metrics.groups.Set(float64(len(r.running)))
	r.events = append(r.events, handoff.Stopped{State: state})
}

func (r *Ruler) snapshot(run *runner) handoff.GroupState {
	p, _ := r.sched.Progress(run.def.Key)
	state, err := run.encode(p)
	if err != nil {
		r.log.Error("encoding the state of a group", "group", run.def.Key, "err", err)
		return handoff.GroupState{Key: run.def.Key, CommittedSlot: p.Committed}
	}
	return state
}

// applyEdit replaces the definition of a group, once no slot is in progress.
func (r *Ruler) applyEdit(run *runner) {
	if run.edit == nil || run.jobs > 0 || run.stopping {
		return
	}
	next := newGroup(*run.edit, r.cfg.ResendDelay)
	p, _ := r.sched.Progress(run.def.Key)
	next.adopt(run.group)
	gone := func(i int) bool { return !slices.Contains(next.ids, run.ids[i]) }
	r.end(run.group, gone, p.Committed)
	p.Behind = moveBehind(p.Behind, run.ids, next.ids)
	r.mu.Lock()
	run.group, run.edit = next, nil
	r.mu.Unlock()
	r.metrics.started(next)
	r.missed(r.sched.Add(next.scheduled(), p, r.now()))
}

// moveBehind finds rules that are behind at their new place in the group.
func moveBehind(behind map[int]time.Time, from, to []string) map[int]time.Time {
	moved := map[int]time.Time{}
	for i, slot := range behind {
		if n := slices.Index(to, from[i]); n >= 0 {
			moved[n] = slot
		}
	}
	return moved
}

// end marks the series of some rules of a group as ended, at the slot after the
// one given. Where another group has the rule now, its series go on there.
func (r *Ruler) end(g *group, gone func(rule int) bool, committed time.Time) {
	var series []labels.Labels
	for i, def := range g.def.Rules {
		if _, moved := r.identities[identityOf(g.def.Scope, def)]; gone(i) && !moved {
			series = append(series, g.get(i).series...)
		}
	}
	if len(series) == 0 {
		return
	}
	at := committed.Add(g.def.Interval - g.def.QueryOffset)
	unit := write.Unit(ended(series, nil, at.UnixMilli()))
	r.background(func() {
		ctx, cancel := context.WithTimeout(context.Background(), peerTimeout)
		defer cancel()
		if result := r.deps.Writer.Write(ctx, []write.Unit{unit}); result[0].Err != nil {
			r.log.Warn("marking series as ended", "err", result[0].Err)
		}
	})
}

// identitiesOf are the identities of all rules of the groups.
func identitiesOf(groups []rule.Group) map[uint64]struct{} {
	identities := map[uint64]struct{}{}
	for _, g := range groups {
		for _, def := range g.Rules {
			identities[identityOf(g.Scope, def)] = struct{}{}
		}
	}
	return identities
}

// identityOf is a hash of what the series of a rule have in common, whichever
// group it is in.
func identityOf(scope labels.Labels, def rule.Rule) uint64 {
	return xxhash.Sum64String(scope.String() + def.Identity())
}

func (r *Ruler) claim(ctx context.Context, a handoff.Claim) {
	to, ok := r.view.Member(a.To)
	if !ok {
		r.events = append(r.events, handoff.ClaimFailed{From: a.To, Keys: a.Keys, Err: "no such member"})
		return
	}
	r.background(func() {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		var ev handoff.Event
		states, err := r.deps.Peers.Claim(ctx, to.GRPCAddress, a.Keys)
		if err != nil {
			r.log.Warn("claiming groups", "member", a.To, "groups", len(a.Keys), "err", err)
			ev = handoff.ClaimFailed{From: a.To, Keys: a.Keys, Err: err.Error()}
		} else {
			ev = handoff.ClaimAnswered{From: a.To, Keys: a.Keys, States: states}
		}
		r.do(func() { r.events = append(r.events, ev) })
	})
}

// recover reads from the backends how far groups had come that no member
// knows.
func (r *Ruler) recover(ctx context.Context, a handoff.Recover) {
	loaded := r.loaded // replaced as a whole, never changed
	r.background(func() {
		ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
		defer cancel()
		groups := make([]*group, len(a.Keys))
		for i, key := range a.Keys {
			groups[i] = newGroup(loaded[key], r.cfg.ResendDelay)
		}
		events := r.recovered(ctx, groups)
		r.do(func() { r.events = append(r.events, events...) })
	})
}

// recovered says what could be read of the groups: of some everything, of some
// part, of some nothing.
func (r *Ruler) recovered(ctx context.Context, groups []*group) []handoff.Event {
	rec := recoverer{
		history:    r.deps.History,
		partitions: r.cfg.Partitions,
		backfill:   r.cfg.Limits.Backfill,
		tolerance:  r.cfg.Tolerance,
		resend:     r.cfg.ResendDelay,
	}
	progress, found := rec.recover(ctx, groups, r.now())
	committed := make([]time.Time, len(groups))
	for i, p := range progress {
		committed[i] = p.Committed
	}
	if err := rec.previous(ctx, groups, committed); err != nil {
		r.log.Warn("series of the last slots are not known, those that have ended since are not marked", "err", err)
	}
	whole, part := &handoff.Recovered{}, &handoff.Recovered{Partial: true}
	var none handoff.RecoverFailed
	for i, g := range groups {
		switch err := found[i].err; {
		case err == nil:
			r.addRecovered(whole, g, progress[i])
		case found[i].all:
			none.Keys, none.Err = append(none.Keys, g.def.Key), err.Error()
		default:
			r.addRecovered(part, g, progress[i])
			r.log.Warn("recovering a group from some of the backends only", "group", g.def.Key, "err", err)
		}
	}
	if len(none.Keys) > 0 {
		r.log.Warn("recovering groups from the backends", "groups", len(none.Keys), "err", none.Err)
	}
	return []handoff.Event{*whole, *part, none}
}

func (r *Ruler) addRecovered(to *handoff.Recovered, g *group, p schedule.Progress) {
	to.Keys = append(to.Keys, g.def.Key)
	if p.Committed.IsZero() {
		return
	}
	state, err := g.encode(p)
	if err != nil {
		r.log.Error("encoding the state of a group", "group", g.def.Key, "err", err)
		return
	}
	to.States = append(to.States, state)
}

// checkpoint leaves states with another member; nobody waits for it.
func (r *Ruler) checkpoint(ctx context.Context, a handoff.Checkpoint) {
	box, ok := r.outbox[a.To]
	if !ok {
		box = &checkpoints{waiting: map[string]handoff.GroupState{}}
		r.outbox[a.To] = box
	}
	for _, s := range a.States {
		box.waiting[s.Key] = s
	}
	r.sendCheckpoints(ctx, a.To, box)
}

func (r *Ruler) sendCheckpoints(ctx context.Context, name string, box *checkpoints) {
	to, ok := r.view.Member(name)
	if !ok {
		delete(r.outbox, name)
		return
	}
	if box.busy || len(box.waiting) == 0 {
		return
	}
	states := make([]handoff.GroupState, 0, len(box.waiting))
	for _, s := range box.waiting {
		states = append(states, s)
	}
	box.busy, box.waiting = true, map[string]handoff.GroupState{}
	r.background(func() {
		bounded, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		if err := r.deps.Peers.Checkpoint(bounded, to.GRPCAddress, states); err != nil && ctx.Err() == nil {
			r.metrics.checkpointErrors.Inc()
			r.log.Warn("leaving checkpoints with the successor", "member", name, "err", err)
		}
		r.do(func() {
			box.busy = false
			r.sendCheckpoints(ctx, name, box)
		})
	})
}

// background runs f beside the loop; Run waits for it at the end.
func (r *Ruler) background(f func()) { r.work.Go(f) }

func (r *Ruler) missed(missed []schedule.Missed) {
	for _, m := range missed {
		r.log.Warn("slots given up", "group", m.Key, "slots", m.Slots, "limit", r.cfg.Limits.Backfill)
		r.metrics.gaveUp(m.Key, m.Slots)
		r.mu.Lock()
		r.counts.Missed += uint64(m.Slots)
		r.mu.Unlock()
	}
}
