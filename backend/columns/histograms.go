package columns

import (
	"github.com/prometheus/prometheus/model/histogram"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

// histograms evaluates the function over series of which some have native
// histograms. They are read just as Prometheus reads them, for this window alone:
// their counter reset hints depend on where reading begins.
func (r *overTimeRun) histograms(mint, maxt int64) (value, error) {
	if r.matrix.skipBuckets {
		return value{}, reasonHistograms
	}
	q, err := r.batch.scan.Querier(mint+1, maxt)
	if err != nil {
		return value{}, reasonRead
	}
	// What matters was read by then.
	defer func() { _ = q.Close() }()
	hints := &storage.SelectHints{Start: mint + 1, End: maxt, Range: r.matrix.duration, Func: r.name, DisableTrimming: true}
	if err := r.each(q.Select(r.ctx, false, hints, r.matrix.matchers...), mint, maxt); err != nil {
		return value{}, err
	}
	return r.result()
}

// each calls the function for every series of a set.
func (r *overTimeRun) each(set storage.SeriesSet, mint, maxt int64) error {
	cache, key := r.batch.evaluator.derived, r.node.key+" histograms"
	var expected *scan.Shape
	if d := cache.Get(key); d != nil {
		expected = d.of[0]
	}
	var (
		all   = scan.Follow(expected)
		w     = newWindow(mint, maxt)
		chunk chunkenc.Iterator
	)
	row := int32(0)
	for ; set.Next(); row++ {
		if err := r.checked(int(row)); err != nil {
			return err
		}
		s := set.At()
		all.Add(s.Labels())
		chunk = s.Iterator(chunk)
		if !w.read(chunk) {
			return reasonRead
		}
		r.series(row, s.Labels(), w.floats, w.histograms)
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if set.Err() != nil || len(set.Warnings()) > 0 {
		return reasonRead
	}
	if r.out.shape = all.Shape(); r.out.shape != expected {
		cache.Put(key, &derived{of: []*scan.Shape{r.out.shape}}, int64(row))
	}
	return nil
}

// window is the samples of one series after another between two instants, the
// first of which is excluded. Memory is reused from series to series.
type window struct {
	mint, maxt int64
	it         *storage.BufferedSeriesIterator
	floats     []promql.FPoint
	histograms []promql.HPoint
}

func newWindow(mint, maxt int64) *window {
	return &window{mint: mint, maxt: maxt, it: storage.NewBuffer(maxt - mint)}
}

// read reads a series; it returns false if the storage fails.
func (w *window) read(series chunkenc.Iterator) bool {
	w.floats, w.histograms = w.floats[:0], w.histograms[:0]
	w.it.Reset(series)
	last := w.it.Seek(w.maxt)
	if last == chunkenc.ValNone && w.it.Err() != nil {
		return false
	}
	before := w.it.Buffer()
	for kind := before.Next(); kind != chunkenc.ValNone; kind = before.Next() {
		if kind == chunkenc.ValFloat {
			w.float(before.At())
		} else if before.AtT() > w.mint {
			w.histogram(before.AtFloatHistogram)
		}
	}
	switch {
	case last == chunkenc.ValNone || w.it.AtT() != w.maxt:
	case last == chunkenc.ValFloat:
		w.float(w.it.At())
	default:
		w.histogram(w.it.AtFloatHistogram)
	}
	return true
}

func (w *window) float(t int64, f float64) {
	if t > w.mint && !stale.IsStaleNaN(f) {
		w.floats = append(w.floats, promql.FPoint{T: t, F: f})
	}
}

// histogram takes one more from where it is read, into memory of its own.
func (w *window) histogram(at func(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram)) {
	n := len(w.histograms)
	if n < cap(w.histograms) {
		w.histograms = w.histograms[:n+1]
	} else {
		w.histograms = append(w.histograms, promql.HPoint{})
	}
	p := &w.histograms[n]
	if p.H == nil {
		p.H = &histogram.FloatHistogram{}
	}
	p.T, p.H = at(p.H)
	if stale.IsStaleNaN(p.H.Sum) {
		w.histograms = w.histograms[:n]
	}
}
