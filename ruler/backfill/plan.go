package backfill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
)

// Plan is the order in which groups are evaluated.
type Plan struct {
	Job  Job
	Sets []Set
}

// Set is one group, or several that read each other in a circle and have to be
// evaluated in the order of their slots.
type Set struct {
	Groups []rule.Group
	// After are the indexes of the sets whose results this one may read; they
	// are all lower.
	After []int
	// SlotBySlot says why there is no evaluating a chunk at once; empty if there
	// is.
	SlotBySlot string
}

// NewPlan orders the groups of a job.
func NewPlan(j Job) Plan {
	reads := readers(j.Groups)
	p := Plan{Job: j}
	setOf := make([]int, len(j.Groups))
	for _, members := range circles(reads) {
		s := Set{SlotBySlot: whySlotBySlot(j.Groups, members)}
		for _, m := range members {
			s.Groups = append(s.Groups, j.Groups[m])
			setOf[m] = len(p.Sets)
			for other, yes := range reads[m] {
				if yes && !slices.Contains(members, other) {
					s.After = append(s.After, setOf[other])
				}
			}
		}
		slices.Sort(s.After)
		s.After = slices.Compact(s.After)
		p.Sets = append(p.Sets, s)
	}
	return p
}

// readers tells of each group which groups it may read.
func readers(groups []rule.Group) [][]bool {
	prints := make([][]rule.Footprint, len(groups))
	for i, g := range groups {
		prints[i] = footprints(g)
	}
	reads := make([][]bool, len(groups))
	for i := range groups {
		reads[i] = make([]bool, len(groups))
		for j := range groups {
			reads[i][j] = slices.ContainsFunc(prints[i], func(f rule.Footprint) bool { return slices.ContainsFunc(prints[j], f.ReadsFrom) })
		}
	}
	return reads
}

func footprints(g rule.Group) []rule.Footprint {
	prints := make([]rule.Footprint, len(g.Rules))
	for i, r := range g.Rules {
		prints[i] = rule.NewFootprint(r, g.Scope)
	}
	return prints
}

// circles are the strongly connected components of the graph, each after those
// that it reads, by Tarjan's algorithm.
func circles(reads [][]bool) [][]int {
	t := tarjan{reads: reads, number: make([]int, len(reads)), low: make([]int, len(reads)), open: make([]bool, len(reads))}
	for v := range reads {
		if t.number[v] == 0 {
			t.visit(v)
		}
	}
	return t.components
}

type tarjan struct {
	reads       [][]bool
	number, low []int // from 1, in the order of visits
	open        []bool
	stack       []int
	visits      int
	components  [][]int
}

func (t *tarjan) visit(v int) {
	t.visits++
	t.number[v], t.low[v], t.open[v] = t.visits, t.visits, true
	t.stack = append(t.stack, v)
	for w, yes := range t.reads[v] {
		switch {
		case !yes:
		case t.number[w] == 0:
			t.visit(w)
			t.low[v] = min(t.low[v], t.low[w])
		case t.open[w]:
			t.low[v] = min(t.low[v], t.number[w])
		}
	}
	if t.low[v] != t.number[v] {
		return
	}
	from := slices.Index(t.stack, v)
	component := slices.Sorted(slices.Values(t.stack[from:]))
	t.stack = t.stack[:from]
	for _, w := range component {
		t.open[w] = false
	}
	t.components = append(t.components, component)
}

// whySlotBySlot says what of a set depends on its own earlier slots.
func whySlotBySlot(groups []rule.Group, members []int) string {
	if len(members) > 1 {
		var keys []string
		for _, m := range members {
			keys = append(keys, groups[m].Key)
		}
		return "these groups read each other: " + strings.Join(keys, ", ")
	}
	g := groups[members[0]]
	for _, r := range g.Rules {
		if r.Alert != "" && asksQueries(r) {
			return fmt.Sprintf("a label of alert %q comes from a query", r.Alert)
		}
	}
	prints, stage := footprints(g), stagesOf(g)
	for i, f := range prints {
		for j, other := range prints {
			if stage[j] >= stage[i] && f.ReadsFrom(other) {
				return fmt.Sprintf("rule %q reads what %q recorded at earlier slots", g.Rules[i].Name(), g.Rules[j].Name())
			}
		}
	}
	return ""
}

// asksQueries tells whether a template among the rule's labels may read series,
// which may be those of an earlier slot.
func asksQueries(r rule.Rule) (asks bool) {
	r.Labels.Range(func(l labels.Label) {
		asks = asks || strings.Contains(l.Value, "{{") && strings.Contains(l.Value, "query")
	})
	return asks
}

// stagesOf is the stage of each rule.
func stagesOf(g rule.Group) []int {
	stages := make([]int, len(g.Rules))
	byStage, _ := rule.Stages(g)
	for n, rules := range byStage {
		for _, i := range rules {
			stages[i] = n
		}
	}
	return stages
}

// readsResults tells of each rule of a group whether it may read what any rule
// of the job records.
func (p Plan) readsResults(g rule.Group) []bool {
	reads := make([]bool, len(g.Rules))
	for i, f := range footprints(g) {
		for _, other := range p.Job.Groups {
			reads[i] = reads[i] || slices.ContainsFunc(footprints(other), f.ReadsFrom)
		}
	}
	return reads
}

// chunks are the beginnings of all chunks, multiples of ChunkLength.
func (p Plan) chunks() []time.Time {
	var offset time.Duration
	for _, g := range p.Job.Groups {
		offset = max(offset, g.QueryOffset)
	}
	var all []time.Time
	for c := p.Job.Start.Add(-offset).Truncate(ChunkLength); !c.After(p.Job.End); c = c.Add(ChunkLength) {
		all = append(all, c.UTC())
	}
	return all
}

// slots are those of a group in a chunk. A chunk has what is recorded in its
// time, so that slots count less the query offset.
func (p Plan) slots(g rule.Group, chunk time.Time) Steps {
	from := latest(chunk.Add(g.QueryOffset), p.Job.Start)
	to := earliest(chunk.Add(ChunkLength+g.QueryOffset).Add(-time.Millisecond), p.Job.End)
	offset := schedule.Offset(g.Phase(), g.Interval)
	first := schedule.Slot(from.Add(g.Interval-time.Millisecond), g.Interval, offset)
	s := Steps{First: first, Every: g.Interval}
	if !first.After(to) {
		s.Count = int(to.Sub(first)/g.Interval) + 1
	}
	return s
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// work is the number of evaluations of a set in a chunk.
func (p Plan) work(s Set, chunk time.Time) int64 {
	var n int64
	for _, g := range s.Groups {
		n += int64(p.slots(g, chunk).Count) * int64(len(g.Rules))
	}
	return n
}

// Total is the number of evaluations of the whole job.
func (p Plan) Total() int64 {
	var n int64
	for _, c := range p.chunks() {
		for _, s := range p.Sets {
			n += p.work(s, c)
		}
	}
	return n
}

// String lists the groups in the order in which they are evaluated.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s, %d chunks of %s, %d evaluations\nto %s\n",
		p.Job.Start.UTC().Format(time.RFC3339), p.Job.End.UTC().Format(time.RFC3339), len(p.chunks()), ChunkLength, p.Total(), p.Job.Where)
	for i, s := range p.Sets {
		fmt.Fprintf(&b, "\n%d%s, %s\n", i+1, s.order(), s.how())
		for _, g := range s.Groups {
			stages, _ := rule.Stages(g)
			fmt.Fprintf(&b, "  %s: %d slots every %s, %d rules in %d stages\n", g.Key, p.slotCount(g), g.Interval, len(g.Rules), len(stages))
		}
	}
	return b.String()
}

func (s Set) order() string {
	text := ""
	for _, other := range s.After {
		text += fmt.Sprintf(" %d", other+1)
	}
	if text != "" {
		text = " after" + text
	}
	return text
}

func (s Set) how() string {
	if s.SlotBySlot != "" {
		return "slot by slot: " + s.SlotBySlot
	}
	return "chunk by chunk"
}

func (p Plan) slotCount(g rule.Group) int {
	n := 0
	for _, c := range p.chunks() {
		n += p.slots(g, c).Count
	}
	return n
}
