package wal

import (
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
)

// encoder builds one frame. It keeps like with like, so that what is equal from
// sample to sample, all but the values, compresses to almost nothing:
//
//	n series definitions: labels, metadata
//	n floats: all numbers, all times, all values
//	n histograms, n exemplars: one after the other
//
// Numbers of series are differences to the one that follows the last, times
// differences to the last.
type encoder struct {
	definitions, floats, histograms, exemplars section
	times, values                              encoding.Encbuf
	payload                                    encoding.Encbuf
	compressed                                 []byte
}

// section is a list of things that belong to series.
type section struct {
	encoding.Encbuf
	n      int
	number uint32
	t      int64
}

func (s *section) reset() {
	s.Reset()
	s.n, s.number, s.t = 0, 0, 0
}

func (s *section) putNumber(number uint32) {
	s.n++
	s.PutVarint64(int64(number) - int64(s.number))
	s.number = number + 1
}

// sinceLast is t as a difference to the one before.
func (s *section) sinceLast(t int64) int64 {
	d := t - s.t
	s.t = t
	return d
}

func (e *encoder) reset() {
	for _, s := range []*section{&e.definitions, &e.floats, &e.histograms, &e.exemplars} {
		s.reset()
	}
	for _, b := range []*encoding.Encbuf{&e.times, &e.values, &e.payload} {
		b.Reset()
	}
}

func (e *encoder) empty() bool { return e.floats.n+e.histograms.n+e.exemplars.n == 0 }

func (e *encoder) define(lset labels.Labels, m metadata.Metadata) {
	e.definitions.n++
	putLabels(&e.definitions.Encbuf, lset)
	e.definitions.PutUvarintStr(string(m.Type))
	e.definitions.PutUvarintStr(m.Unit)
	e.definitions.PutUvarintStr(m.Help)
}

func putLabels(b *encoding.Encbuf, lset labels.Labels) {
	b.PutUvarint(lset.Len())
	lset.Range(func(l labels.Label) {
		b.PutUvarintStr(l.Name)
		b.PutUvarintStr(l.Value)
	})
}

func (e *encoder) sample(number uint32, s *sample) {
	if s.h != nil || s.fh != nil {
		e.histogram(number, s)
		return
	}
	e.floats.putNumber(number)
	e.times.PutVarint64(e.floats.sinceLast(s.t))
	e.values.PutBEFloat64(s.v)
}

func (e *encoder) histogram(number uint32, s *sample) {
	b := &e.histograms
	b.putNumber(number)
	b.PutVarint64(b.sinceLast(s.t))
	if s.h != nil {
		b.PutByte(integerHistogram)
		record.EncodeHistogram(&b.Encbuf, s.h)
		return
	}
	b.PutByte(floatHistogram)
	record.EncodeFloatHistogram(&b.Encbuf, s.fh)
}

const (
	integerHistogram byte = iota
	floatHistogram
)

func (e *encoder) exemplar(number uint32, x *exemplar.Exemplar) {
	b := &e.exemplars
	b.putNumber(number)
	b.PutVarint64(b.sinceLast(x.Ts))
	b.PutBEFloat64(x.Value)
	putLabels(&b.Encbuf, x.Labels)
}

// frame returns the whole frame, valid until the next reset.
func (e *encoder) frame(samples int) []byte {
	p := &e.payload
	for _, s := range []*section{&e.definitions, &e.floats} {
		p.PutUvarint(s.n)
		p.PutBytes(s.Get())
	}
	for _, b := range []*encoding.Encbuf{&e.times, &e.values} {
		p.PutBytes(b.Get())
	}
	for _, s := range []*section{&e.histograms, &e.exemplars} {
		p.PutUvarint(s.n)
		p.PutBytes(s.Get())
	}
	if most := frameSize + snappy.MaxEncodedLen(p.Len()); cap(e.compressed) < most {
		e.compressed = make([]byte, most)
	}
	body := snappy.Encode(e.compressed[frameSize:cap(e.compressed)], p.Get())
	frame := e.compressed[:frameSize+len(body)]
	putFrameHead(frame, samples)
	return frame
}

// decode fills a record from a payload.
func (r *Record) decode(payload []byte) error {
	d := &encoding.Decbuf{B: payload}
	r.Series, r.Samples, r.Exemplars = r.Series[:0], r.Samples[:0], r.Exemplars[:0]
	for range d.Uvarint() {
		if d.Err() != nil {
			return d.Err()
		}
		s := Series{Labels: r.getLabels(d)}
		s.Metadata = metadata.Metadata{Type: metricType(d), Unit: string(d.UvarintBytes()), Help: string(d.UvarintBytes())}
		r.Series = append(r.Series, s)
	}
	r.getFloats(d)
	r.getHistograms(d)
	r.getExemplars(d)
	return d.Err()
}

// getLabels copies what it returns.
func (r *Record) getLabels(d *encoding.Decbuf) labels.Labels {
	r.builder.Reset()
	for range d.Uvarint() {
		name, value := d.UvarintStr(), d.UvarintStr()
		if d.Err() != nil {
			return labels.EmptyLabels()
		}
		r.builder.Add(name, value)
	}
	return r.builder.Labels()
}

func (r *Record) getFloats(d *encoding.Decbuf) {
	n := d.Uvarint()
	if d.Err() != nil || n > d.Len() {
		d.E = encoding.ErrInvalidSize
		return
	}
	number, last := uint32(0), int64(0)
	for range n {
		number += uint32(d.Varint64())
		r.Samples = append(r.Samples, Sample{Number: number})
		number++
	}
	for i := range r.Samples {
		last += d.Varint64()
		r.Samples[i].T = last
	}
	for i := range r.Samples {
		r.Samples[i].V = d.Be64Float64()
	}
}

func (r *Record) getHistograms(d *encoding.Decbuf) {
	number, last := uint32(0), int64(0)
	for range d.Uvarint() {
		number += uint32(d.Varint64())
		last += d.Varint64()
		s := Sample{Number: number, T: last}
		number++
		if d.Byte() == integerHistogram {
			s.H = &histogram.Histogram{}
			record.DecodeHistogram(d, s.H)
		} else {
			s.FH = &histogram.FloatHistogram{}
			record.DecodeFloatHistogram(d, s.FH)
		}
		if d.Err() != nil {
			return
		}
		r.Samples = append(r.Samples, s)
	}
}

func (r *Record) getExemplars(d *encoding.Decbuf) {
	number, last := uint32(0), int64(0)
	for range d.Uvarint() {
		number += uint32(d.Varint64())
		last += d.Varint64()
		x := Exemplar{Number: number, Exemplar: exemplar.Exemplar{Ts: last, Value: d.Be64Float64(), Labels: r.getLabels(d), HasTs: true}}
		number++
		if d.Err() != nil {
			return
		}
		r.Exemplars = append(r.Exemplars, x)
	}
}
