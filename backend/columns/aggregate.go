package columns

import (
	"container/heap"
	"math"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

// grouping is the by or without clause of an aggregation.
type grouping struct {
	// names are sorted.
	names   []string
	without bool
}

// groups says in which group each series of a shape is; out are the groups'
// labels.
type groups struct {
	out   *scan.Shape
	index []int32
}

func (g grouping) groups(f *frame, in *scan.Shape) *groups {
	return derive(f, len(in.Labels), []*scan.Shape{in}, func() *groups {
		made := &groups{index: make([]int32, len(in.Labels))}
		numbers := map[string]int32{}
		var all []labels.Labels
		builder := labels.NewBuilder(labels.EmptyLabels())
		excluded := slices.Sorted(slices.Values(append([]string{labels.MetricName}, g.names...)))
		var buf []byte
		for i, ls := range in.Labels {
			if g.without {
				buf = ls.BytesWithoutLabels(buf, excluded...)
			} else {
				buf = ls.BytesWithLabels(buf, g.names...)
			}
			number, ok := numbers[string(buf)]
			if !ok {
				number = int32(len(all))
				numbers[string(buf)] = number
				all = append(all, g.labels(builder, ls))
			}
			made.index[i] = number
		}
		made.out = scan.NewShape(all)
		return made
	})
}

func (g grouping) labels(b *labels.Builder, ls labels.Labels) labels.Labels {
	b.Reset(ls)
	if g.without {
		return b.Del(g.names...).Del(labels.MetricName).Labels()
	}
	return b.Keep(g.names...).Labels()
}

// aggregation is one that makes a sample of every group.
type aggregation struct {
	grouping
	op parser.ItemType
}

func (a aggregation) eval(f *frame, args []value) (value, error) {
	in := &args[0]
	g := a.groups(f, in.shape)
	accumulators, order := make([]accumulator, len(g.out.Labels)), make([]int32, 0, len(g.out.Labels))
	for i, v := range in.f {
		if err := f.checked(i); err != nil {
			return value{}, err
		}
		group := g.index[in.row(i)]
		acc := &accumulators[group]
		if acc.count == 0 {
			order = append(order, group)
		}
		if !acc.add(a.op, v, in.histogram(i)) {
			return value{}, reasonHistograms
		}
	}
	out := fill(g.out, len(order))
	for _, group := range order {
		acc := &accumulators[group]
		if acc.histogram != nil {
			out.addHistogram(group, acc.histogram.Compact(0))
			continue
		}
		out.add(group, acc.result(a.op))
	}
	v := computed(out.done())
	v.peak = max(in.peak, v.held)
	return v, nil
}

// accumulator is a group's state; the algorithms are those of Prometheus'
// engine, to the last bit.
type accumulator struct {
	count float64
	// value is the sum, the extreme, or the sum of squares; mean is that of all
	// values so far where it is kept, and rest what sum or mean lack.
	value, mean, rest float64
	// incremental is set once a sum would have overflowed.
	incremental bool
	histogram   *histogram.FloatHistogram
	resets      [2]bool
}

// add takes one more sample. It returns false for a native histogram where it
// is not simply added to others.
func (a *accumulator) add(op parser.ItemType, v float64, h *histogram.FloatHistogram) bool {
	a.count++
	if op == parser.COUNT || op == parser.GROUP {
		return true
	}
	if h != nil || a.histogram != nil {
		return op == parser.SUM && a.addHistogram(h)
	}
	if a.count == 1 {
		a.begin(op, v)
		return true
	}
	switch op {
	case parser.SUM:
		a.value, a.rest = kahan(v, a.value, a.rest)
	case parser.AVG:
		a.average(v)
	case parser.MAX:
		if a.value < v || math.IsNaN(a.value) {
			a.value = v
		}
	case parser.MIN:
		if a.value > v || math.IsNaN(a.value) {
			a.value = v
		}
	default: // STDDEV and STDVAR
		delta := v - a.mean
		a.mean += delta / a.count
		a.value += delta * (v - a.mean)
	}
	return true
}

func (a *accumulator) begin(op parser.ItemType, v float64) {
	a.value, a.mean = v, v
	if op == parser.STDDEV || op == parser.STDVAR {
		a.value = 0
		if math.IsNaN(v) || math.IsInf(v, 0) {
			a.value = math.NaN()
		}
	}
}

// average keeps a sum for as long as it does not overflow, then a mean.
func (a *accumulator) average(v float64) {
	if !a.incremental {
		sum, rest := kahan(v, a.value, a.rest)
		if !math.IsInf(sum, 0) {
			a.value, a.rest = sum, rest
			return
		}
		a.incremental = true
		a.mean = a.value / (a.count - 1)
		a.rest /= a.count - 1
	}
	q := (a.count - 1) / a.count
	a.mean, a.rest = kahan(v/a.count, q*a.mean, q*a.rest)
}

// addHistogram adds one up. It returns false where Prometheus would have to say
// something about it.
func (a *accumulator) addHistogram(h *histogram.FloatHistogram) bool {
	if h == nil || (a.histogram == nil && a.count > 1) {
		return false
	}
	switch h.CounterResetHint {
	case histogram.CounterReset:
		a.resets[0] = true
	case histogram.NotCounterReset:
		a.resets[1] = true
	}
	if a.resets[0] && a.resets[1] {
		return false
	}
	if a.histogram == nil {
		a.histogram = h.Copy()
		return true
	}
	_, _, reconciled, err := a.histogram.Add(h)
	return err == nil && !reconciled
}

func (a *accumulator) result(op parser.ItemType) float64 {
	switch op {
	case parser.SUM:
		return a.value + a.rest
	case parser.AVG:
		if a.incremental {
			return a.mean + a.rest
		}
		return a.value/a.count + a.rest/a.count
	case parser.COUNT:
		return a.count
	case parser.GROUP:
		return 1
	case parser.STDVAR:
		return a.value / a.count
	case parser.STDDEV:
		return math.Sqrt(a.value / a.count)
	}
	return a.value
}

// kahan adds to a sum and to what rounding took from it (Kahan's summation as
// improved by Neumaier).
func kahan(v, sum, rest float64) (newSum, newRest float64) {
	t := sum + v
	switch {
	case math.IsInf(t, 0):
		return t, 0
	case math.Abs(sum) >= math.Abs(v):
		return t, rest + ((sum - t) + v)
	}
	return t, rest + ((v - t) + sum)
}

// ranking is topk or bottomk.
type ranking struct {
	grouping
	lowest bool
}

func (r ranking) eval(f *frame, args []value) (value, error) {
	in, k := &args[0], args[1].f[0]
	if in.h != nil {
		return value{}, reasonHistograms
	}
	if !(k < math.MaxInt64 && k > math.MinInt64) {
		return value{}, reasonCollision // NaN included: an error
	}
	var v value
	if k < 1 {
		v = computed(vector{shape: in.shape, rows: []int32{}})
	} else {
		v = computed(r.rank(f, &in.vector, int(min(int64(k), int64(len(in.f))))))
	}
	v.peak = max(args[1].peak, args[1].held+in.peak)
	return v, nil
}

func (r ranking) rank(f *frame, in *vector, k int) vector {
	g := r.groups(f, in.shape)
	tops, order := make([]top, len(g.out.Labels)), []int32(nil)
	for i, v := range in.f {
		row := in.row(i)
		t := &tops[g.index[row]]
		if t.rows == nil {
			t.lowest = r.lowest
			order = append(order, g.index[row])
		}
		t.offer(k, row, v)
	}
	out := fill(in.shape, len(order)*min(k, len(in.f)))
	for _, group := range order {
		t := &tops[group]
		sort.Sort(sort.Reverse(t))
		for i, row := range t.rows {
			out.add(row, t.f[i])
		}
	}
	return out.done()
}

// top is a heap with the least worthy sample on top. Which of equal samples stay
// depends on how the heap works, so it is the one of Prometheus' engine.
type top struct {
	lowest bool
	rows   []int32
	f      []float64
}

func (t *top) offer(k int, row int32, v float64) {
	if len(t.f) < k {
		heap.Push(t, sampleAt{row, v})
		return
	}
	worthier := t.f[0] < v
	if t.lowest {
		worthier = t.f[0] > v
	}
	if worthier || (math.IsNaN(t.f[0]) && !math.IsNaN(v)) {
		t.rows[0], t.f[0] = row, v
		heap.Fix(t, 0)
	}
}

type sampleAt struct {
	row int32
	f   float64
}

// Len implements heap.Interface.
func (t *top) Len() int { return len(t.f) }

// Less implements heap.Interface.
func (t *top) Less(i, j int) bool {
	if math.IsNaN(t.f[i]) {
		return true
	}
	if t.lowest {
		return t.f[i] > t.f[j]
	}
	return t.f[i] < t.f[j]
}

// Swap implements heap.Interface.
func (t *top) Swap(i, j int) {
	t.rows[i], t.rows[j] = t.rows[j], t.rows[i]
	t.f[i], t.f[j] = t.f[j], t.f[i]
}

// Push implements heap.Interface.
func (t *top) Push(x any) {
	s := x.(sampleAt)
	t.rows, t.f = append(t.rows, s.row), append(t.f, s.f)
}

// Pop implements heap.Interface; nothing is ever taken out.
func (t *top) Pop() any { panic("columns: a top is only added to") }
