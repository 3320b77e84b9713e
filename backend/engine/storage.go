package engine

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// marked is a storage that marks its errors as promql.ErrStorage, which sets
// them apart from errors that the expression is to blame for. It asks not to
// trim: the engines skip what is outside of their windows for less than the
// TSDB does, which moreover panics if it has to trim both ends of a series
// that has been deleted in part. Not so below timestamp: both ignore the offset
// there if there is an @, too, and find the right sample because the storage
// has no later one for them.
type marked struct{ storage.Queryable }

// Querier implements storage.Queryable.
func (m marked) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := m.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, promql.ErrStorage{Err: err}
	}
	return markedQuerier{q}, nil
}

type markedQuerier struct{ storage.Querier }

// Select implements storage.Querier.
func (q markedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	if hints != nil && hints.Func != "timestamp" {
		untrimmed := *hints
		untrimmed.DisableTrimming = true
		hints = &untrimmed
	}
	return markedSet{q.Querier.Select(ctx, sorted, hints, matchers...)}
}

type markedSet struct{ storage.SeriesSet }

// Err implements storage.SeriesSet. The error of a query that was cancelled is
// not the storage's.
func (s markedSet) Err() error {
	err := s.SeriesSet.Err()
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return promql.ErrStorage{Err: err}
}

// watched is the storage as one query of promql-engine sees it. It notes
// whether the query has read native histograms, or a series that changes between
// floats and them, whether it has read a float that is infinite or not a number, and
// whether one of its selectors has found metrics of several names.
type watched struct {
	storage.Queryable
	histograms, mixed, notFinite, names atomic.Bool
}

// Querier implements storage.Queryable.
func (w *watched) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := w.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &watchedQuerier{q, w}, nil
}

type watchedQuerier struct {
	storage.Querier
	query *watched
}

// Select implements storage.Querier.
func (q *watchedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	named := slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == labels.MetricName && m.Type == labels.MatchEqual })
	return &watchedSet{SeriesSet: q.Querier.Select(ctx, sorted, hints, matchers...), query: q.query, named: named}
}

type watchedSet struct {
	storage.SeriesSet
	query *watched
	// named is set if there is nothing to find out about names; else first is
	// the name of the first series, once begun.
	named, begun bool
	first        string
}

// At implements storage.SeriesSet.
func (s *watchedSet) At() storage.Series {
	series := s.SeriesSet.At()
	if !s.named {
		s.noteName(series.Labels().Get(labels.MetricName))
	}
	return &watchedSeries{series, s.query}
}

func (s *watchedSet) noteName(name string) {
	if !s.begun {
		s.begun, s.first = true, name
	}
	if name != s.first {
		s.query.names.Store(true)
		s.named = true
	}
}

type watchedSeries struct {
	storage.Series
	query *watched
}

// Iterator implements storage.Series.
func (s *watchedSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if w, ok := it.(*watchedIterator); ok {
		it = w.Iterator
	}
	return &watchedIterator{Iterator: s.Series.Iterator(it), query: s.query}
}

// watchedIterator notes the types of the samples that are read.
type watchedIterator struct {
	chunkenc.Iterator
	query              *watched
	floats, histograms bool
}

// At implements chunkenc.Iterator.
func (it *watchedIterator) At() (int64, float64) {
	if !it.floats {
		it.floats = true
		it.note()
	}
	t, f := it.Iterator.At()
	if f-f != 0 && !value.IsStaleNaN(f) {
		it.query.notFinite.Store(true)
	}
	return t, f
}

// AtHistogram implements chunkenc.Iterator.
func (it *watchedIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	it.noteHistogram()
	return it.Iterator.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *watchedIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	it.noteHistogram()
	return it.Iterator.AtFloatHistogram(h)
}

func (it *watchedIterator) noteHistogram() {
	if !it.histograms {
		it.histograms = true
		it.query.histograms.Store(true)
		it.note()
	}
}

func (it *watchedIterator) note() {
	if it.floats && it.histograms {
		it.query.mixed.Store(true)
	}
}
