package scan

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// viewKey names a part of what was read.
type viewKey struct {
	matchers string
	window   window
}

// view returns what a selector sees of a read: the series that match what its
// matchers add, cut to its window. Selectors that see the same share it.
func (e *entry) view(ms []*labels.Matcher, w window) []series {
	k := viewKey{keyOf(ms), w}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.views[k]
	if ok {
		return v
	}
	if v = e.matching(ms); w != e.window {
		v = cut(v, w)
	}
	if e.views == nil {
		e.views = make(map[viewKey][]series)
	}
	e.views[k] = v
	return v
}

// matching returns the series that match the matchers that e lacks. A label
// that a series does not have is empty, in memory as in the storage.
func (e *entry) matching(ms []*labels.Matcher) []series {
	added := slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool {
		return slices.ContainsFunc(e.matchers, func(o *labels.Matcher) bool {
			return m.Name == o.Name && m.Type == o.Type && m.Value == o.Value
		})
	})
	if len(added) == 0 {
		return e.series
	}
	var matching []series
	if i := slices.IndexFunc(added, func(m *labels.Matcher) bool { return m.Type == labels.MatchEqual }); i >= 0 {
		for _, place := range e.places(added[i]) {
			matching = append(matching, e.series[place])
		}
		return slices.DeleteFunc(matching, func(s series) bool { return !matches(s.labels, added) })
	}
	for _, s := range e.series {
		if matches(s.labels, added) {
			matching = append(matching, s)
		}
	}
	return matching
}

func matches(ls labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}

// places returns where the series are that have a label's value.
func (e *entry) places(m *labels.Matcher) []int {
	values, ok := e.index[m.Name]
	if !ok {
		values = make(map[string][]int)
		for i, s := range e.series {
			v := s.labels.Get(m.Name)
			values[v] = append(values[v], i)
		}
		if e.index == nil {
			e.index = make(map[string]map[string][]int)
		}
		e.index[m.Name] = values
	}
	return values[m.Value]
}

// cut returns the series that have samples in a window, with only those.
func cut(all []series, w window) []series {
	part := make([]series, 0, len(all))
	for _, s := range all {
		from := search(s.points, w.mint)
		to := from + search(s.points[from:], w.maxt+1)
		if from < to {
			part = append(part, series{s.labels, s.points[from:to]})
		}
	}
	return part
}

// search returns the place of the first sample that is not before t.
func search(points []promql.FPoint, t int64) int {
	i, _ := slices.BinarySearchFunc(points, t, func(p promql.FPoint, t int64) int { return cmp.Compare(p.T, t) })
	return i
}

// series is a storage.Series in memory; it holds floats only.
type series struct {
	labels labels.Labels
	points []promql.FPoint
}

// Labels implements storage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if own, ok := it.(*iterator); ok {
		*own = iterator{points: s.points, at: -1}
		return own
	}
	return &iterator{points: s.points, at: -1}
}

// iterator implements chunkenc.Iterator.
type iterator struct {
	points []promql.FPoint
	at     int
}

func (it *iterator) Next() chunkenc.ValueType {
	if it.at+1 >= len(it.points) {
		it.at = len(it.points)
		return chunkenc.ValNone
	}
	it.at++
	return chunkenc.ValFloat
}

func (it *iterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // A chunkenc.Iterator is no io.Seeker.
	it.at = max(it.at, 0)
	if it.at < len(it.points) && it.points[it.at].T < t {
		it.at += search(it.points[it.at:], t)
	}
	if it.at >= len(it.points) {
		return chunkenc.ValNone
	}
	return chunkenc.ValFloat
}

func (it *iterator) At() (int64, float64) { p := it.points[it.at]; return p.T, p.F }
func (it *iterator) AtT() int64           { return it.points[it.at].T }
func (it *iterator) Err() error           { return nil }

// AtHistogram and AtFloatHistogram may not be called: there are only floats.
func (it *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("scan: a float is no histogram")
}

func (it *iterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("scan: a float is no histogram")
}

// seriesSet hands out a view.
type seriesSet struct {
	view     []series
	at       int
	warnings annotations.Annotations
}

var _ storage.SeriesSet = (*seriesSet)(nil)

func (s *seriesSet) Next() bool                        { s.at++; return s.at <= len(s.view) }
func (s *seriesSet) At() storage.Series                { return &s.view[s.at-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return s.warnings }
