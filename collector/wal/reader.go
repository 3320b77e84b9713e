package wal

import (
	"errors"
	"fmt"
	"os"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/encoding"
)

// ErrEnd says that all that is in the log was read. There may be more later,
// see Log.Grown.
var ErrEnd = errors.New("end of the write-ahead log")

// Position is a place in the log, between two frames. The zero value is the
// beginning.
type Position struct {
	Segment int `json:"segment"`
	// Offset is in bytes from the beginning of the segment.
	Offset int64 `json:"offset"`
	// Samples counts those that precede it, in all segments that ever were.
	Samples uint64 `json:"samples"`
}

// Record is what one scrape has committed. It is valid until the next one is
// read.
type Record struct {
	// Segment is where the record is. The numbers of series begin anew with
	// each segment.
	Segment int
	// Series are those with the next numbers, from zero.
	Series    []Series
	Samples   []Sample
	Exemplars []Exemplar
	// Lost is the number of samples before this record that can't be read,
	// because they were beyond the limits or damaged.
	Lost uint64

	builder labels.ScratchBuilder
}

// Series is the definition of a series.
type Series struct {
	Labels   labels.Labels
	Metadata metadata.Metadata
}

// Sample has one of the histograms, or the value V.
type Sample struct {
	Number uint32
	// T is in milliseconds since 1970.
	T  int64
	V  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Exemplar belongs to the last sample of its series.
type Exemplar struct {
	Number uint32
	exemplar.Exemplar
}

func metricType(d *encoding.Decbuf) model.MetricType { return model.MetricType(d.UvarintBytes()) }

// Reader reads the log from one place on.
type Reader struct {
	log *Log
	at  Position
	// resume is the offset before which definitions are read alone.
	resume  int64
	lost    uint64
	file    *os.File
	raw     []byte
	payload []byte
	rec     Record
}

// Reader returns a reader of all that follows the position.
func (l *Log) Reader(from Position) *Reader {
	return &Reader{log: l, at: from, resume: from.Offset}
}

// Position is behind the record that was read last.
func (r *Reader) Position() Position {
	p := r.at
	p.Offset = max(p.Offset, r.resume)
	return p
}

// Close closes the open segment.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// Next returns the next record, or ErrEnd. A record of series alone is one
// whose samples are before the reader's first position.
func (r *Reader) Next() (*Record, error) {
	for {
		s, last := r.log.segmentFrom(r.at.Segment)
		if r.file == nil || s.number != r.at.Segment {
			if err := r.open(s); err != nil {
				return nil, err
			}
		}
		if r.at.Offset < s.size {
			err := r.frame(s.size)
			if err == nil {
				return &r.rec, nil
			}
			r.log.metrics.corruptions.Inc()
			r.log.logger.Error("rest of a segment of the write-ahead log is left out", "segment", s.path(r.log.dir), "offset", r.at.Offset, "err", err)
			r.at.Offset = s.size
			continue
		}
		if last {
			return nil, ErrEnd
		}
		if err := r.Close(); err != nil {
			return nil, err
		}
		r.at.Segment++
		r.resume = 0
	}
}

// segmentFrom is the first segment with this number or a greater one, or the
// last one if there is none, and tells whether it is the last one.
func (l *Log) segmentFrom(number int) (s segment, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments[:len(l.segments)-1] {
		if s.number >= number {
			return s, false
		}
	}
	return l.segments[len(l.segments)-1], true
}

// open begins a segment. What is between the samples that were read and those
// that it begins with is lost.
func (r *Reader) open(s segment) error {
	if err := r.Close(); err != nil {
		return err
	}
	file, err := os.Open(s.path(r.log.dir))
	if err != nil {
		return fmt.Errorf("open segment of the write-ahead log: %w", err)
	}
	r.file = file
	if s.number != r.at.Segment || r.resume == 0 {
		r.resume = 0
		if s.before > r.at.Samples {
			r.lost += s.before - r.at.Samples
		}
		r.at.Samples = s.before
	}
	r.at.Segment, r.at.Offset = s.number, int64(headerSize)
	// Its strings, if labels are built to share them, are forgotten with the
	// segment. It copies what it is given.
	r.rec.builder = labels.NewScratchBuilder(16)
	r.rec.builder.SetUnsafeAdd(true)
	return nil
}

// frame reads the frame at the position, which ends at limit at the latest.
func (r *Reader) frame(limit int64) error {
	head, err := readFrameHead(r.file, r.at.Offset)
	if err != nil {
		return err
	}
	end := head.end(r.at.Offset)
	if end > limit {
		return fmt.Errorf("frame ends at %d, after the segment's end", end)
	}
	r.raw = resized(r.raw, int(head.length))
	if _, err := r.file.ReadAt(r.raw, r.at.Offset+frameSize); err != nil {
		return err
	}
	if checksum(head.samples, r.raw) != head.sum {
		return errors.New("wrong checksum")
	}
	if err := r.decode(); err != nil {
		return err
	}
	r.at.Offset = end
	r.rec.Segment, r.rec.Lost, r.lost = r.at.Segment, r.lost, 0
	if end <= r.resume {
		r.rec.Samples, r.rec.Exemplars = r.rec.Samples[:0], r.rec.Exemplars[:0]
	} else {
		r.at.Samples += uint64(head.samples)
	}
	return nil
}

func (r *Reader) decode() error {
	length, err := snappy.DecodedLen(r.raw)
	if err != nil || length > maxPayload {
		return fmt.Errorf("payload of %d bytes: %w", length, err)
	}
	r.payload = resized(r.payload, length)
	if r.payload, err = snappy.Decode(r.payload, r.raw); err != nil {
		return err
	}
	return r.rec.decode(r.payload)
}

// resized has room to spare, because records differ a little in size.
func resized(buf []byte, n int) []byte {
	if cap(buf) < n {
		buf = make([]byte, n+n/4)
	}
	return buf[:n]
}
