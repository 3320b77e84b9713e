package wal

import (
	"context"
	"errors"
	"hash/maphash"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// Appender gathers the samples of one scrape and writes them with Commit. The
// labels must be given with every call, as the scrape manager does: the log
// has none.
type Appender struct {
	log     *Log
	samples []sample
	// metadata and exemplars are rare after a series' first scrape.
	metadata  []seriesMetadata
	exemplars []seriesExemplar
	buf       []byte
}

// sample has a histogram or v.
type sample struct {
	series *series
	labels labels.Labels
	t      int64
	v      float64
	h      *histogram.Histogram
	fh     *histogram.FloatHistogram
}

type seriesMetadata struct {
	series *series
	metadata.Metadata
}

type seriesExemplar struct {
	ref    storage.SeriesRef
	series *series
	exemplar.Exemplar
}

var (
	_ storage.Appendable = (*Log)(nil)
	_ storage.Appender   = (*Appender)(nil)
)

// Appender is part of storage.Appendable. The context is not used.
func (l *Log) Appender(context.Context) storage.Appender {
	if a, ok := l.buffers.Get().(*Appender); ok {
		return a
	}
	return &Appender{log: l}
}

// SetOptions is part of storage.Appender. What is out of order is refused
// always.
func (*Appender) SetOptions(*storage.AppendOptions) {}

// Append is part of storage.Appender.
func (a *Appender) Append(ref storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	return a.add(ref, sample{labels: l, t: t, v: v})
}

// AppendHistogram is part of storage.Appender.
func (a *Appender) AppendHistogram(ref storage.SeriesRef, l labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	var err error
	if h != nil {
		err = h.Validate()
	} else {
		err = fh.Validate()
	}
	if err != nil {
		return 0, err
	}
	return a.add(ref, sample{labels: l, t: t, h: h, fh: fh})
}

// add checks the sample against the last one of its series. One that was
// committed with the same value is left out silently, as a target exposes it
// that gives timestamps and has no news.
func (a *Appender) add(ref storage.SeriesRef, s sample) (storage.SeriesRef, error) {
	ref = a.refOf(ref, s.labels)
	series, t, v := a.log.find(ref)
	switch {
	case s.t > t:
		s.series = series
		a.samples = append(a.samples, s)
		return ref, nil
	case s.t < t:
		return ref, storage.ErrOutOfOrderSample
	case s.h == nil && s.fh == nil && math.Float64bits(s.v) != math.Float64bits(v):
		return ref, storage.ErrDuplicateSampleForTimestamp
	}
	return ref, nil
}

func (a *Appender) refOf(ref storage.SeriesRef, l labels.Labels) storage.SeriesRef {
	if ref == 0 {
		ref, a.buf = a.log.ref(l, a.buf)
	}
	return ref
}

// AppendSTZeroSample is part of storage.Appender.
func (a *Appender) AppendSTZeroSample(ref storage.SeriesRef, l labels.Labels, t, st int64) (storage.SeriesRef, error) {
	return a.addZero(ref, t, sample{labels: l, t: st})
}

// AppendHistogramSTZeroSample is part of storage.Appender.
func (a *Appender) AppendHistogramSTZeroSample(ref storage.SeriesRef, l labels.Labels, t, st int64, h *histogram.Histogram, _ *histogram.FloatHistogram) (storage.SeriesRef, error) {
	if h != nil {
		return a.addZero(ref, t, sample{labels: l, t: st, h: &histogram.Histogram{}})
	}
	return a.addZero(ref, t, sample{labels: l, t: st, fh: &histogram.FloatHistogram{}})
}

// addZero adds the sample that a counter began with, unless it began before
// the log was opened: Prometheus sends no such sample either, and an earlier
// process may have.
func (a *Appender) addZero(ref storage.SeriesRef, t int64, zero sample) (storage.SeriesRef, error) {
	if zero.t >= t {
		return ref, storage.ErrSTNewerThanSample
	}
	ref = a.refOf(ref, zero.labels)
	if series, last, _ := a.log.find(ref); zero.t > max(last, a.log.opened) {
		zero.series = series
		a.samples = append(a.samples, zero)
		return ref, nil
	}
	return ref, storage.ErrOutOfOrderST
}

// AppendExemplar is part of storage.Appender.
func (a *Appender) AppendExemplar(ref storage.SeriesRef, l labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	ref = a.refOf(ref, l)
	series, _, _ := a.log.find(ref)
	a.exemplars = append(a.exemplars, seriesExemplar{ref, series, e})
	return ref, nil
}

// UpdateMetadata is part of storage.Appender.
func (a *Appender) UpdateMetadata(ref storage.SeriesRef, l labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	ref = a.refOf(ref, l)
	series, _, _ := a.log.find(ref)
	a.metadata = append(a.metadata, seriesMetadata{series, m})
	return ref, nil
}

// Commit is part of storage.Appender.
func (a *Appender) Commit() error {
	return errors.Join(a.log.commit(a), a.Rollback())
}

// Rollback is part of storage.Appender.
func (a *Appender) Rollback() error {
	clear(a.samples)
	clear(a.metadata)
	clear(a.exemplars)
	a.samples, a.metadata, a.exemplars = a.samples[:0], a.metadata[:0], a.exemplars[:0]
	a.log.buffers.Put(a)
	return nil
}

// encode fills the encoder with what is new in an Appender and returns the
// number of samples.
func (l *Log) encode(a *Appender) (samples int) {
	l.encoder.reset()
	for _, m := range a.metadata {
		if id := l.metaID(m.Metadata); id != m.series.meta {
			m.series.meta, m.series.number = id, 0
		}
	}
	for i := range a.samples {
		l.encodeSample(&a.samples[i])
	}
	for i := range a.exemplars {
		l.encodeExemplar(&a.exemplars[i])
	}
	floats, histograms := l.encoder.floats.n, l.encoder.histograms.n
	l.metrics.floats.Add(float64(floats))
	l.metrics.histograms.Add(float64(histograms))
	l.metrics.exemplars.Add(float64(l.encoder.exemplars.n))
	l.metrics.outOfOrder.Add(float64(len(a.samples) - floats - histograms))
	return floats + histograms
}

// encodeSample leaves out a sample that another scrape has overtaken. Two of one
// series and time in one scrape are both sent, as by Prometheus.
func (l *Log) encodeSample(s *sample) {
	if s.t < s.series.t {
		return
	}
	if s.series.number == 0 {
		l.defined++
		s.series.number = l.defined
		l.encoder.define(s.labels, l.meta[s.series.meta])
	}
	s.series.t, s.series.v = s.t, s.v
	l.highest = max(l.highest, s.t)
	l.encoder.sample(s.series.number-1, s)
}

// encodeExemplar leaves out what was committed before: a target exposes an
// exemplar until it has another.
func (l *Log) encodeExemplar(e *seriesExemplar) {
	if e.series.number == 0 {
		return // Its sample was refused.
	}
	last := l.exemplars[e.ref]
	this := lastExemplar{ts: e.Ts, hash: maphash.Bytes(l.seed, e.Labels.Bytes(nil)) ^ math.Float64bits(e.Value)}
	if this.hash == last.hash || (e.HasTs && this.ts <= last.ts) {
		return
	}
	l.exemplars[e.ref] = this
	l.encoder.exemplar(e.series.number-1, &e.Exemplar)
}
