package evaluator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
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
		failed := classify("", r.Err)
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
	answers   *answers
}

func (m *merge) query(ctx context.Context, i int) outcome {
	q := m.plan.Queries[i]
	if q.Err != nil {
		return outcome{err: q.Err}
	}
	var o outcome
	for _, f := range q.Fragments {
		answer := m.answers.results[f]
		switch {
		case errors.Is(answer.Err, remote.ErrHistogram):
			return outcome{raw: rawJSONHistogram}
		case m.plan.Fragments[f].Summed && leftOut(answer.Warnings):
			return outcome{raw: rawMixedTypes}
		case m.plan.Fragments[f].Averaged && overflows(answer.Value):
			return outcome{raw: rawOverflow}
		case answer.Err != nil:
			o.err = answer.Err
		}
		o.warnings.Merge(answer.Warnings)
	}
	if o.err != nil {
		return o
	}
	if q.Direct >= 0 {
		o.value = m.direct(q.Direct)
		return o
	}
	return m.local(ctx, q, o)
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

// local evaluates what is left of a query over sites and raw series.
func (m *merge) local(ctx context.Context, q plan.QueryPlan, o outcome) outcome {
	data := &localData{merge: m}
	query, err := m.newQuery(ctx, data, q.Local.String())
	if err != nil {
		o.err = err
		return o
	}
	defer query.Close()
	res := query.Exec(ctx)
	o.warnings.Merge(res.Warnings)
	o.err = res.Err
	switch {
	case res.Err == nil:
		o.value = remote.Kept(res.Value)
	case data.fault != nil:
		// The engine's word for a late backend does not name it.
		o.err = data.fault
	}
	return o
}

func (m *merge) newQuery(ctx context.Context, data *localData, expr string) (promql.Query, error) {
	w := m.batch.options.Window
	opts := promql.NewPrometheusQueryOpts(false, m.batch.lookback)
	if w.Step == 0 {
		return m.evaluator.local.NewInstantQuery(ctx, data, opts, expr, timestamp.Time(w.Start))
	}
	return m.evaluator.local.NewRangeQuery(ctx, data, opts, expr, timestamp.Time(w.Start), timestamp.Time(w.End), time.Duration(w.Step)*time.Millisecond)
}

// localData is the storage of one local expression: sites and raw series.
type localData struct {
	merge *merge
	// fault is the first error of fetching raw series. The engine selects
	// from one goroutine.
	fault error
}

// Querier implements storage.Queryable.
func (d *localData) Querier(mint, maxt int64) (storage.Querier, error) {
	raw, err := d.merge.evaluator.raw.Querier(mint, maxt)
	return localQuerier{raw, d}, err
}

type localQuerier struct {
	storage.Querier
	data *localData
}

// Select implements storage.Querier.
func (q localQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	m := q.data.merge
	if site, ok := plan.SiteOf(matchers); ok {
		i, err := strconv.Atoi(site)
		if err != nil || i < 0 || i >= len(m.plan.Sites) {
			return storage.ErrSeriesSet(&Error{Kind: KindInternal, Err: fmt.Errorf("site %q is not in the plan", site)})
		}
		return m.site(m.plan.Sites[i])
	}
	m.evaluator.metrics.selects.Inc()
	began := time.Now()
	set := q.Querier.Select(ctx, sorted, hints, matchers...)
	if q.data.fault == nil {
		q.data.fault = set.Err()
	}
	return observeFetch(ctx, set, matchers, began)
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
