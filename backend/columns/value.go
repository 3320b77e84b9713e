package columns

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

// vector is the samples of some series of a shape at an instant. It never
// changes once it is made.
type vector struct {
	shape *scan.Shape
	// rows are the places in shape of the series that have a sample, in the
	// order that Prometheus has them in; nil stands for all of shape.
	rows []int32
	// f are their values.
	f []float64
	// h are their native histograms, if there are any; a nil one is a float.
	h []*histogram.FloatHistogram
}

func (v *vector) row(i int) int32 {
	if v.rows == nil {
		return int32(i)
	}
	return v.rows[i]
}

func (v *vector) metric(i int) labels.Labels { return v.shape.Labels[v.row(i)] }

// histogram returns the i-th sample's native histogram, or nil.
func (v *vector) histogram(i int) *histogram.FloatHistogram {
	if v.h == nil {
		return nil
	}
	return v.h[i]
}

func (v *vector) collides() bool { return v.shape.Collides(v.rows) }

// scalars is the shape of a scalar.
var scalars = scan.NewShape([]labels.Labels{labels.EmptyLabels()})

func scalar(f float64) vector { return vector{shape: scalars, f: []float64{f}} }

// samples returns the vector in the form that Prometheus' functions take.
func (v *vector) samples(at int64) promql.Vector {
	samples := make(promql.Vector, len(v.f))
	for i, f := range v.f {
		samples[i] = promql.Sample{Metric: v.metric(i), T: at, F: f, H: v.histogram(i)}
	}
	return samples
}

// size is how many samples Prometheus counts.
func (v *vector) size() int {
	n := len(v.f)
	for _, h := range v.h {
		if h != nil {
			n += histogramSize(h) - 1
		}
	}
	return n
}

// histogramSize is how many samples a native histogram counts as: its memory
// and that of its timestamp, in units of a float and its timestamp.
func histogramSize(h *histogram.FloatHistogram) int { return (h.Size() + 8) / 16 }

// value is what an expression evaluates to.
type value struct {
	vector
	// held is how many samples Prometheus' engine counts as being in memory
	// once it has evaluated the expression, peak the most while it does.
	held, peak int
	// total is how many samples the selectors have.
	total int64
	notes annotations.Annotations
	// author is the text of the query that notes refer to, if there are any.
	author string
}

// computed is the value of operands that were evaluated one after the other and
// held until the result was there. Prometheus' engine copies them to work on.
func computed(v vector, args ...value) value {
	held, copied, peak := 0, 0, 0
	for _, arg := range args {
		peak = max(peak, held+arg.peak)
		held += arg.held
		copied += len(arg.f)
	}
	n := v.size()
	return value{vector: v, held: n, peak: max(peak, held+copied+n)}
}

// export returns the value in the form of Prometheus' engine.
func (v *value) export(expr parser.Expr, at int64) parser.Value {
	if expr.Type() == parser.ValueTypeScalar {
		return promql.Scalar{T: at, V: v.f[0]}
	}
	return v.samples(at)
}

// filler makes a vector of rows that come in any order.
type filler struct{ vector }

func fill(shape *scan.Shape, capacity int) filler {
	return filler{vector{shape: shape, f: make([]float64, 0, capacity)}}
}

func (b *filler) add(row int32, f float64) {
	if b.rows != nil || int(row) != len(b.f) {
		b.list()
		b.rows = append(b.rows, row)
	}
	b.f = append(b.f, f)
	if b.h != nil {
		b.h = append(b.h, nil)
	}
}

func (b *filler) addHistogram(row int32, h *histogram.FloatHistogram) {
	if b.h == nil {
		b.h = make([]*histogram.FloatHistogram, len(b.f), cap(b.f))
	}
	b.add(row, 0)
	b.h[len(b.h)-1] = h
}

// list writes down the rows that were all so far.
func (b *filler) list() {
	if b.rows != nil {
		return
	}
	b.rows = make([]int32, len(b.f), cap(b.f)+1)
	for i := range b.rows {
		b.rows[i] = int32(i)
	}
}

func (b *filler) done() vector {
	if len(b.f) < len(b.shape.Labels) {
		b.list()
	}
	return b.vector
}
