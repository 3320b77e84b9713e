// Package wal is the write-ahead log of a collector: what was scraped, on disk,
// from where it is read once for every destination.
//
//	scrapes ──▶ Appender ──▶ segment 1, segment 2, ... ──▶ Reader, one a destination
//
// The log holds no labels in memory. A series' reference is a seeded hash of
// its labels, so that equal series have one reference whoever scrapes them,
// and no table is needed to find it. Each segment defines every series that
// occurs in it, at its first sample; so a segment can be read by itself, and
// with an old one all that was known of series that are gone is gone too.
//
// A segment is a header and frames, each the samples of one commit with a
// checksum. It is synced every second: kill -9 loses nothing that was
// committed, a loss of power what was committed within the last second.
// Segments that every destination is through with are removed; so are the
// oldest ones beyond the limits of size and age, read or not.
//
// The log sends nothing and knows no destination. A Log is safe for concurrent
// use; an Appender and a Reader are for one goroutine each.
package wal

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/fileutil"
)

const (
	// segmentSize and segmentAge, in bytes and since its first frame, are
	// when a segment is followed by the next. A short segment frees disk and
	// forgets old series early; a long one defines series more rarely.
	segmentSize = 16 << 20
	segmentAge  = 15 * time.Minute
	// syncInterval bounds what a loss of power takes.
	syncInterval = time.Second
)

// ErrClosed is the answer of a log after Close.
var ErrClosed = errors.New("write-ahead log is closed")

// Options bound a log. Zero is no bound.
type Options struct {
	// MaxSize is in bytes, over all segments. The segment being written is
	// never removed.
	MaxSize int64
	// MaxAge is how long ago a sample was committed.
	MaxAge time.Duration
}

// Deps are what a log needs from its process.
type Deps struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Log is an open write-ahead log.
type Log struct {
	dir     string
	opts    Options
	logger  *slog.Logger
	metrics *metrics
	lock    fileutil.Releaser
	seed    maphash.Seed
	buffers sync.Pool // of *Appender
	// opened is when, in milliseconds.
	opened int64

	mu sync.Mutex
	// segments are those on disk, the one being written is last.
	segments []segment
	file     *os.File // nil after Close or when a new segment is due
	closed   bool
	dirty    bool
	// committed counts all samples that were ever committed.
	committed uint64
	highest   int64
	grown     chan struct{}
	encoder   encoder

	series map[storage.SeriesRef]*series
	// defined is the number of series that the segment defines.
	defined uint32
	meta    []metadata.Metadata
	metaIDs map[metadata.Metadata]uint32
	// exemplars are the last one of each series that has any.
	exemplars map[storage.SeriesRef]lastExemplar
}

// series is the last sample of a series, guarded by the log.
type series struct {
	t int64
	v float64
	// number counts from 1 in the segment; zero says that the segment doesn't
	// define the series yet.
	number uint32
	meta   uint32
}

// lastExemplar tells an exemplar that is still exposed from a new one.
type lastExemplar struct {
	ts   int64
	hash uint64
}

// Open opens or creates the log in a directory, which must be no other
// process'.
func Open(dir string, opts Options, deps Deps) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create directory of the write-ahead log: %w", err)
	}
	lock, _, err := fileutil.Flock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	l := &Log{
		dir: dir, opts: opts, logger: deps.Logger, lock: lock,
		seed:      maphash.MakeSeed(),
		grown:     make(chan struct{}),
		series:    map[storage.SeriesRef]*series{},
		exemplars: map[storage.SeriesRef]lastExemplar{},
	}
	l.forgetMetadata()
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open write-ahead log in %q: %w", dir, err), lock.Release())
	}
	l.metrics = newMetrics(deps.Registerer, l)
	return l, nil
}

// open never writes to a segment of an earlier process, whose end may be torn.
func (l *Log) open() error {
	var err error
	if l.segments, l.committed, err = listSegments(l.dir); err != nil {
		return err
	}
	now := time.Now()
	l.opened = now.UnixMilli()
	return l.cut(now)
}

// Run syncs the log and keeps it within its limits until ctx ends.
func (l *Log) Run(ctx context.Context) {
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.sync(); err != nil {
			l.logger.Error("write-ahead log not synced", "err", err)
		}
		l.enforceLimits(time.Now())
	}
}

// sync holds no lock while the disk is slow; closing the file meanwhile, which
// syncs it as well, does no harm.
func (l *Log) sync() error {
	l.mu.Lock()
	file, dirty := l.file, l.dirty
	l.dirty = false
	l.mu.Unlock()
	if file == nil || !dirty {
		return nil
	}
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Close syncs and closes the log. Readers can go on.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return errors.Join(l.finish(), l.lock.Release())
}

// finish ends the segment being written.
func (l *Log) finish() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// cut begins a new segment, which defines its series anew.
func (l *Log) cut(now time.Time) error {
	if err := l.finish(); err != nil {
		l.logger.Error("segment of the write-ahead log not synced", "err", err)
	}
	s := segment{number: 1, before: l.committed, created: now}
	if n := len(l.segments); n > 0 {
		s.number = l.segments[n-1].number + 1
	}
	file, err := s.create(l.dir)
	if err != nil {
		return fmt.Errorf("create segment of the write-ahead log: %w", err)
	}
	l.file = file
	l.segments = append(l.segments, s)
	l.forgetSeries()
	return nil
}

// forgetSeries keeps the last samples of the series in the segment that ended,
// because they tell what is out of order.
func (l *Log) forgetSeries() {
	old, meta := l.series, l.meta
	l.series = make(map[storage.SeriesRef]*series, l.defined)
	l.defined = 0
	l.forgetMetadata()
	for ref, s := range old {
		if s.number != 0 {
			s.meta = l.metaID(meta[s.meta])
			l.series[ref] = s
		}
		// Also of those that go, as an appender may still have them.
		s.number = 0
	}
	for ref := range l.exemplars {
		if _, live := l.series[ref]; !live {
			delete(l.exemplars, ref)
		}
	}
}

func (l *Log) forgetMetadata() {
	none := metadata.Metadata{}
	l.meta, l.metaIDs = []metadata.Metadata{none}, map[metadata.Metadata]uint32{none: 0}
}

func (l *Log) metaID(m metadata.Metadata) uint32 {
	id, known := l.metaIDs[m]
	if !known {
		id = uint32(len(l.meta))
		l.meta = append(l.meta, m)
		l.metaIDs[m] = id
	}
	return id
}

// ref is a reference to the series with these labels.
func (l *Log) ref(lset labels.Labels, buf []byte) (storage.SeriesRef, []byte) {
	buf = lset.Bytes(buf)
	// Zero means that there is none.
	return storage.SeriesRef(max(1, maphash.Bytes(l.seed, buf))), buf
}

// find returns a series, which is new if it had no sample of late, and its
// last sample.
func (l *Log) find(ref storage.SeriesRef) (s *series, t int64, v float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, known := l.series[ref]
	if !known {
		s = &series{t: math.MinInt64}
		l.series[ref] = s
	}
	return s, s.t, s.v
}

// commit writes what an Appender holds as one frame.
func (l *Log) commit(a *Appender) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	now := time.Now()
	active := &l.segments[len(l.segments)-1]
	if l.file == nil || active.size >= segmentSize || now.Sub(active.created) >= segmentAge {
		if err := l.cut(now); err != nil {
			return err
		}
	}
	if samples := l.encode(a); !l.encoder.empty() {
		return l.write(samples)
	}
	return nil
}

// write adds a frame to the segment. After an error the segment is ended,
// because the series that the frame defines are not in it.
func (l *Log) write(samples int) error {
	active := &l.segments[len(l.segments)-1]
	n, err := l.file.Write(l.encoder.frame(samples))
	if err != nil {
		l.metrics.failed.Inc()
		// Readers end at the size, so what was torn is never seen.
		return errors.Join(fmt.Errorf("write to the write-ahead log: %w", err), l.finish())
	}
	active.size += int64(n)
	l.committed += uint64(samples)
	l.dirty = true
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

// Grown returns a channel that is closed by the next commit.
func (l *Log) Grown() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grown
}

// Committed counts all samples that were committed, also by earlier processes.
func (l *Log) Committed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}

// Highest is the greatest timestamp that this process committed, in
// milliseconds; zero without any.
func (l *Log) Highest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.highest
}

// End is the present end of the log.
func (l *Log) End() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	active := l.segments[len(l.segments)-1]
	return Position{Segment: active.number, Offset: active.size, Samples: l.committed}
}

// Release tells that no segment before the position's will be read again.
func (l *Log) Release(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.segments) > 1 && l.segments[0].number < p.Segment {
		l.dropOldest()
	}
}

// enforceLimits removes what is too large or too old, read or not.
func (l *Log) enforceLimits(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.segments) > 1 {
		// The next segment is younger than everything in the oldest.
		tooOld := l.opts.MaxAge > 0 && now.Sub(l.segments[1].created) > l.opts.MaxAge
		tooLarge := l.opts.MaxSize > 0 && l.size() > l.opts.MaxSize
		if !tooOld && !tooLarge {
			return
		}
		l.dropOldest()
	}
}

func (l *Log) size() (bytes int64) {
	for _, s := range l.segments {
		bytes += s.size
	}
	return bytes
}

func (l *Log) dropOldest() {
	if err := os.Remove(l.segments[0].path(l.dir)); err != nil {
		l.logger.Warn("segment of the write-ahead log not removed", "err", err)
	}
	l.segments = append(l.segments[:0], l.segments[1:]...)
}
