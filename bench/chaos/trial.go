package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tocsin-rules/tocsin/bench/chaos/fleet"
	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
	"github.com/tocsin-rules/tocsin/bench/chaos/verdict"
)

const (
	groups = 12
	// settleBound is how long it may take until every group has one place
	// again, on a loaded machine.
	settleBound = 90 * time.Second
	look        = 100 * time.Millisecond
	// catchUpBound is how long repeating what was missed may take at the end.
	catchUpBound = 3 * time.Minute
	// told is how long after the begin of a fault everybody has been told of
	// its end: half a period, detection, resolution and delivery.
	told = signal.Period/2 + time.Minute
)

// trial is one run: a fleet that faults happen to, and one beside it, over the
// same data, that is left in peace.
type trial struct {
	subject, control *fleet.Fleet
	hooks            [2]*webhook
	hosts            *fleet.Hosts
	random           *rand.Rand
	log              io.Writer
	result           result
	// began is when both fleets were there.
	began time.Time
}

// result is what a trial found.
type result struct {
	name                  string
	members               int
	faults                int
	took                  time.Duration
	slots, slotsMissing   int
	recorded, alerts      verdict.Samples
	resets                int
	notifications         verdict.Notifications
	takeovers             []time.Duration // from a death on
	handovers             []time.Duration // how late the first slot is after leaving
	duplicates, givenUp   float64
	repeated, ruleFailure float64
}

// setup says what a trial needs.
type setup struct {
	name    string
	members int
	// initial members, all if 0.
	initial int
	hosts   bool
	seed    uint64
}

func newTrial(ctx context.Context, o options, s setup) (t *trial, err error) {
	t = &trial{random: rand.New(rand.NewPCG(s.seed, 0)), log: os.Stderr, result: result{name: s.name, members: s.members}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	host := "127.0.0.1"
	if s.hosts {
		if t.hosts, err = fleet.NewHosts(s.members); err != nil {
			return t, err
		}
		host = t.hosts.Gateway()
	}
	for i := range t.hooks {
		if t.hooks[i], err = newWebhook(host); err != nil {
			return t, err
		}
	}
	cfg := fleet.Config{Name: "subject", Tocsin: o.tocsin, Members: s.members, Alertmanagers: 2, Groups: groups, Webhook: t.hooks[0].url(), Hosts: t.hosts}
	if t.subject, err = newFleet(o, s, cfg); err != nil {
		return t, err
	}
	cfg.Name, cfg.Members, cfg.Alertmanagers, cfg.Webhook, cfg.Hosts = "control", 1, 1, t.hooks[1].url(), nil
	if t.control, err = newFleet(o, s, cfg); err != nil {
		return t, err
	}
	return t, t.start(ctx, s)
}

func newFleet(o options, s setup, cfg fleet.Config) (*fleet.Fleet, error) {
	cfg.Dir = filepath.Join(o.dir, s.name, cfg.Name)
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	return fleet.New(cfg)
}

func (t *trial) start(ctx context.Context, s setup) error {
	for _, f := range []*fleet.Fleet{t.control, t.subject} {
		if err := f.StartStores(ctx); err != nil {
			return err
		}
	}
	src := newSource(time.Now().Add(-ahead), t.targets())
	fill := func() error { return src.fill(ctx, time.Now().Add(prelude)) }
	if err := fill(); err != nil {
		return err
	}
	initial := s.initial
	if initial == 0 {
		initial = s.members
	}
	indexes := make([]int, initial)
	for i := range indexes {
		indexes[i] = i
	}
	if err := errors.Join(t.control.StartMembers(ctx, 0), t.subject.StartMembers(ctx, indexes...)); err != nil {
		return err
	}
	if err := errors.Join(t.settled(ctx, t.control), fill(), t.settled(ctx, t.subject), fill()); err != nil {
		return err
	}
	t.began = time.Now()
	src.peace = src.filled()
	go src.run(ctx)
	go t.subject.Watch(ctx)
	if err := pause(ctx, time.Until(src.peace)); err != nil {
		return err
	}
	t.say("%s: %d members run", s.name, initial)
	return nil
}

func (t *trial) targets() []target {
	var all []target
	for _, f := range []*fleet.Fleet{t.control, t.subject} {
		for _, c := range signal.Clusters() {
			all = append(all, target{c, f.Backends[c].URL})
		}
	}
	return all
}

func (t *trial) close() error {
	var errs []error
	for _, f := range []*fleet.Fleet{t.subject, t.control} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	for _, h := range t.hooks {
		if h != nil {
			_ = h.listener.Close()
		}
	}
	if t.hosts != nil {
		t.hosts.Close()
	}
	return errors.Join(errs...)
}

func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(t.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// wanted is the number of groups that a fleet evaluates.
const wanted = groups*2 + groups/6

// settled waits until every group runs in one place and is on time, and every
// member runs some.
func (t *trial) settled(ctx context.Context, f *fleet.Fleet) error {
	return until(ctx, settleBound, func() error {
		places, err := f.Places(ctx)
		if err != nil {
			return err
		}
		busy := map[string]bool{}
		for key, runs := range places {
			if len(runs) != 1 {
				return fmt.Errorf("group %s runs at %d places", key, len(runs))
			}
			if late := time.Since(runs[0].LastSlot); late > 3*signal.Interval {
				return fmt.Errorf("group %s is %s late", key, late)
			}
			busy[runs[0].Member] = true
		}
		if len(places) != wanted || len(busy) != len(f.Members()) {
			return fmt.Errorf("%d groups run on %d of %d members", len(places), len(busy), len(f.Members()))
		}
		return nil
	})
}

// until polls until f returns no error.
func until(ctx context.Context, bound time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", bound, err)
		}
	}
}

// moves are the times that groups of a member take to move.
type moves struct {
	// since the member was removed, until another member evaluated a new slot.
	since []time.Duration
	// late is how old that slot was by then.
	late []time.Duration
}

// moved times how long each group of a member takes until another member has
// evaluated it, beginning with act, which removes the member.
func (t *trial) moved(ctx context.Context, member string, act func() error) (moves, error) {
	var m moves
	before, err := t.subject.Places(ctx)
	if err != nil {
		return m, err
	}
	waiting := map[string]time.Time{}
	for key, runs := range before {
		for _, r := range runs {
			if r.Member == member {
				waiting[key] = r.LastSlot
			}
		}
	}
	began := time.Now()
	if err := act(); err != nil {
		return m, err
	}
	err = until(ctx, settleBound, func() error {
		now, err := t.subject.Places(ctx)
		if err != nil {
			return err
		}
		for key, last := range waiting {
			i := slices.IndexFunc(now[key], func(r fleet.Run) bool { return r.Member != member && r.LastSlot.After(last) })
			if i < 0 {
				continue
			}
			m.since = append(m.since, time.Since(began))
			m.late = append(m.late, time.Since(now[key][i].LastSlot))
			delete(waiting, key)
		}
		if len(waiting) > 0 {
			return fmt.Errorf("%d groups of %s are not evaluated", len(waiting), member)
		}
		return nil
	})
	return m, err
}

// judge waits until what began meanwhile is over and what was missed is
// repeated, and compares.
func (t *trial) judge(ctx context.Context) error {
	t.say("%s: waiting for the alerts that began to end", t.result.name)
	if err := errors.Join(t.settled(ctx, t.subject), pause(ctx, told)); err != nil {
		return err
	}
	w := verdict.Window{From: t.began, Until: time.Now().Add(-3 * signal.Interval)}
	err := until(ctx, catchUpBound, func() error {
		if err := t.compare(ctx, w); err != nil {
			return err
		}
		if t.result.recorded.Missing > 0 {
			return fmt.Errorf("%d samples are missing", t.result.recorded.Missing)
		}
		return nil
	})
	if err != nil {
		t.say("%s: %s", t.result.name, err)
	}
	t.result.took = w.Until.Sub(w.From).Round(time.Second)
	counters := t.subject.Counters()
	t.result.duplicates = counters[`tocsin_ruler_rejected_samples_total{reason="duplicate_value"}`]
	t.result.givenUp = counters["prometheus_rule_group_iterations_missed_total"]
	t.result.repeated = counters["tocsin_ruler_repeated_slots_total"]
	t.result.ruleFailure = counters["prometheus_rule_evaluation_failures_total"]
	return nil
}

func (t *trial) compare(ctx context.Context, w verdict.Window) error {
	want, err := read(ctx, t.control, w)
	if err != nil {
		return err
	}
	got, err := read(ctx, t.subject, w)
	if err != nil {
		return err
	}
	r := &t.result
	r.slots, r.slotsMissing = verdict.Slots(want.recorded, got.recorded)
	r.recorded = verdict.CompareSamples(want.recorded, got.recorded)
	r.alerts = verdict.CompareSamples(want.alerts, got.alerts)
	r.resets = verdict.Resets(want.alerts, got.alerts)
	r.notifications = verdict.CompareNotifications(t.hooks[1].received(), t.hooks[0].received(),
		verdict.Window{From: w.From, Until: w.Until.Add(-told)})
	return nil
}
