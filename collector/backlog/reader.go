package backlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// reader reads a write-ahead log, its checkpoint first, while another part of
// the process writes it.
type reader struct {
	dir     string
	logger  *slog.Logger
	metrics *wlog.LiveReaderMetrics
	// started says that the checkpoint is read and segment is known.
	started bool
	segment int
	file    *wlog.Segment
	live    *wlog.LiveReader
}

// read hands on every record from where the last call ended to the present
// end of the log.
func (r *reader) read(handle func(rec []byte) error) error {
	if !r.started {
		if err := r.start(handle); err != nil {
			return err
		}
		r.started = true
	}
	for {
		if err := r.open(); err != nil {
			return err
		}
		if err := r.readSegment(handle); err != nil {
			return err
		}
		_, last, err := wlog.Segments(r.dir)
		if err != nil {
			return fmt.Errorf("list log segments: %w", err)
		}
		if r.segment >= last {
			return nil
		}
		// The writer may have added to this segment before it began the next.
		if err := r.readSegment(handle); err != nil {
			return err
		}
		if err := r.close(); err != nil {
			return err
		}
		r.segment++
	}
}

// start reads the checkpoint, which stands for the segments that are gone.
func (r *reader) start(handle func(rec []byte) error) error {
	dir, index, err := wlog.LastCheckpoint(r.dir)
	if errors.Is(err, record.ErrNotFound) {
		r.segment, _, err = wlog.Segments(r.dir)
		return err
	}
	if err != nil {
		return fmt.Errorf("find log checkpoint: %w", err)
	}
	r.segment = index + 1
	segments, err := wlog.NewSegmentsReader(dir)
	if err != nil {
		return fmt.Errorf("open log checkpoint %q: %w", dir, err)
	}
	defer segments.Close()
	records := wlog.NewReader(segments)
	for records.Next() {
		if err := handle(records.Record()); err != nil {
			return err
		}
	}
	return records.Err()
}

// open opens the segment to read, or the first one after it if the log was cut
// off meanwhile.
func (r *reader) open() error {
	if r.file != nil {
		return nil
	}
	first, _, err := wlog.Segments(r.dir)
	if err != nil {
		return fmt.Errorf("list log segments: %w", err)
	}
	if first > r.segment {
		r.logger.Warn("the log was cut off before all of it was sent", "segment", r.segment, "first", first)
		r.segment = first
	}
	file, err := wlog.OpenReadSegment(wlog.SegmentName(r.dir, r.segment))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("log segment %d is not there yet: %w", r.segment, err)
	}
	if err != nil {
		return err
	}
	r.file, r.live = file, wlog.NewLiveReader(r.logger, r.metrics, file)
	return nil
}

func (r *reader) readSegment(handle func(rec []byte) error) error {
	for r.live.Next() {
		if err := handle(r.live.Record()); err != nil {
			return err
		}
	}
	if err := r.live.Err(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read log segment %d: %w", r.segment, err)
	}
	return nil
}

func (r *reader) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.live = nil, nil
	return err
}
