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

// Column is the samples of series.
type Column struct {
	Shape *Shape
	// Points are the floats of each label set of Shape, oldest first. They are
	// only read.
	Points [][]promql.FPoint
}

// known is what is kept from batch to batch: the shape of a read or, with
// parent and rows, which series of a read have the matchers of a narrower
// selector.
type known struct {
	shape, parent *Shape
	rows          []int32
}

// view returns what a selector sees of a read: the series that match what its
// matchers add. Selectors that see the same share it.
func (e *entry) view(ms []*labels.Matcher) Column {
	added := e.added(ms)
	if len(added) == 0 {
		return e.column
	}
	k := keyOf(added)
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.views[k]
	if ok {
		return v
	}
	part := e.part(k, added)
	v = Column{part.shape, make([][]promql.FPoint, len(part.rows))}
	for i, row := range part.rows {
		v.Points[i] = e.column.Points[row]
	}
	if e.views == nil {
		e.views = make(map[string]Column)
	}
	e.views[k] = v
	return v
}

// added returns the matchers that e lacks.
func (e *entry) added(ms []*labels.Matcher) (added []*labels.Matcher) {
	for _, m := range ms {
		if !slices.ContainsFunc(e.matchers, func(own *labels.Matcher) bool { return same(own, m) }) {
			added = append(added, m)
		}
	}
	return added
}

// part returns the series that match, from memory if the read has the series
// that it had the last time.
func (e *entry) part(key string, added []*labels.Matcher) known {
	key = e.key + key
	shapes := e.batch.scanner.shapes
	p := shapes.Get(key)
	if p.shape != nil && p.parent == e.column.Shape {
		return p
	}
	series := Follow(p.shape)
	p = known{parent: e.column.Shape, rows: e.matching(added)}
	for _, row := range p.rows {
		series.Add(p.parent.Labels[row])
	}
	p.shape = series.Shape()
	shapes.Put(key, p, int64(len(p.rows)))
	return p
}

// matching returns the places of the series that match. A label that a series
// does not have is empty, in memory as in the storage.
func (e *entry) matching(ms []*labels.Matcher) (rows []int32) {
	all := e.column.Shape.Labels
	if i := slices.IndexFunc(ms, func(m *labels.Matcher) bool { return m.Type == labels.MatchEqual }); i >= 0 {
		for _, row := range e.places(ms[i]) {
			if matches(all[row], ms) {
				rows = append(rows, row)
			}
		}
		return rows
	}
	for row, ls := range all {
		if matches(ls, ms) {
			rows = append(rows, int32(row))
		}
	}
	return rows
}

func matches(ls labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}

// places returns where the series are that have a label's value.
func (e *entry) places(m *labels.Matcher) []int32 {
	values, ok := e.index[m.Name]
	if !ok {
		values = make(map[string][]int32)
		for i, ls := range e.column.Shape.Labels {
			v := ls.Get(m.Name)
			values[v] = append(values[v], int32(i))
		}
		if e.index == nil {
			e.index = make(map[string]map[string][]int32)
		}
		e.index[m.Name] = values
	}
	return values[m.Value]
}

// cut returns the samples in a window.
func cut(points []promql.FPoint, w window) []promql.FPoint {
	from := search(points, w.mint)
	to := from + search(points[from:], w.maxt+1)
	return points[from:to]
}

// search returns the place of the first sample that is not before t.
func search(points []promql.FPoint, t int64) int {
	if n := len(points); n == 0 || points[n-1].T < t {
		return n // The newest samples are what most ask for.
	}
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

// seriesSet hands out the series of a column that have samples in a window.
type seriesSet struct {
	column   Column
	window   window
	at       int
	series   *series
	warnings annotations.Annotations
}

var _ storage.SeriesSet = (*seriesSet)(nil)

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	for ; s.at < len(s.column.Points); s.at++ {
		if points := cut(s.column.Points[s.at], s.window); len(points) > 0 {
			s.series = &series{s.column.Shape.Labels[s.at], points}
			s.at++
			return true
		}
	}
	return false
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.series }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return s.warnings }
