package schedule

import (
	"fmt"
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
}

// Schedule holds the groups that this member evaluates.
type Schedule struct {
	limits  Limits
	groups  map[string]*entry
	keys    []string // sorted
	repeats int      // running
}

// New returns an empty schedule.
func New(limits Limits) *Schedule {
	return &Schedule{limits: limits, groups: map[string]*entry{}}
}

// Add puts a group under the schedule, or replaces the definition of one that
// is there, which keeps its progress unless a new one is given by p. A group
// without progress starts with the slot that is current at now.
func (s *Schedule) Add(g Group, p Progress, now time.Time) []Missed {
	e := &entry{Group: g, offset: Offset(g.Key, g.Interval), Progress: clone(p)}
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
	if old, ok := s.groups[g.Key]; ok {
		s.stopRepeat(old)
	} else {
		i := sort.SearchStrings(s.keys, g.Key)
		s.keys = append(s.keys, "")
		copy(s.keys[i+1:], s.keys[i:])
		s.keys[i] = g.Key
	}
	s.groups[g.Key] = e
	return s.catchUp(e, now)
}

// Remove takes a group off the schedule.
func (s *Schedule) Remove(key string) {
	e, ok := s.groups[key]
	if !ok {
		return
	}
	s.stopRepeat(e)
	delete(s.groups, key)
	i := sort.SearchStrings(s.keys, key)
	s.keys = append(s.keys[:i], s.keys[i+1:]...)
}

// Pause hands out no more jobs of a group; those that run may still be Done.
func (s *Schedule) Pause(key string) {
	if e, ok := s.groups[key]; ok {
		e.paused = true
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

// Lag is the time since the oldest live slot that is due and not done, over
// all groups; zero if nothing is due.
func (s *Schedule) Lag(now time.Time) time.Duration {
	var lag time.Duration
	for _, e := range s.groups {
		lag = max(lag, now.Sub(e.next()))
	}
	return lag
}

// Due hands out what can run at now, live slots first, each kind oldest first
// and then by key. What it hands out counts as running until Done. Missed
// tells which slots it gave up.
func (s *Schedule) Due(now time.Time) (jobs []Job, missed []Missed) {
	for _, k := range s.keys {
		e := s.groups[k]
		if e.paused {
			continue
		}
		missed = append(missed, s.catchUp(e, now)...)
		if e.live || e.next().After(now) {
			continue
		}
		e.live = true
		jobs = append(jobs, Job{Key: k, Slot: e.next(), Rules: e.liveRules()})
	}
	repeats, gaveUp := s.dueRepeats(now)
	sortJobs(jobs)
	return append(jobs, repeats...), append(missed, gaveUp...)
}

// Next is the earliest time at which Due may have something to hand out that
// it has not now; zero if never.
func (s *Schedule) Next() time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, e := range s.groups {
		if e.paused {
			continue
		}
		if !e.live {
			sooner(e.next())
		}
		if len(e.Behind) > 0 && !e.repeat && s.repeats < s.limits.Repeats {
			sooner(e.retryAt)
		}
	}
	return next
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
	e.live = false
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
	for _, k := range s.keys {
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

func (s *Schedule) dueRepeats(now time.Time) (jobs []Job, missed []Missed) {
	for _, k := range s.keys {
		e := s.groups[k]
		if len(e.Behind) == 0 || e.paused || e.repeat || now.Before(e.retryAt) {
			continue
		}
		missed = append(missed, s.giveUp(e, now)...)
		if len(e.Behind) > 0 {
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

func (s *Schedule) stopRepeat(e *entry) {
	if e.repeat {
		e.repeat = false
		s.repeats--
	}
}

func (s *Schedule) doneRepeat(e *entry, j Job, o Outcome, now time.Time) {
	if !e.repeat {
		return
	}
	s.stopRepeat(e)
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
