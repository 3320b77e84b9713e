package scan

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// slabSamples is how many samples are allocated at once.
const slabSamples = 4096

// entry is one read of the storage that selectors share.
type entry struct {
	batch    *Batch
	key      string
	matchers []*labels.Matcher
	window   window
	columns  bool
	// queries ask for it; wider is the read that answers in its place.
	queries []int
	wider   *entry

	// refs counts the queries and readers that still need it; at zero it is
	// gone for good.
	refs atomic.Int64
	once sync.Once
	done chan struct{}

	// What was read, valid once done is closed. result is one of the metric's.
	result   string
	querier  storage.Querier
	column   Column
	warnings annotations.Annotations
	samples  int64
	err      error

	mu    sync.Mutex
	views map[string]Column
	index map[string]map[string][]int32
}

func newEntry(b *Batch, key string, n need) *entry {
	return &entry{batch: b, key: key, matchers: n.matchers, window: n.window, done: make(chan struct{})}
}

// root is the read that answers for e.
func (e *entry) root() *entry {
	for e.wider != nil {
		e = e.wider
	}
	return e
}

// retain keeps the read alive; it is too late if nobody did so far.
func (e *entry) retain() bool {
	for n := e.refs.Load(); n > 0; n = e.refs.Load() {
		if e.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// release frees what was read when nobody needs it any more.
func (e *entry) release() {
	if e.refs.Add(-1) > 0 {
		return
	}
	e.drop()
	e.views, e.index = nil, nil
	if e.querier != nil {
		// Everything was read, so the error would be about nothing.
		_ = e.querier.Close()
	}
}

// drop gives the memory of the samples back.
func (e *entry) drop() {
	e.batch.scanner.budget.give(e.samples)
	e.samples, e.column = 0, Column{}
}

// start begins to read, once. It does so on a goroutine of its own, so that a
// query that gives up does not take the others with it. The caller holds a
// reference.
func (e *entry) start() {
	e.once.Do(func() {
		e.refs.Add(1)
		e.batch.reads.Go(func() {
			defer e.release()
			defer close(e.done)
			e.read()
			e.batch.scanner.metrics.reads.WithLabelValues(e.result).Inc()
		})
	})
}

func (e *entry) read() {
	defer func() {
		if r := recover(); r != nil {
			e.fail(fmt.Errorf("panic: %v", r))
		}
	}()
	q, err := e.batch.scanner.queryable.Querier(e.window.mint, e.window.maxt)
	if err != nil {
		e.fail(err)
		return
	}
	e.querier = q
	// The decoder cuts at the window for less than the storage would.
	hints := &storage.SelectHints{Start: e.window.mint, End: e.window.maxt, DisableTrimming: true}
	set := q.Select(e.batch.ctx, false, hints, slices.Clone(e.matchers)...)
	if e.result, err = e.decode(set); err != nil {
		e.fail(err)
		return
	}
	e.warnings = set.Warnings()
	if e.result != resultShared {
		e.drop()
	}
}

func (e *entry) fail(err error) {
	e.result, e.err = resultError, fmt.Errorf("read %s for a batch: %w", e.matchers, err)
	e.drop()
}

// decode reads the series of a set into memory unless there is a reason not
// to.
func (e *entry) decode(set storage.SeriesSet) (result string, err error) {
	var (
		d  decoder
		it chunkenc.Iterator
	)
	expected := e.batch.scanner.shapes.Get(e.key).shape
	if expected != nil {
		e.column.Points = make([][]promql.FPoint, 0, len(expected.Labels))
	}
	series := Follow(expected)
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		points, last := d.floats(it, e.window)
		if last != chunkenc.ValNone {
			return resultHistograms, nil
		}
		if err := errors.Join(it.Err(), e.batch.ctx.Err()); err != nil {
			return "", err
		}
		n := int64(len(points))
		if !e.batch.scanner.budget.take(n) {
			return resultLimit, nil
		}
		e.samples += n
		if n > 0 {
			series.Add(s.Labels())
			e.column.Points = append(e.column.Points, points)
		}
	}
	if e.column.Shape = series.Shape(); e.column.Shape != expected {
		e.batch.scanner.shapes.Put(e.key, known{shape: e.column.Shape}, int64(len(e.column.Points)))
	}
	return resultShared, set.Err()
}

// decoder cuts the samples of many series out of few slabs of memory.
type decoder struct{ slab []promql.FPoint }

// floats reads the floats in a window until the series ends or a sample is
// none; it returns the type of that one.
func (d *decoder) floats(it chunkenc.Iterator, w window) ([]promql.FPoint, chunkenc.ValueType) {
	start := len(d.slab)
	kind := it.Seek(w.mint)
	for ; kind == chunkenc.ValFloat; kind = it.Next() {
		t, f := it.At()
		if t > w.maxt {
			kind = chunkenc.ValNone
			break
		}
		if len(d.slab) == cap(d.slab) {
			begun := d.slab[start:]
			d.slab = append(make([]promql.FPoint, 0, max(slabSamples, 2*len(begun))), begun...)
			start = 0
		}
		d.slab = append(d.slab, promql.FPoint{T: t, F: f})
	}
	return d.slab[start:len(d.slab):len(d.slab)], kind
}
