package schedule

import (
	"fmt"
	"math/rand"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

var day = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// TestScripts runs the scripts under testdata; see the first of them for the
// commands. Rewrite expected output with `go test ./ruler/schedule -rewrite`
// and read the diff.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/due", func(t *testing.T, path string) {
		s := New(DefaultLimits())
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return run(t, s, d)
		})
	})
}

func run(t *testing.T, s *Schedule, d *datadriven.TestData) string {
	var now, slot string
	var repeat bool
	if d.HasArg("now") {
		d.ScanArgs(t, "now", &now)
	}
	switch d.Cmd {
	case "limits":
		scanLimits(t, s, d)
		return s.String()
	case "add":
		return missedText(s.Add(scanGroup(t, d), scanProgress(t, d), at(t, now))) + s.String()
	case "remove":
		s.Remove(d.CmdArgs[0].Key)
		return s.String()
	case "due":
		jobs, missed := s.Due(at(t, now))
		return jobsText(jobs) + missedText(missed)
	case "done":
		j := Job{Key: d.CmdArgs[0].Key}
		d.ScanArgs(t, "slot", &slot)
		j.Slot = at(t, slot)
		if d.HasArg("repeat") {
			d.ScanArgs(t, "repeat", &repeat)
		}
		j.Repeat = repeat
		if d.HasArg("rules") {
			j.Rules = scanInts(t, d, "rules")
		}
		s.Done(j, Outcome{Failed: scanInts(t, d, "failed")}, at(t, now))
		return s.String()
	case "next":
		if s.Next().IsZero() {
			return "never\n"
		}
		return s.Next().Format(time.TimeOnly) + "\n"
	case "lag":
		return s.Lag(at(t, now)).String() + "\n"
	default:
		t.Fatalf("unknown command %q", d.Cmd)
		return ""
	}
}

func scanLimits(t *testing.T, s *Schedule, d *datadriven.TestData) {
	for name, dst := range map[string]*time.Duration{"backfill": &s.limits.Backfill} {
		if d.HasArg(name) {
			var text string
			d.ScanArgs(t, name, &text)
			v, err := time.ParseDuration(text)
			require.NoError(t, err)
			*dst = v
		}
	}
	for name, dst := range map[string]*int{"sequential": &s.limits.Sequential, "repeats": &s.limits.Repeats} {
		if d.HasArg(name) {
			d.ScanArgs(t, name, dst)
		}
	}
}

// scanGroup reads `KEY interval=10s rules=ra`: a letter a rule, r for
// recording, a for alerting.
func scanGroup(t *testing.T, d *datadriven.TestData) Group {
	var interval, rules string
	d.ScanArgs(t, "interval", &interval)
	d.ScanArgs(t, "rules", &rules)
	every, err := time.ParseDuration(interval)
	require.NoError(t, err)
	g := Group{Key: d.CmdArgs[0].Key, Interval: every, Phase: d.CmdArgs[0].Key}
	for _, c := range rules {
		g.Recording = append(g.Recording, c == 'r')
	}
	return g
}

func scanProgress(t *testing.T, d *datadriven.TestData) Progress {
	var p Progress
	var text string
	if d.HasArg("committed") {
		d.ScanArgs(t, "committed", &text)
		p.Committed = at(t, text)
	}
	if d.HasArg("behind") { // RULE@TIME
		d.ScanArgs(t, "behind", &text)
		r, when, _ := strings.Cut(text, "@")
		n, err := strconv.Atoi(r)
		require.NoError(t, err)
		p.Behind = map[int]time.Time{n: at(t, when)}
	}
	return p
}

func scanInts(t *testing.T, d *datadriven.TestData, name string) []int {
	var ns []int
	if !d.HasArg(name) {
		return nil
	}
	for _, a := range d.CmdArgs {
		if a.Key != name {
			continue
		}
		for _, v := range a.Vals {
			n, err := strconv.Atoi(v)
			require.NoError(t, err)
			ns = append(ns, n)
		}
	}
	return ns
}

func at(t *testing.T, text string) time.Time {
	if text == "" {
		return day
	}
	c, err := time.Parse(time.TimeOnly, text)
	require.NoError(t, err)
	return day.Add(c.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)))
}

func jobsText(jobs []Job) string {
	var b strings.Builder
	for _, j := range jobs {
		fmt.Fprintln(&b, j)
	}
	return b.String()
}

func missedText(missed []Missed) string {
	var b strings.Builder
	for _, m := range missed {
		fmt.Fprintf(&b, "missed %s %d\n", m.Key, m.Slots)
	}
	return b.String()
}

// TestOffsetsSpreadOverPhases checks that offsets are whole seconds inside
// the interval and that few slots are shared by many groups.
func TestOffsetsSpreadOverPhases(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, time.Minute, time.Hour} {
		seen := map[time.Duration]int{}
		for i := range 10_000 {
			o := Offset(fmt.Sprintf("file/x/%d", i), interval)
			require.Zero(t, o%time.Second)
			require.GreaterOrEqual(t, o, time.Duration(0))
			require.Less(t, o, interval)
			seen[o]++
		}
		want := min(int(interval/time.Second), maxPhases)
		require.Len(t, seen, want, "phases of interval %s", interval)
		for o, n := range seen {
			require.Less(t, n, 2*10_000/want, "groups at offset %s of %s", o, interval)
		}
	}
}

func TestSlotIsTheLatestAtOrBefore(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewSource(1))
	for range 10_000 {
		interval := time.Duration(1+rnd.Intn(4000)) * time.Second
		offset := time.Duration(rnd.Int63n(int64(interval/time.Second))) * time.Second
		now := time.UnixMilli(rnd.Int63n(4e12) - 2e12)
		s := Slot(now, interval, offset)
		require.False(t, s.After(now))
		require.True(t, s.Add(interval).After(now))
		require.Zero(t, (s.UnixMilli()-offset.Milliseconds())%interval.Milliseconds())
	}
}

// TestNoSlotIsLostOrDoneTwice drives a schedule with random failures, pauses
// and moves to another member, and checks for every recording rule that its
// successful slots are all slots in order, except for those reported missed.
func TestNoSlotIsLostOrDoneTwice(t *testing.T) {
	t.Parallel()
	for seed := range int64(300) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			newHistory(t, seed).play(400)
		})
	}
}

type history struct {
	t        *testing.T
	rnd      *rand.Rand
	s        *Schedule
	groups   []Group
	now      time.Time
	running  []Job
	done     map[string][]time.Time // by group and rule
	missed   map[string]int
	failNext bool
}

func newHistory(t *testing.T, seed int64) *history {
	h := &history{t: t, rnd: rand.New(rand.NewSource(seed)), now: day, done: map[string][]time.Time{}, missed: map[string]int{}}
	limits := DefaultLimits()
	limits.Backfill = time.Duration(1+h.rnd.Intn(20)) * time.Minute
	limits.Sequential = h.rnd.Intn(5)
	limits.Repeats = 1 + h.rnd.Intn(3)
	h.s = New(limits)
	for i := range 1 + h.rnd.Intn(4) {
		g := Group{Key: fmt.Sprintf("g%d", i), Interval: time.Duration(5+h.rnd.Intn(30)) * time.Second}
		for range 1 + h.rnd.Intn(4) {
			g.Recording = append(g.Recording, h.rnd.Intn(4) > 0)
		}
		h.groups = append(h.groups, g)
		h.s.Add(g, Progress{}, h.now)
	}
	return h
}

func (h *history) play(steps int) {
	for range steps {
		switch n := h.rnd.Intn(100); {
		case n < 2: // everything stands still for a while
			h.now = h.now.Add(time.Duration(h.rnd.Intn(600)) * time.Second)
		case n < 6:
			h.move()
		case n < 10:
			h.failNext = !h.failNext
		}
		h.step(h.failNext)
	}
	for range 3000 { // everything is well again: all catch up
		h.step(false)
	}
	h.check()
}

func (h *history) step(failing bool) {
	h.now = h.now.Add(time.Duration(h.rnd.Intn(3000)) * time.Millisecond)
	jobs, missed := h.s.Due(h.now)
	h.count(missed)
	h.running = append(h.running, jobs...)
	h.rnd.Shuffle(len(h.running), func(i, j int) { h.running[i], h.running[j] = h.running[j], h.running[i] })
	for len(h.running) > 0 && h.rnd.Intn(3) > 0 {
		h.finish(h.running[0], failing)
		h.running = h.running[1:]
	}
}

func (h *history) finish(j Job, failing bool) {
	var o Outcome
	for _, r := range j.Rules {
		if failing && h.rnd.Intn(2) == 0 {
			o.Failed = append(o.Failed, r)
			continue
		}
		k := fmt.Sprintf("%s/%d", j.Key, r)
		h.done[k] = append(h.done[k], j.Slot)
	}
	h.s.Done(j, o, h.now)
}

// move hands a group that is idle to a new schedule entry, as a handoff does.
func (h *history) move() {
	g := h.groups[h.rnd.Intn(len(h.groups))]
	for _, j := range h.running {
		if j.Key == g.Key {
			return
		}
	}
	p, ok := h.s.Progress(g.Key)
	require.True(h.t, ok)
	h.s.Remove(g.Key)
	h.count(h.s.Add(g, p, h.now))
}

func (h *history) count(missed []Missed) {
	for _, m := range missed {
		h.missed[m.Key] += m.Slots
	}
}

func (h *history) check() {
	for _, g := range h.groups {
		for r, recording := range g.Recording {
			if !recording {
				continue
			}
			slots := h.done[fmt.Sprintf("%s/%d", g.Key, r)]
			require.True(h.t, sort.SliceIsSorted(slots, func(i, j int) bool { return slots[i].Before(slots[j]) }), "slots of one series are written in order")
			gaps := 0
			for i := 1; i < len(slots); i++ {
				require.NotEqual(h.t, slots[i-1], slots[i], "a slot is done once")
				gaps += int(slots[i].Sub(slots[i-1])/g.Interval) - 1
			}
			require.LessOrEqual(h.t, gaps, h.missed[g.Key], "slots that are gone have been reported as missed; see again with go test ./ruler/schedule -run '%s'", h.t.Name())
		}
	}
}

// BenchmarkDue is a second of 100,000 groups of two rules at 30 s: what is due in
// it is handed out and done. It reports the time for each job and the memory for
// each group that sleeps.
func BenchmarkDue(b *testing.B) {
	const groups = 100_000
	keys := make([]string, groups)
	for i := range keys {
		keys[i] = fmt.Sprintf("rules/east/team-%d/group-%d", i%1000, i)
	}
	recording := []bool{true, false}
	before := heapBytes()
	s := New(DefaultLimits())
	for _, key := range keys {
		s.Add(Group{Key: key, Interval: 30 * time.Second, Phase: key, Recording: recording}, Progress{}, day)
	}
	perGroup := float64(heapBytes()-before) / groups
	now, done := day, 0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		jobs, _ := s.Due(now)
		for _, j := range jobs {
			s.Done(j, Outcome{}, now)
		}
		done += len(jobs)
	}
	b.ReportMetric(perGroup, "B/group")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/job")
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
