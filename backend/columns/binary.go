package columns

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

// apply is a binary operation on floats. For a comparison, keep tells how it
// ended and the result is the left operand.
func apply(op parser.ItemType, l, r float64) (result float64, keep bool) {
	switch op {
	case parser.ADD:
		return l + r, true
	case parser.SUB:
		return l - r, true
	case parser.MUL:
		return l * r, true
	case parser.DIV:
		return l / r, true
	case parser.POW:
		return math.Pow(l, r), true
	case parser.MOD:
		return math.Mod(l, r), true
	case parser.ATAN2:
		return math.Atan2(l, r), true
	case parser.EQLC:
		return l, l == r
	case parser.NEQ:
		return l, l != r
	case parser.GTR:
		return l, l > r
	case parser.LSS:
		return l, l < r
	case parser.GTE:
		return l, l >= r
	case parser.LTE:
		return l, l <= r
	}
	panic("columns: no binary operator: " + op.String())
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// scalarOperation is one on two scalars.
type scalarOperation struct{ op parser.ItemType }

func (o scalarOperation) eval(_ *frame, args []value) (value, error) {
	result, keep := apply(o.op, args[0].f[0], args[1].f[0])
	if o.op.IsComparisonOperator() {
		result = oneIf(keep)
	}
	return computed(scalar(result), args...), nil
}

// vectorScalar is an operation on a vector, the first operand, and a scalar.
type vectorScalar struct {
	op parser.ItemType
	// toBool makes a comparison say 0 or 1, swapped says that the scalar is on
	// the left.
	toBool, swapped bool
}

func (o vectorScalar) eval(f *frame, args []value) (value, error) {
	in, s := &args[0], args[1].f[0]
	if in.h != nil {
		return value{}, reasonHistograms
	}
	shape, filters := in.shape, o.op.IsComparisonOperator() && !o.toBool
	if !filters {
		shape = nameless(f, shape)
	}
	out := fill(shape, len(in.f))
	for i, v := range in.f {
		l, r := v, s
		if o.swapped {
			l, r = s, v
		}
		result, keep := apply(o.op, l, r)
		switch {
		case o.toBool:
			result = oneIf(keep)
		case filters && !keep:
			continue
		case filters:
			result = v
		}
		out.add(in.row(i), result)
	}
	v := computed(out.done(), ordered(o.swapped, args)...)
	if v.collides() {
		return value{}, reasonCollision
	}
	return v, nil
}

// ordered returns two operands as they are written.
func ordered(swapped bool, args []value) []value {
	if swapped {
		return []value{args[1], args[0]}
	}
	return args
}

// signatures numbers the series of two shapes such that those that match have
// the same number.
type signatures struct {
	left, right []int32
	n           int
}

func signaturesOf(left, right *scan.Shape, m *parser.VectorMatching) *signatures {
	s := &signatures{}
	numbers := map[string]int32{}
	names := slices.Clone(m.MatchingLabels)
	if !m.On {
		names = append(names, labels.MetricName)
	}
	slices.Sort(names)
	var buf []byte
	number := func(shape *scan.Shape) []int32 {
		all := make([]int32, len(shape.Labels))
		for i, ls := range shape.Labels {
			if m.On {
				buf = ls.BytesWithLabels(buf, names...)
			} else {
				buf = ls.BytesWithoutLabels(buf, names...)
			}
			n, ok := numbers[string(buf)]
			if !ok {
				n = int32(len(numbers))
				numbers[string(buf)] = n
			}
			all[i] = n
		}
		return all
	}
	s.left, s.right = number(left), number(right)
	s.n = len(numbers)
	return s
}

// setOperation is and, or, unless.
type setOperation struct {
	op       parser.ItemType
	matching *parser.VectorMatching
}

// union is the shape of an or: all series of the left, then all of the right.
type union struct {
	*signatures
	out *scan.Shape
}

func (o setOperation) eval(f *frame, args []value) (value, error) {
	l, r := &args[0], &args[1]
	u := derive(f, len(l.shape.Labels)+len(r.shape.Labels), []*scan.Shape{l.shape, r.shape}, func() *union {
		u := &union{signatures: signaturesOf(l.shape, r.shape, o.matching), out: l.shape}
		if o.op == parser.LOR {
			u.out = scan.NewShape(slices.Concat(l.shape.Labels, r.shape.Labels))
		}
		return u
	})
	out := fill(u.out, len(l.f))
	present := make([]bool, u.n)
	if o.op == parser.LOR {
		u.or(&out, l, r, present)
	} else {
		for i := range r.f {
			present[u.right[r.row(i)]] = true
		}
		for i := range l.f {
			if row := l.row(i); present[u.left[row]] == (o.op == parser.LAND) {
				out.take(row, l, i)
			}
		}
	}
	v := computed(out.done(), args...)
	if v.collides() {
		return value{}, reasonCollision
	}
	return v, nil
}

func (u *union) or(out *filler, l, r *value, present []bool) {
	for i := range l.f {
		row := l.row(i)
		present[u.left[row]] = true
		out.take(row, l, i)
	}
	for i := range r.f {
		if row := r.row(i); !present[u.right[row]] {
			out.take(int32(len(l.shape.Labels))+row, r, i)
		}
	}
}

// take adds the i-th sample of another vector.
func (b *filler) take(row int32, from *value, i int) {
	if h := from.histogram(i); h != nil {
		b.addHistogram(row, h)
		return
	}
	b.add(row, from.f[i])
}

// join is any other operation on two vectors.
type join struct {
	op       parser.ItemType
	toBool   bool
	matching *parser.VectorMatching
}

// joined is what is known of two shapes: out has the labels of the result for
// every series of the side that may have many.
type joined struct {
	*signatures
	out *scan.Shape
	// ambiguous is set if those labels depend on which series are there.
	ambiguous bool
}

func (j join) eval(f *frame, args []value) (value, error) {
	// The right one is unique, as in Prometheus' engine; one-to-many is swapped.
	many, one, swapped := &args[0], &args[1], j.matching.Card == parser.CardOneToMany
	if swapped {
		many, one = one, many
	}
	if len(many.f) == 0 || len(one.f) == 0 {
		return computed(vector{shape: many.shape, rows: []int32{}}, args...), nil
	}
	if many.h != nil || one.h != nil {
		return value{}, reasonHistograms
	}
	k := derive(f, len(many.shape.Labels)+len(one.shape.Labels), []*scan.Shape{many.shape, one.shape}, func() *joined {
		return j.join(many.shape, one.shape)
	})
	if k.ambiguous {
		return value{}, reasonCollision
	}
	partners, ok := k.partners(one)
	if !ok {
		return value{}, reasonCollision
	}
	out, ok := j.match(k, many, one, partners)
	if !ok {
		return value{}, reasonCollision
	}
	v := computed(out, args...)
	if v.collides() {
		return value{}, reasonCollision
	}
	return v, nil
}

// partners returns the place in the vector of the one sample with each
// signature, or -1. It is false if there are two.
func (k *joined) partners(one *value) ([]int32, bool) {
	partners := make([]int32, k.n)
	for i := range partners {
		partners[i] = -1
	}
	for i := range one.f {
		s := k.right[one.row(i)]
		if partners[s] >= 0 {
			return nil, false
		}
		partners[s] = int32(i)
	}
	return partners, true
}

// match computes the result. It is false if two series match that may not, also
// where a comparison leaves none of them.
func (j join) match(k *joined, many, one *value, partners []int32) (vector, bool) {
	out := fill(k.out, len(many.f))
	matched := make([]int32, 0, len(many.f))
	taken := make([]bool, k.n)
	filters := j.op.IsComparisonOperator() && !j.toBool
	for i, l := range many.f {
		row := many.row(i)
		s := k.left[row]
		if partners[s] < 0 {
			continue
		}
		if taken[s] && j.matching.Card == parser.CardOneToOne {
			return vector{}, false
		}
		taken[s], matched = true, append(matched, row)
		r := one.f[partners[s]]
		if j.matching.Card == parser.CardOneToMany {
			l, r = r, l
		}
		result, keep := apply(j.op, l, r)
		if filters && !keep {
			continue
		}
		if j.toBool {
			result = oneIf(keep)
		}
		out.add(row, result)
	}
	return out.done(), !k.out.Collides(matched)
}

func (j join) join(many, one *scan.Shape) *joined {
	k := &joined{signatures: signaturesOf(many, one, j.matching)}
	partner := make([]int32, k.n)
	for i := range partner {
		partner[i] = -1
	}
	for i, s := range k.right {
		k.ambiguous = k.ambiguous || (partner[s] >= 0 && len(j.matching.Include) > 0)
		partner[s] = int32(i)
	}
	all := make([]labels.Labels, len(many.Labels))
	builder := labels.NewBuilder(labels.EmptyLabels())
	for i, ls := range many.Labels {
		if p := partner[k.left[i]]; p >= 0 {
			all[i] = j.labels(builder, ls, one.Labels[p])
		}
	}
	k.out = scan.NewShape(all)
	return k
}

// labels are those of the result of two series.
func (j join) labels(b *labels.Builder, many, one labels.Labels) labels.Labels {
	b.Reset(many)
	if !j.op.IsComparisonOperator() {
		schema.Metadata{}.SetToLabels(b)
	}
	if j.matching.Card == parser.CardOneToOne {
		if j.matching.On {
			b.Keep(j.matching.MatchingLabels...)
		} else {
			b.Del(j.matching.MatchingLabels...)
		}
	}
	for _, name := range j.matching.Include {
		b.Set(name, one.Get(name))
	}
	ls := b.Labels()
	if j.toBool {
		ls = ls.DropReserved(schema.IsMetadataLabel)
	}
	return ls
}
