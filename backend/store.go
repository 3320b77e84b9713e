// Package backend is the embedded store: a Prometheus TSDB on disk that holds
// one partition of a fleet's data and answers Prometheus' HTTP API, remote
// write and remote read included.
//
// The store guarantees its partition: every series in it carries its external
// labels, or lacks the labels that mark other partitions. Series that say
// otherwise are refused with an error that names the series and the label.
// The package never evaluates PromQL itself (package engine does), opens no
// port and replicates nothing.
//
// A Store and its API are safe for concurrent use. Before Run has opened the
// database every access fails with tsdb.ErrNotReady.
package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/compression"
)

// Sizes that suit a store of up to some 100,000 active series and keep an
// idle one small.
const (
	stripeSize           = 1 << 11
	headChunkWriteBuffer = 1 << 20
	walSegmentSize       = 32 << 20
)

// StoreConfig says where a store keeps its data and what it accepts. The zero
// value of a duration or number asks for its default.
type StoreConfig struct {
	// Path is the directory; it is made if it does not exist.
	Path      string
	Partition Partition
	// Retention is how long data is kept; default 15 days.
	Retention time.Duration
	// OutOfOrderWindow is how much older than the newest sample of its series
	// a sample may be; default 2 hours.
	OutOfOrderWindow time.Duration
	// MaxExemplars is the number of exemplars kept in memory; default 10,000.
	MaxExemplars int64
}

func (c StoreConfig) withDefaults() StoreConfig {
	if c.Retention == 0 {
		c.Retention = 15 * 24 * time.Hour
	}
	if c.OutOfOrderWindow == 0 {
		c.OutOfOrderWindow = 2 * time.Hour
	}
	if c.MaxExemplars == 0 {
		c.MaxExemplars = 10_000
	}
	return c
}

// Validate reports every fault of the configuration.
func (c StoreConfig) Validate() error {
	var errs []error
	if c.Path == "" {
		errs = append(errs, errors.New("storage path is empty"))
	}
	if c.Retention < 0 {
		errs = append(errs, fmt.Errorf("storage retention %s is negative", c.Retention))
	}
	if c.OutOfOrderWindow < 0 {
		errs = append(errs, fmt.Errorf("out-of-order window %s is negative", c.OutOfOrderWindow))
	}
	return errors.Join(append(errs, c.Partition.Validate())...)
}

// Store is a TSDB that guarantees its partition.
type Store struct {
	cfg     StoreConfig
	reg     prometheus.Registerer
	metrics *storeMetrics
	logger  *slog.Logger
	stats   *tsdb.DBStats
	db      atomic.Pointer[tsdb.DB]
}

// NewStore returns a store. It touches no file before Run.
func NewStore(cfg StoreConfig, reg prometheus.Registerer, logger *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Store{
		cfg:     cfg.withDefaults(),
		reg:     reg,
		metrics: newStoreMetrics(reg),
		logger:  logger,
		stats:   tsdb.NewDBStats(),
	}, nil
}

// Run opens the database, serves until ctx ends and closes it. Whoever uses
// the store must have stopped by then. The write-ahead log is replayed whole
// even if ctx ends meanwhile.
func (s *Store) Run(ctx context.Context) (err error) {
	unlock, err := lock(s.cfg.Path, s.logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	db, err := tsdb.Open(s.cfg.Path, s.logger, s.reg, s.options(), s.stats)
	if err != nil {
		return fmt.Errorf("open storage %q: %w", s.cfg.Path, err)
	}
	defer func() {
		s.db.Store(nil)
		if cerr := db.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close storage %q: %w", s.cfg.Path, cerr))
		}
	}()
	if err := s.checkPartition(ctx, db); err != nil {
		return err
	}
	s.db.Store(db)
	s.logger.Info("storage is ready", "path", s.cfg.Path, "series", db.Head().NumSeries())
	<-ctx.Done()
	return nil
}

func (s *Store) options() *tsdb.Options {
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = s.cfg.Retention.Milliseconds()
	opts.MaxBlockDuration = max(opts.MinBlockDuration, min(s.cfg.Retention/10, 31*24*time.Hour).Milliseconds())
	opts.OutOfOrderTimeWindow = s.cfg.OutOfOrderWindow.Milliseconds()
	opts.WALCompression = compression.Snappy
	opts.WALSegmentSize = walSegmentSize
	opts.StripeSize = stripeSize
	opts.HeadChunksWriteBufferSize = headChunkWriteBuffer
	opts.EnableExemplarStorage = true
	opts.MaxExemplars = s.cfg.MaxExemplars
	// The directory is locked before the TSDB touches anything in it.
	opts.NoLockfile = true
	return opts
}

// lock takes the directory for this process. The TSDB has a lock of its own
// but takes it only after it has cleaned up temporary files, which a process
// that runs there may be writing; the file is the same, so that a Prometheus
// server is kept out too.
func lock(path string, logger *slog.Logger) (unlock func() error, err error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("make storage directory: %w", err)
	}
	l, err := tsdbutil.NewDirLocker(path, "tsdb", logger, nil)
	if err != nil {
		return nil, fmt.Errorf("lock storage directory %q: %w", path, err)
	}
	err = l.Lock()
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("storage directory %q is in use by another process: stop it or choose another directory", path)
	case err != nil:
		return nil, fmt.Errorf("lock storage directory %q: %w", path, err)
	}
	return l.Release, nil
}

// checkPartition looks for series that an earlier configuration let in.
func (s *Store) checkPartition(ctx context.Context, db *tsdb.DB) error {
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		return fmt.Errorf("read storage %q: %w", s.cfg.Path, err)
	}
	defer q.Close()
	for _, m := range s.cfg.Partition.foreign() {
		set := q.Select(ctx, false, nil, m)
		if set.Next() {
			return fmt.Errorf("storage directory %q holds the series %s, which is not of its partition %s: choose another directory or restore the external labels",
				s.cfg.Path, set.At().Labels(), s.cfg.Partition)
		}
		if err := set.Err(); err != nil {
			return fmt.Errorf("read storage %q: %w", s.cfg.Path, err)
		}
	}
	return nil
}

// Ready returns nil once the write-ahead log has been replayed.
func (s *Store) Ready() error {
	_, err := s.open()
	return err
}

func (s *Store) open() (*tsdb.DB, error) {
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	return nil, tsdb.ErrNotReady
}

// Partition is what the store holds.
func (s *Store) Partition() Partition { return s.cfg.Partition }

var (
	_ storage.SampleAndChunkQueryable = (*Store)(nil)
	_ storage.Appendable              = (*Store)(nil)
	_ storage.ExemplarQueryable       = (*Store)(nil)
)

// Querier implements storage.Queryable.
func (s *Store) Querier(mint, maxt int64) (storage.Querier, error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	return db.Querier(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable.
func (s *Store) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	return db.ChunkQuerier(mint, maxt)
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (s *Store) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	return db.ExemplarQuerier(ctx)
}

// Appender implements storage.Appendable. What it appends gets the external
// labels; a series of another partition is refused with a *PartitionError.
func (s *Store) Appender(ctx context.Context) storage.Appender {
	db, err := s.open()
	if err != nil {
		return refusingAppender{err}
	}
	return &appender{Appender: db.Appender(ctx), partition: s.cfg.Partition, metrics: s.metrics}
}
