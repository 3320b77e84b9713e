package scan

import (
	"context"
	"errors"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// querier is the storage as one query of a batch sees it.
type querier struct {
	batch      *Batch
	mint, maxt int64

	mu     sync.Mutex
	direct storage.Querier
	shared []*entry
	closed bool
}

var errClosed = errors.New("reader of a batch is closed")

// Select implements storage.Querier.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if sorted || hints == nil || hints.Limit != 0 || hints.ShardCount != 0 {
		return q.selectDirect(ctx, sorted, hints, ms)
	}
	sortedMatchers, w := sortMatchers(ms), window{hints.Start, hints.End}
	e := find(q.batch.entries[keyOf(sortedMatchers)], w)
	if e == nil || !q.join(e.root()) {
		return q.selectDirect(ctx, sorted, hints, ms)
	}
	return &lazySet{open: func() storage.SeriesSet {
		root := e.root()
		select {
		case <-root.done:
		case <-ctx.Done():
			return storage.ErrSeriesSet(ctx.Err())
		}
		switch root.result {
		case resultError:
			return storage.ErrSeriesSet(root.err)
		case resultShared:
			return &seriesSet{column: root.view(sortedMatchers), window: w, warnings: root.warnings}
		}
		return q.selectDirect(ctx, sorted, hints, ms)
	}}
}

// join makes the querier a user of a read until it is closed.
func (q *querier) join(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || !e.retain() {
		return false
	}
	q.shared = append(q.shared, e)
	e.start()
	return true
}

func (q *querier) selectDirect(ctx context.Context, sorted bool, hints *storage.SelectHints, ms []*labels.Matcher) storage.SeriesSet {
	direct, err := q.open()
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return direct.Select(ctx, sorted, hints, ms...)
}

// open returns the storage's querier, which most queries do without.
func (q *querier) open() (storage.Querier, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, errClosed
	}
	if q.direct == nil {
		direct, err := q.batch.scanner.queryable.Querier(q.mint, q.maxt)
		if err != nil {
			return nil, err
		}
		q.direct = direct
	}
	return q.direct, nil
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	direct, err := q.open()
	if err != nil {
		return nil, nil, err
	}
	return direct.LabelValues(ctx, name, hints, ms...)
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	direct, err := q.open()
	if err != nil {
		return nil, nil, err
	}
	return direct.LabelNames(ctx, hints, ms...)
}

// Close implements storage.LabelQuerier.
func (q *querier) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	for _, e := range q.shared {
		e.release()
	}
	if q.direct != nil {
		return q.direct.Close()
	}
	return nil
}

// lazySet waits for its series when they are asked for, so that the reads of
// one query overlap.
type lazySet struct {
	open func() storage.SeriesSet
	set  storage.SeriesSet
}

// Next implements storage.SeriesSet.
func (s *lazySet) Next() bool {
	if s.set == nil {
		s.set = s.open()
	}
	return s.set.Next()
}

// At implements storage.SeriesSet.
func (s *lazySet) At() storage.Series { return s.set.At() }

// Err implements storage.SeriesSet.
func (s *lazySet) Err() error {
	if s.set == nil {
		return nil
	}
	return s.set.Err()
}

// Warnings implements storage.SeriesSet.
func (s *lazySet) Warnings() annotations.Annotations {
	if s.set == nil {
		return nil
	}
	return s.set.Warnings()
}
