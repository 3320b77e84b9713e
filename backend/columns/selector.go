package columns

import (
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

// selector is an instant selector. Times are in milliseconds.
type selector struct {
	matchers []*labels.Matcher
	offset   int64
}

func (s selector) eval(f *frame, _ []value) (value, error) {
	at, lookback := f.at()-s.offset, f.batch.queries[f.query].Lookback
	column, err := s.read(f, at-lookback, at)
	if errors.Is(err, scan.ErrNotFloats) {
		return value{}, reasonHistograms
	}
	if err != nil {
		return value{}, err
	}
	out := fill(column.Shape, len(column.Points))
	for i, points := range column.Points {
		if err := f.checked(i); err != nil {
			return value{}, err
		}
		p, ok := scan.Last(points, at)
		if ok && p.T > at-lookback && !stale.IsStaleNaN(p.F) {
			out.add(int32(i), p.F)
		}
	}
	v := computed(out.done())
	v.total = int64(len(v.f))
	return v, nil
}

// read returns the samples of a selector. What the storage fails with is for
// Prometheus' engine to say.
func (s selector) read(f *frame, mint, maxt int64) (scan.Column, error) {
	column, err := f.batch.scan.Floats(f.ctx, s.matchers, mint, maxt)
	switch {
	case err == nil, errors.Is(err, scan.ErrNotFloats):
		return column, err
	case f.ctx.Err() != nil:
		return column, f.ctx.Err()
	}
	return column, reasonRead
}

// matrix is a range selector.
type matrix struct {
	selector
	duration int64
	// skipBuckets says that Prometheus would not read the buckets of native
	// histograms.
	skipBuckets bool
}

// overTime is a function of a range selector and perhaps of scalars.
type overTime struct{ call }

func (o overTime) eval(f *frame, args []value) (value, error) {
	maxt := f.at() - o.matrix.offset
	mint := maxt - o.matrix.duration
	column, err := o.matrix.read(f, mint, maxt)
	if err != nil && !errors.Is(err, scan.ErrNotFloats) {
		return value{}, err
	}
	r := &overTimeRun{overTime: o, frame: f, enh: &promql.EvalNodeHelper{Ts: f.at(), Out: make(promql.Vector, 0, 1)}}
	for i, arg := range args {
		r.peak = max(r.peak, r.held+arg.peak)
		r.held += arg.held
		r.params = append(r.params, promql.Vector{{F: args[i].f[0]}})
	}
	if err != nil {
		return r.histograms(mint, maxt)
	}
	r.out = fill(column.Shape, len(column.Points))
	for i, points := range column.Points {
		if err := f.checked(i); err != nil {
			return value{}, err
		}
		r.series(int32(i), column.Shape.Labels[i], fresh(scan.Within(points, mint, maxt)), nil)
	}
	return r.result()
}

// fresh returns points without staleness markers.
func fresh(points []promql.FPoint) []promql.FPoint {
	marker := func(p promql.FPoint) bool { return stale.IsStaleNaN(p.F) }
	if !slices.ContainsFunc(points, marker) {
		return points
	}
	return slices.DeleteFunc(slices.Clone(points), marker)
}

// overTimeRun is one evaluation of a function, series by series.
type overTimeRun struct {
	overTime
	*frame
	enh    *promql.EvalNodeHelper
	params []promql.Vector
	out    filler
	input  [1]promql.Series
	notes  annotations.Annotations
	total  int64
	// What Prometheus counts as held; see value.
	held, peak int
}

// series calls the function for one series.
func (r *overTimeRun) series(row int32, metric labels.Labels, floats []promql.FPoint, histograms []promql.HPoint) {
	n := len(floats)
	for _, p := range histograms {
		n += histogramSize(p.H)
	}
	if n == 0 {
		return
	}
	r.total += int64(n)
	r.input[0] = promql.Series{Metric: metric, Floats: floats, Histograms: histograms}
	samples, notes := r.function(r.params, r.input[:], r.args, r.enh)
	r.notes.Merge(notes)
	r.enh.Out = samples[:0]
	produced := 0
	if len(samples) > 0 {
		produced = r.add(row, metric, samples[0])
	}
	r.peak = max(r.peak, r.held+n+produced)
	r.held += produced
}

// add takes a result and returns its size.
func (r *overTimeRun) add(row int32, metric labels.Labels, s promql.Sample) int {
	if s.H != nil {
		r.out.addHistogram(row, s.H)
		return histogramSize(s.H)
	}
	r.out.add(row, s.F)
	if (r.name == "rate" || r.name == "increase") && !counts(metric.Get(labels.MetricName)) {
		r.notes.Add(annotations.NewPossibleNonCounterInfo(metric.Get(labels.MetricName), r.args[0].PositionRange()))
	}
	return 1
}

// counts tells whether the name of a metric is none or that of a counter.
func counts(name string) bool {
	return name == "" || strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_sum") ||
		strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_bucket")
}

func (r *overTimeRun) result() (value, error) {
	v := value{vector: r.out.done(), held: r.held, peak: r.peak, total: r.total, notes: r.notes}
	// These act like an offset and keep the name.
	if r.name != "last_over_time" && r.name != "first_over_time" {
		v.shape = nameless(r.frame, v.shape)
	}
	if v.collides() {
		return value{}, reasonCollision
	}
	return v, nil
}

// nameless is a shape without the names of metrics.
func nameless(f *frame, in *scan.Shape) *scan.Shape {
	return derive(f, len(in.Labels), []*scan.Shape{in}, func() *scan.Shape {
		out := scan.Follow(in)
		for _, ls := range in.Labels {
			out.Add(ls.DropReserved(schema.IsMetadataLabel))
		}
		return out.Shape()
	})
}

// number is a literal.
type number float64

func (n number) eval(*frame, []value) (value, error) { return computed(scalar(float64(n))), nil }

// negation is the unary minus.
type negation struct{}

func (negation) eval(f *frame, args []value) (value, error) {
	v := args[0]
	if v.h != nil {
		return value{}, reasonHistograms
	}
	v.shape = nameless(f, v.shape)
	v.f = slices.Clone(v.f)
	for i := range v.f {
		v.f[i] = -v.f[i]
	}
	if v.collides() {
		return value{}, reasonCollision
	}
	return without(v), nil
}

// without is a value that does not count what its operand has counted already.
func without(v value) value {
	v.total, v.notes, v.author = 0, nil, ""
	return v
}

// call is a function.
type call struct {
	name     string
	function promql.FunctionCall
	args     parser.Expressions
	// operands are the places of the arguments among the node's operands, or -1
	// for what is none: strings and the range selector.
	operands []int
	matrix   *matrix
}

func (c call) eval(f *frame, args []value) (value, error) {
	inputs, largest := make([]promql.Vector, len(c.args)), 1
	for i, operand := range c.operands {
		if operand >= 0 {
			inputs[i] = args[operand].samples(f.at())
			largest = max(largest, len(inputs[i]))
		}
	}
	enh := &promql.EvalNodeHelper{Ts: f.at(), Out: make(promql.Vector, 0, largest)}
	samples, notes := c.function(inputs, nil, c.args, enh)
	if samples.ContainsSameLabelset() {
		return value{}, reasonCollision
	}
	v := computed(interned(f, samples), args...)
	v.notes = notes
	return v, nil
}

// interned is a vector of samples, with the shape that it had the last time if
// it has the same series.
func interned(f *frame, samples promql.Vector) vector {
	cache := f.batch.evaluator.derived
	var expected *scan.Shape
	if d := cache.Get(f.node.key); d != nil {
		expected = d.of[0]
	}
	series := scan.Follow(expected)
	out := vector{f: make([]float64, len(samples))}
	for i, s := range samples {
		series.Add(s.Metric)
		out.f[i] = s.F
		if s.H != nil && out.h == nil {
			out.h = make([]*histogram.FloatHistogram, len(samples))
		}
		if s.H != nil {
			out.h[i] = s.H
		}
	}
	if out.shape = series.Shape(); out.shape != expected {
		cache.Put(f.node.key, &derived{of: []*scan.Shape{out.shape}}, int64(len(samples)))
	}
	return out
}
