package schedule

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"
)

// Limits bound what the schedule hands out.
type Limits struct {
	// Backfill is the age beyond which a missed slot is given up.
	Backfill time.Duration
	// Sequential is the number of missed slots up to which a whole group,
	// alerting rules included, catches up slot by slot. A group that is
	// further behind goes live at once, since alerts must not wait, and only
	// its recording rules are repeated for the slots in between.
	Sequential int
	// RetryMin and RetryMax bound the delay before a failed repeat is tried
	// again; it doubles from one to the other.
	RetryMin, RetryMax time.Duration
	// Repeats is the number of repeat jobs that may run at one time, so that
	// backfill never starves live slots.
	Repeats int
}

// DefaultLimits are the limits of a rule-evaluator that is told nothing else.
func DefaultLimits() Limits {
	return Limits{
		Backfill:   time.Hour,
		Sequential: 10,
		RetryMin:   time.Second,
		RetryMax:   30 * time.Second,
		Repeats:    8,
	}
}

// Group is what the schedule has to know about a rule group.
type Group struct {
	Key      string
	Interval time.Duration
	// Phase is what the group's offset is computed from, see Offset.
	Phase string
	// Recording tells for each rule, in the order of the group, whether it
	// is a recording rule. Only those are repeated.
	Recording []bool
}

// Progress is how far a group has come. It moves with the group from member
// to member.
type Progress struct {
	// Committed is the last slot that was evaluated live; zero if none was.
	Committed time.Time
	// Behind holds for each rule that lags behind Committed the first slot
	// that it still has to be evaluated for, by index of the rule.
	Behind map[int]time.Time
}

// Job is one slot of one group that is due.
type Job struct {
	Key  string
	Slot time.Time
	// Rules are the rules to evaluate, in order.
	Rules []int
	// Repeat tells a repeat of recording rules from a live slot.
	Repeat bool
}

// String is the job as tests and logs show it.
func (j Job) String() string {
	kind := "live"
	if j.Repeat {
		kind = "repeat"
	}
	return fmt.Sprintf("%s %s %s rules=%v", kind, j.Key, j.Slot.UTC().Format(time.TimeOnly), j.Rules)
}

// Outcome is how a job ended.
type Outcome struct {
	// Failed are the rules whose evaluation or write may succeed later.
	Failed []int
}

// Missed is a number of slots of one group that were given up.
type Missed struct {
	Key   string
	Slots int
}

type entry struct {
	Group
	offset time.Duration
	Progress
	paused       bool
	live, repeat bool // a job of that kind is running
	retryAt      time.Time
	retryDelay   time.Duration

	// wake is when there may be something to hand out, place where the entry
	// is in the queue, -1 if there is nothing to wait for.
	wake  time.Time
	place int
}

// Schedule holds the groups that this member evaluates. The cost of a call is
// that of the groups which it is about: those that sleep cost nothing.
type Schedule struct {
	limits Limits
	groups map[string]*entry
	queue  queue
	// running are the groups with a live slot in progress, crowded those whose
	// repeats wait for others to end.
	running map[string]*entry
	crowded map[string]*entry
	repeats int // running
}

// New returns an empty schedule.
func New(limits Limits) *Schedule {
	return &Schedule{
		limits:  limits,
		groups:  map[string]*entry{},
		running: map[string]*entry{},
		crowded: map[string]*entry{},
	}
}

// Add puts a group under the schedule, or replaces the definition of one that
// is there, which keeps its progress unless a new one is given by p. A group
// without progress starts with the slot that is current at now.
func (s *Schedule) Add(g Group, p Progress, now time.Time) []Missed {
	s.Remove(g.Key)
	e := &entry{Group: g, offset: Offset(g.Phase, g.Interval), Progress: clone(p), place: -1}
	current := Slot(now, g.Interval, e.offset)
	switch {
	case e.Committed.IsZero():
		e.Committed = current.Add(-g.Interval)
	case !e.aligned(e.Committed):
		// The interval was edited: slots before the edit are not slots of
		// the new definition.
		e.Committed = Slot(e.Committed, g.Interval, e.offset)
		e.Behind = nil
	}
	s.groups[g.Key] = e
	missed := s.catchUp(e, now)
	s.settle(e)
	return missed
}

// Remove takes a group off the schedule.
func (s *Schedule) Remove(key string) {
	e, ok := s.groups[key]
	if !ok {
		return
	}
	s.stopRepeat(e)
	e.paused = true
	s.settle(e)
	delete(s.groups, key)
	delete(s.running, key)
}

// Pause hands out no more jobs of a group; those that run may still be Done.
func (s *Schedule) Pause(key string) {
	if e, ok := s.groups[key]; ok {
		e.paused = true
		s.settle(e)
	}
}

// Progress is how far the group has come; false if it is not scheduled.
func (s *Schedule) Progress(key string) (Progress, bool) {
	e, ok := s.groups[key]
	if !ok {
		return Progress{}, false
	}
	return clone(e.Progress), true
}

// Lag is the age of the oldest live slot that was handed out and is not done;
// zero if there is none.
func (s *Schedule) Lag(now time.Time) time.Duration {
	var lag time.Duration
	for _, e := range s.running {
		lag = max(lag, now.Sub(e.next()))
	}
	return lag
}

// Due hands out what can run at now, live slots first, each kind oldest first
// and then by key. What it hands out counts as running until Done. Missed
// tells which slots it gave up.
func (s *Schedule) Due(now time.Time) (jobs []Job, missed []Missed) {
	due := s.awake(now)
	for _, e := range due {
		missed = append(missed, s.catchUp(e, now)...)
		if e.live || e.next().After(now) {
			continue
		}
		e.live = true
		s.running[e.Key] = e
		jobs = append(jobs, Job{Key: e.Key, Slot: e.next(), Rules: e.liveRules()})
	}
	repeats, gaveUp := s.dueRepeats(due, now)
	for _, e := range due {
		s.settle(e)
	}
	sortJobs(jobs)
	return append(jobs, repeats...), append(missed, gaveUp...)
}

// awake takes the groups off the queue whose time has come, sorted by key.
func (s *Schedule) awake(now time.Time) []*entry {
	var due []*entry
	for len(s.queue) > 0 && !s.queue[0].wake.After(now) {
		due = append(due, heap.Pop(&s.queue).(*entry))
	}
	slices.SortFunc(due, func(a, b *entry) int { return strings.Compare(a.Key, b.Key) })
	return due
}

// settle puts a group to where it waits for what comes next.
func (s *Schedule) settle(e *entry) {
	var crowded bool
	e.wake, crowded = e.wakeUp(s.repeats >= s.limits.Repeats)
	delete(s.crowded, e.Key)
	if crowded {
		s.crowded[e.Key] = e
	}
	switch {
	case e.wake.IsZero() && e.place >= 0:
		heap.Remove(&s.queue, e.place)
	case e.wake.IsZero():
	case e.place >= 0:
		heap.Fix(&s.queue, e.place)
	default:
		heap.Push(&s.queue, e)
	}
}

// wakeUp is when the group has something to hand out, zero if that depends on
// others; crowded tells that a repeat waits for another to end.
func (e *entry) wakeUp(full bool) (wake time.Time, crowded bool) {
	if e.paused {
		return wake, false
	}
	if !e.live {
		wake = e.next()
	}
	if !e.repeatable() {
		return wake, false
	}
	if full {
		return wake, true
	}
	if wake.IsZero() || e.retryAt.Before(wake) {
		wake = e.retryAt
		if wake.IsZero() {
			wake = time.UnixMilli(0) // at once
		}
	}
	return wake, false
}

// Next is the earliest time at which Due may have something to hand out that
// it has not now; zero if never.
func (s *Schedule) Next() time.Time {
	if len(s.queue) == 0 {
		return time.Time{}
	}
	return s.queue[0].wake
}

// Done reports the outcome of a job that Due handed out. A job of a group
// that was removed or replaced meanwhile is ignored.
func (s *Schedule) Done(j Job, o Outcome, now time.Time) {
	e, ok := s.groups[j.Key]
	if !ok {
		return
	}
	if j.Repeat {
		s.doneRepeat(e, j, o, now)
		return
	}
	if !e.live || !e.next().Equal(j.Slot) {
		return
	}
	defer s.settle(e)
	e.live = false
	delete(s.running, e.Key)
	e.Committed = j.Slot
	for _, r := range o.Failed {
		e.fallBehind(r, j.Slot)
	}
	if len(o.Failed) > 0 && e.retryAt.Before(now) {
		e.retryAt = now.Add(s.limits.RetryMin)
	}
}

// String lists the groups and how far they are, for tests.
func (s *Schedule) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.groups)) {
		e := s.groups[k]
		fmt.Fprintf(&b, "%s committed=%s", k, e.Committed.UTC().Format(time.TimeOnly))
		for _, r := range sortedRules(e.Behind) {
			fmt.Fprintf(&b, " rule%d@%s", r, e.Behind[r].UTC().Format(time.TimeOnly))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// catchUp gives up what is older than the limit and lets a group that is too
// far behind go live.
func (s *Schedule) catchUp(e *entry, now time.Time) []Missed {
	if e.live {
		return nil
	}
	current := Slot(now, e.Interval, e.offset)
	behind := int(current.Sub(e.Committed)/e.Interval) - 1 // slots missed besides the current one
	tooOld := behind > 0 && e.next().Before(now.Add(-s.limits.Backfill))
	if behind <= s.limits.Sequential && !tooOld {
		return nil
	}
	first := e.next()
	e.Committed = current.Add(-e.Interval)
	for r := range e.Recording {
		e.fallBehind(r, first)
	}
	if len(e.Behind) == 0 { // only alerting rules
		return []Missed{{Key: e.Key, Slots: behind}}
	}
	return s.giveUp(e, now)
}

// giveUp drops the slots of rules that are behind by more than the limit.
func (s *Schedule) giveUp(e *entry, now time.Time) []Missed {
	oldest := Slot(now.Add(-s.limits.Backfill), e.Interval, e.offset).Add(e.Interval)
	slots := 0
	for r, from := range e.Behind {
		if !from.Before(oldest) {
			continue
		}
		slots = max(slots, int(oldest.Sub(from)/e.Interval))
		e.Behind[r] = oldest
		if oldest.After(e.handedOut()) {
			delete(e.Behind, r)
		}
	}
	if slots == 0 {
		return nil
	}
	return []Missed{{Key: e.Key, Slots: slots}}
}

func (s *Schedule) dueRepeats(due []*entry, now time.Time) (jobs []Job, missed []Missed) {
	for _, e := range due {
		if !e.repeatable() || now.Before(e.retryAt) {
			continue
		}
		missed = append(missed, s.giveUp(e, now)...)
		if e.repeatable() {
			jobs = append(jobs, e.oldestRepeat())
		}
	}
	sortJobs(jobs)
	jobs = jobs[:min(len(jobs), max(0, s.limits.Repeats-s.repeats))]
	for _, j := range jobs {
		s.groups[j.Key].repeat = true
	}
	s.repeats += len(jobs)
	return jobs, missed
}

// stopRepeat ends a repeat, which makes room for those of others.
func (s *Schedule) stopRepeat(e *entry) {
	if !e.repeat {
		return
	}
	e.repeat = false
	s.repeats--
	for _, other := range s.crowded {
		s.settle(other)
	}
}

func (s *Schedule) doneRepeat(e *entry, j Job, o Outcome, now time.Time) {
	if !e.repeat {
		return
	}
	s.stopRepeat(e)
	defer s.settle(e)
	failed := map[int]bool{}
	for _, r := range o.Failed {
		failed[r] = true
	}
	for _, r := range j.Rules {
		if !failed[r] && e.Behind[r].Equal(j.Slot) {
			e.advance(r)
		}
	}
	if len(o.Failed) == 0 {
		e.retryAt, e.retryDelay = now, 0
		return
	}
	e.retryDelay = min(max(2*e.retryDelay, s.limits.RetryMin), s.limits.RetryMax)
	e.retryAt = now.Add(e.retryDelay)
}

func (e *entry) next() time.Time { return e.Committed.Add(e.Interval) }

func (e *entry) aligned(t time.Time) bool { return Slot(t, e.Interval, e.offset).Equal(t) }

// liveRules are the rules that are not behind: those have to be evaluated in
// the order of slots, so that samples of one series are written in order.
func (e *entry) liveRules() []int {
	rules := make([]int, 0, len(e.Recording))
	for r := range e.Recording {
		if _, behind := e.Behind[r]; !behind {
			rules = append(rules, r)
		}
	}
	return rules
}

func (e *entry) fallBehind(rule int, slot time.Time) {
	if rule >= len(e.Recording) || !e.Recording[rule] {
		return
	}
	if _, behind := e.Behind[rule]; behind {
		return
	}
	if e.Behind == nil {
		e.Behind = map[int]time.Time{}
	}
	e.Behind[rule] = slot
}

// advance moves a rule that is behind to its next slot. It has caught up when
// that slot has not been evaluated live yet; while the live slot is running
// it was left out of it, so that one is still to be repeated.
func (e *entry) advance(rule int) {
	next := e.Behind[rule].Add(e.Interval)
	if next.After(e.handedOut()) {
		delete(e.Behind, rule)
		return
	}
	e.Behind[rule] = next
}

// handedOut is the last slot that was handed out to be evaluated live.
func (e *entry) handedOut() time.Time {
	if e.live {
		return e.next()
	}
	return e.Committed
}

// repeatable tells whether rules that are behind can be repeated now. They are
// not while the slot that they lack is evaluated live: they would read what
// other rules have not recorded for it yet, or are about to fail to.
func (e *entry) repeatable() bool {
	return len(e.Behind) > 0 && !e.repeat && (!e.live || e.oldestRepeat().Slot.Before(e.next()))
}

func (e *entry) oldestRepeat() Job {
	j := Job{Key: e.Key, Repeat: true}
	for _, r := range sortedRules(e.Behind) {
		slot := e.Behind[r]
		if len(j.Rules) > 0 && !slot.Before(j.Slot) {
			if slot.Equal(j.Slot) {
				j.Rules = append(j.Rules, r)
			}
			continue
		}
		j.Slot, j.Rules = slot, []int{r}
	}
	return j
}

func sortedRules(m map[int]time.Time) []int {
	rules := make([]int, 0, len(m))
	for r := range m {
		rules = append(rules, r)
	}
	sort.Ints(rules)
	return rules
}

func sortJobs(jobs []Job) {
	sort.SliceStable(jobs, func(i, j int) bool { return jobs[i].Slot.Before(jobs[j].Slot) })
}

func clone(p Progress) Progress {
	c := Progress{Committed: p.Committed}
	if len(p.Behind) > 0 {
		c.Behind = make(map[int]time.Time, len(p.Behind))
		for r, t := range p.Behind {
			c.Behind[r] = t
		}
	}
	return c
}
