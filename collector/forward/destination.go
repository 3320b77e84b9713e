package forward

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// readRetry is how long after an error of the disk it is read again.
const readRetry = time.Second

// destination sends the log to one remote write.
type destination struct {
	// name is that of the configuration or, without one, stands for the key.
	name    string
	write   *config.RemoteWriteConfig
	log     *wal.Log
	logger  *slog.Logger
	client  *client
	reader  *wal.Reader
	metrics *destinationMetrics
	// acked is told up to where everything is delivered or given up.
	acked func(wal.Position)

	table   *table
	encoder encoder
	// version1 says that the destination doesn't know 2.0.
	version1 atomic.Bool
	// described is when metadata was sent, with version 1.0.
	described time.Time

	// most is how many items a request has.
	most  int
	width *width
	// retrying is held by the request that finds out whether the destination
	// is back.
	retrying sync.Mutex
	// away says that a request of the wave was not taken at first.
	away atomic.Bool

	// batch is what is going to be the next wave of requests.
	batch []item
	// since is when the first sample of the batch was read.
	since time.Time
	// taken is behind the last record that is in the batch as a whole.
	taken wal.Position
	// passed counts the samples before what was acknowledged.
	passed atomic.Uint64
}

func newDestination(key string, w *config.RemoteWriteConfig, external labels.Labels, deps Deps) *destination {
	d := &destination{
		name:   cmp.Or(w.Name, fmt.Sprintf("%x", sha256.Sum256([]byte(key)))[:6]),
		write:  w,
		log:    deps.Log,
		logger: deps.Logger.With("url", w.URL.Redacted()),
		table:  newTable(external, w.WriteRelabelConfigs),
		most:   max(1, w.QueueConfig.MaxSamplesPerSend),
		width:  newWidth(w.QueueConfig.MinShards, w.QueueConfig.MaxShards),
	}
	// Without a version, 2.0 is tried.
	d.version1.Store(w.ProtobufMessage == remoteapi.WriteV1MessageType)
	return d
}

// run sends until ctx ends or, once draining ends, all is sent.
func (d *destination) run(ctx, draining context.Context) {
	d.taken = d.reader.Position()
	d.passed.Store(d.taken.Samples)
	for ctx.Err() == nil {
		grown := d.log.Grown()
		rec, err := d.reader.Next()
		switch {
		case err == nil:
			err = d.take(ctx, rec)
		case errors.Is(err, wal.ErrEnd) && draining.Err() != nil:
			_ = d.flush(ctx)
			return
		case errors.Is(err, wal.ErrEnd):
			err = d.await(ctx, draining, grown)
		default:
			d.logger.Error("write-ahead log can't be read", "err", err)
			err = sleep(ctx, readRetry)
		}
		if err != nil {
			return // because ctx has ended.
		}
	}
}

// await waits for more; a batch that is worth a request doesn't wait, another
// no longer than it may.
func (d *destination) await(ctx, draining context.Context, grown <-chan struct{}) error {
	if len(d.batch) >= d.most {
		return d.flush(ctx)
	}
	if len(d.batch) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-draining.Done():
		case <-grown:
		}
		return nil
	}
	deadline := time.NewTimer(time.Until(d.since.Add(time.Duration(d.write.QueueConfig.BatchSendDeadline))))
	defer deadline.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-draining.Done():
		return nil
	case <-grown:
		return nil
	case <-deadline.C:
		return d.flush(ctx)
	}
}

// take adds a record to the batch and sends full ones. It returns an error
// only if ctx ended, as all that send.
func (d *destination) take(ctx context.Context, rec *wal.Record) error {
	if rec.Segment != d.table.segment {
		if err := d.flush(ctx); err != nil {
			return err
		}
		d.table.reset(rec.Segment)
	}
	if rec.Lost > 0 {
		d.metrics.lost.Add(float64(rec.Lost))
		d.logger.Error("samples were dropped from the write-ahead log before they could be sent", "samples", rec.Lost)
	}
	d.table.define(rec.Series)
	if err := d.add(ctx, rec); err != nil {
		return err
	}
	d.taken = d.reader.Position()
	if len(d.batch) == 0 {
		d.acknowledge()
	}
	return nil
}

func (d *destination) add(ctx context.Context, rec *wal.Record) error {
	for _, s := range rec.Samples {
		if !d.wants(&s) {
			continue
		}
		if err := d.put(ctx, item{Sample: s}); err != nil {
			return err
		}
	}
	if !d.write.SendExemplars {
		return nil
	}
	for _, x := range rec.Exemplars {
		if !d.table.kept(x.Number) {
			continue
		}
		if err := d.put(ctx, item{Sample: wal.Sample{Number: x.Number}, exemplar: &x.Exemplar}); err != nil {
			return err
		}
	}
	return nil
}

// wants tells whether the configuration lets a sample through.
func (d *destination) wants(s *wal.Sample) bool {
	if !d.table.kept(s.Number) {
		d.metrics.unwanted.Inc()
		return false
	}
	if (s.H != nil || s.FH != nil) && !d.write.SendNativeHistograms {
		return false
	}
	limit := time.Duration(d.write.QueueConfig.SampleAgeLimit)
	if limit > 0 && time.Since(time.UnixMilli(s.T)) > limit {
		d.metrics.tooOld.Inc()
		return false
	}
	return true
}

func (d *destination) put(ctx context.Context, it item) error {
	if len(d.batch) == 0 {
		d.since = time.Now()
	}
	d.batch = append(d.batch, it)
	if len(d.batch) < d.room() {
		return nil
	}
	return d.flush(ctx)
}

// room is how much the next wave of requests can hold.
func (d *destination) room() int {
	return int(d.width.now.Load()) * d.most
}

// flush sends the batch in requests that are under way at once. When it
// returns without an error, each is delivered or refused.
func (d *destination) flush(ctx context.Context) error {
	if len(d.batch) == 0 {
		return nil
	}
	lots := split(d.batch, d.most)
	d.away.Store(false)
	var g errgroup.Group
	g.SetLimit(int(d.width.most))
	for _, lot := range lots {
		g.Go(func() error { return d.deliverAll(ctx, lot) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.metrics.reached(d.batch)
	d.width.adapt(wave{requests: len(lots), full: len(d.batch) >= d.room(), away: d.away.Load()})
	d.empty()
	d.acknowledge()
	return d.describe(ctx)
}

// empty forgets the batch, and the memory that only a backlog needs.
func (d *destination) empty() {
	clear(d.batch)
	d.batch = d.batch[:0]
	if cap(d.batch) > 2*d.room() {
		d.batch = nil
	}
}

func (d *destination) acknowledge() {
	d.passed.Store(d.taken.Samples)
	d.acked(d.taken)
}

// pending counts the samples in the log that were not acknowledged.
func (d *destination) pending(log *wal.Log) uint64 {
	passed := d.passed.Load()
	return max(log.Committed(), passed) - passed
}
