package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/tocsin-rules/tocsin/ruler/write"
)

// stagingName is the directory, below the output, of what is not finished.
const stagingName = ".backfill"

// BlocksConfig says where blocks go.
type BlocksConfig struct {
	// Dir gets the blocks; those of several destinations get a directory each, by
	// their names.
	Dir          string
	Destinations []write.Destination
	// Stored is the data of all backends, which rules read together with what was
	// recorded.
	Stored storage.Queryable
	// NewEvaluator returns an evaluator over a storage in this process.
	NewEvaluator func(storage.Queryable) Evaluator
	Logger       *slog.Logger
}

// Blocks is an output that writes a block of ChunkLength for every chunk. All
// blocks appear in Dir when the last one is done; until then they are in a
// directory beside them. Writing and reading is safe for concurrent use.
type Blocks struct {
	cfg       BlocksConfig
	router    *write.Router
	evaluator Evaluator
	dbs       []*tsdb.DB // by destination; none before the first chunk
}

var _ Output = (*Blocks)(nil)

// NewBlocks returns an output. It touches no file before the first chunk.
func NewBlocks(cfg BlocksConfig) (*Blocks, error) {
	router, err := write.NewRouter(cfg.Destinations)
	if err != nil {
		return nil, err
	}
	b := &Blocks{cfg: cfg, router: router}
	b.evaluator = cfg.NewEvaluator(storage.QueryableFunc(b.querier))
	return b, nil
}

// Evaluator implements Output: over stored series and recorded ones.
func (b *Blocks) Evaluator() Evaluator { return b.evaluator }

// Begin implements Output.
func (b *Blocks) Begin(chunk time.Time) error {
	if b.dbs != nil {
		return nil
	}
	for _, d := range b.cfg.Destinations {
		db, err := b.open(b.staging(d), chunk)
		if err != nil {
			return fmt.Errorf("open blocks of backend %q: %w", d.Name, err)
		}
		b.dbs = append(b.dbs, db)
	}
	return nil
}

func (b *Blocks) staging(d write.Destination) string {
	return filepath.Join(b.cfg.Dir, stagingName, d.Name)
}

// open opens the blocks before a chunk; what else an earlier run has left is
// removed, for the chunk begins anew.
func (b *Blocks) open(dir string, chunk time.Time) (*tsdb.DB, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		meta, err := readMeta(filepath.Join(dir, e.Name()))
		if err == nil && meta.MaxTime <= chunk.UnixMilli() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	opts := tsdb.DefaultOptions()
	// The head takes samples that are half of this older than its newest.
	opts.MinBlockDuration = 2 * ChunkLength.Milliseconds()
	opts.MaxBlockDuration = opts.MinBlockDuration
	opts.RetentionDuration = 0
	// Blocks are durable; of the chunk in progress nothing is kept.
	opts.WALSegmentSize = -1
	db, err := tsdb.Open(dir, b.cfg.Logger, prometheus.NewRegistry(), opts, nil)
	if err != nil {
		return nil, err
	}
	db.DisableCompactions()
	return db, nil
}

func readMeta(block string) (meta tsdb.BlockMeta, err error) {
	content, err := os.ReadFile(filepath.Join(block, "meta.json"))
	if err != nil {
		return meta, err
	}
	return meta, json.Unmarshal(content, &meta)
}

// End implements Output.
func (b *Blocks) End(chunk time.Time) error {
	from, to := chunk.UnixMilli(), chunk.Add(ChunkLength).UnixMilli()-1
	for i, db := range b.dbs {
		if db.Head().NumSeries() == 0 {
			continue
		}
		if err := db.CompactHead(tsdb.NewRangeHeadWithIsolationDisabled(db.Head(), from, to)); err != nil {
			return fmt.Errorf("write block of backend %q: %w", b.cfg.Destinations[i].Name, err)
		}
	}
	return nil
}

// Write implements Output.
func (b *Blocks) Write(ctx context.Context, units []write.Unit) []write.Result {
	results := make([]write.Result, len(units))
	apps := make([]storage.Appender, len(b.dbs))
	for i, db := range b.dbs {
		apps[i] = db.Appender(ctx)
	}
	for i, u := range units {
		results[i].Rejected = b.append(apps, u)
	}
	var err error
	for _, app := range apps {
		err = errors.Join(err, app.Commit())
	}
	if err != nil {
		for i := range results {
			results[i].Err = err
		}
	}
	return results
}

// append returns why samples of a unit were refused.
func (b *Blocks) append(apps []storage.Appender, unit write.Unit) error {
	var refused error
	for _, s := range unit {
		to, series, err := b.router.Route(s.Metric)
		switch {
		case err != nil:
		case s.H != nil:
			_, err = apps[to].AppendHistogram(0, series, s.T, nil, s.H)
		default:
			_, err = apps[to].Append(0, series, s.T, s.F)
		}
		if err != nil {
			refused = fmt.Errorf("%s: %w", s.Metric, err)
		}
	}
	return refused
}

// querier is that of all stored series and all recorded ones.
func (b *Blocks) querier(mint, maxt int64) (storage.Querier, error) {
	stored, err := b.cfg.Stored.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	all := []storage.Querier{stored}
	for i, db := range b.dbs {
		q, err := db.Querier(mint, maxt)
		if err != nil {
			for _, q := range all {
				err = errors.Join(err, q.Close())
			}
			return nil, err
		}
		if d := b.cfg.Destinations[i]; d.Virtual {
			q = partitioned{q, d.Partition.WithoutEmpty()}
		}
		all = append(all, q)
	}
	return storage.NewMergeQuerier(all, nil, storage.ChainedSeriesMerge), nil
}

// Finish implements Output: the blocks go where they belong.
func (b *Blocks) Finish() error {
	if err := b.Close(); err != nil {
		return err
	}
	for _, d := range b.cfg.Destinations {
		if err := b.publish(d); err != nil {
			return fmt.Errorf("move blocks of backend %q: %w", d.Name, err)
		}
	}
	return os.RemoveAll(filepath.Join(b.cfg.Dir, stagingName))
}

func (b *Blocks) publish(d write.Destination) error {
	entries, err := os.ReadDir(b.staging(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	to := b.cfg.Dir
	if len(b.cfg.Destinations) > 1 {
		to = filepath.Join(to, d.Name)
	}
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	for _, e := range entries {
		block := filepath.Join(b.staging(d), e.Name())
		if _, err := readMeta(block); err != nil {
			continue // not a block
		}
		if err := os.Rename(block, filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the blocks. What is not finished goes on in the next run.
func (b *Blocks) Close() error {
	var err error
	for _, db := range b.dbs {
		err = errors.Join(err, db.Close())
	}
	b.dbs = nil
	return err
}
