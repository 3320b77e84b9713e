package evaluator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// checked makes sure that an answer comes from the partition that the backend
// is configured to hold; another one's data would be counted twice or lost.
func (e *Evaluator) checked(f plan.Fragment, r remote.Result) remote.Result {
	name := e.backends[f.Backend].Name
	if r.Err != nil {
		failed := classify(r.Err)
		failed.Backend = name
		r.Err = failed
		return r
	}
	if !f.Partitioned {
		return r
	}
	for _, metric := range metricsOf(r.Value) {
		if stray := strayLabel(e.backends[f.Backend].Partition, metric); stray != "" {
			r.Err = &Error{Kind: KindBackend, Backend: name, Err: fmt.Errorf(
				"series %s is outside the backend's partition %s: its label %q differs; correct partition_labels, or set virtual if the stored series lack them",
				metric, e.backends[f.Backend].Partition, stray)}
			return r
		}
	}
	return r
}

func metricsOf(v parser.Value) []labels.Labels {
	var metrics []labels.Labels
	switch v := v.(type) {
	case promql.Vector:
		for _, s := range v {
			metrics = append(metrics, s.Metric)
		}
	case promql.Matrix:
		for _, s := range v {
			metrics = append(metrics, s.Metric)
		}
	}
	return metrics
}

func strayLabel(partition, metric labels.Labels) (stray string) {
	partition.Range(func(l labels.Label) {
		if metric.Get(l.Name) != l.Value {
			stray = l.Name
		}
	})
	return stray
}

// merge computes the outcomes of a batch from the answers to its fragments.
type merge struct {
	evaluator *Evaluator
	batch     batch
	plan      *plan.Plan
	answers   answers
	// scalars are parallel to the plan's.
	scalars []func() outcome
	// permits bound what is evaluated here at one time.
	permits chan struct{}
}

func newMerge(ctx context.Context, e *Evaluator, b batch, p *plan.Plan) *merge {
	m := &merge{evaluator: e, batch: b, plan: p, permits: make(chan struct{}, runtime.GOMAXPROCS(0))}
	m.scalars = m.newScalars(ctx)
	return m
}

func (m *merge) query(ctx context.Context, i int) outcome {
	q := m.plan.Queries[i]
	if q.Err != nil {
		return outcome{err: q.Err}
	}
	var o outcome
	var total Cost
	var content bool
	if m.batch.queries[i].Partial {
		o.warnings, content = m.missing(q)
	}
	for _, f := range q.Fragments {
		answer := m.answers.results[f]
		cost := costOf(answer)
		total = total.plus(cost)
		o.cost = o.cost.plus(cost.share(len(m.plan.Fragments[f].Consumers)))
		switch {
		case errors.Is(answer.Err, remote.ErrHistogram):
			return outcome{raw: rawJSONHistogram}
		case m.plan.Fragments[f].Summed && leftOut(answer.Warnings):
			return outcome{raw: rawMixedTypes}
		case m.plan.Fragments[f].Averaged && overflows(answer.Value):
			return outcome{raw: rawOverflow}
		case answer.Err != nil && !content:
			o.err = answer.Err
		}
		o.warnings.Merge(answer.Warnings)
	}
	for _, i := range q.Scalars {
		s := m.scalars[i]()
		total = total.plus(s.cost)
		o.cost = o.cost.plus(s.cost.share(len(m.plan.Scalars[i].Consumers)))
		o.warnings.Merge(s.warnings)
		if o.err == nil {
			o.err = s.err
		}
	}
	limits := m.batch.queries[i].Limits
	if o.err == nil {
		o.err = total.check(limits)
	}
	if o.err != nil {
		return o
	}
	if q.Direct >= 0 {
		o.value = m.direct(q.Direct)
		return o
	}
	local := &localQuery{merge: m, limits: limits, partial: m.batch.queries[i].Partial, recorded: m.batch.recorded[i], cost: total}
	o = local.run(ctx, q.Local, o)
	o.cost = o.cost.plus(local.fetched)
	return o
}

// leftOut tells whether a backend left a group out of a sum, or may have since
// it does not show all its remarks.
func leftOut(ws annotations.Annotations) bool {
	for text, w := range ws {
		if errors.Is(w, annotations.MixedExponentialCustomHistogramsWarning) || remote.Omitted(text) ||
			strings.HasPrefix(text, annotations.MixedFloatsHistogramsWarning.Error()+" aggregation") {
			return true
		}
	}
	return false
}

// overflows tells whether a sum is, or adds up with others to, more than a
// float can hold. Prometheus has another way to a mean then.
func overflows(v parser.Value) bool {
	const most = math.MaxFloat64 / (1 << 20)
	huge := func(f float64) bool { return f > most || f < -most }
	hugeHistogram := func(h *histogram.FloatHistogram) bool { return h != nil && (huge(h.Count) || huge(h.Sum)) }
	switch v := v.(type) {
	case promql.Vector:
		return slices.ContainsFunc(v, func(s promql.Sample) bool { return huge(s.F) || hugeHistogram(s.H) })
	case promql.Matrix:
		return slices.ContainsFunc(v, func(s promql.Series) bool {
			return slices.ContainsFunc(s.Floats, func(p promql.FPoint) bool { return huge(p.F) }) ||
				slices.ContainsFunc(s.Histograms, func(p promql.HPoint) bool { return hugeHistogram(p.H) })
		})
	}
	return false
}

// direct is the union of the answers of a site.
func (m *merge) direct(site int) parser.Value {
	fragments := m.plan.Sites[site].Fragments
	if len(fragments) == 1 {
		return m.answers.results[fragments[0]].Value
	}
	var vector promql.Vector
	var matrix promql.Matrix
	for _, f := range fragments {
		switch v := m.answers.results[f].Value.(type) {
		case promql.Vector:
			vector = append(vector, v...)
		case promql.Matrix:
			matrix = append(slices.Grow(matrix, 1), v...) // Not nil, if empty.
		}
	}
	if matrix != nil || m.batch.options.Window.Step != 0 {
		return matrix
	}
	return vector
}

// site presents the answers of a site as stored series.
func (m *merge) site(s plan.Site) storage.SeriesSet {
	var list []promql.Series
	for _, f := range s.Fragments {
		list = append(list, seriesOf(m.answers.results[f].Value, s.Window)...)
	}
	slices.SortFunc(list, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
	return &seriesSet{list: list}
}

// seriesOf has a sample exactly where the fragment had a value. On the grid of
// a range the end of a value is marked as stale, lest an instant selector look
// back beyond it.
func seriesOf(v parser.Value, w plan.Window) []promql.Series {
	switch v := v.(type) {
	case promql.Scalar:
		return []promql.Series{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
	case promql.Vector:
		list := make([]promql.Series, len(v))
		for i, s := range v {
			list[i].Metric = s.Metric
			if s.H != nil {
				list[i].Histograms = []promql.HPoint{{T: s.T, H: s.H}}
			} else {
				list[i].Floats = []promql.FPoint{{T: s.T, F: s.F}}
			}
		}
		return list
	case promql.Matrix:
		list := make([]promql.Series, len(v))
		for i, s := range v {
			list[i] = withStaleMarkers(s, w)
		}
		return list
	}
	return nil
}

func withStaleMarkers(s promql.Series, w plan.Window) promql.Series {
	times := make([]int64, 0, len(s.Floats)+len(s.Histograms))
	for _, p := range s.Floats {
		times = append(times, p.T)
	}
	for _, p := range s.Histograms {
		times = append(times, p.T)
	}
	slices.Sort(times)
	floats := slices.Clone(s.Floats)
	for i, t := range times {
		next := t + w.Step
		if next <= w.End && (i+1 == len(times) || times[i+1] != next) {
			floats = append(floats, promql.FPoint{T: next, F: math.Float64frombits(value.StaleNaN)})
		}
	}
	slices.SortFunc(floats, func(a, b promql.FPoint) int { return int(a.T - b.T) })
	return promql.Series{Metric: s.Metric, Floats: floats, Histograms: s.Histograms}
}

type seriesSet struct {
	list []promql.Series
	next int
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	s.next++
	return s.next <= len(s.list)
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return promql.NewStorageSeries(s.list[s.next-1]) }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
