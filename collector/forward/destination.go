package forward

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

const (
	// readRetry is how long after an error of the disk it is read again.
	readRetry = time.Second
	// splits bounds the requests into which one is split whose samples are
	// refused.
	splits = 32
)

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
	version1 bool
	// described is when metadata was sent, with version 1.0.
	described time.Time

	batch []item
	// since is when the first sample of the batch was read.
	since time.Time
	// taken is behind the last record that is in the batch as a whole.
	taken wal.Position
	// passed counts the samples before what was acknowledged.
	passed atomic.Uint64
}

func newDestination(key string, w *config.RemoteWriteConfig, external labels.Labels, deps Deps) *destination {
	return &destination{
		name:   cmp.Or(w.Name, fmt.Sprintf("%x", sha256.Sum256([]byte(key)))[:6]),
		write:  w,
		log:    deps.Log,
		logger: deps.Logger.With("url", w.URL.Redacted()),
		table:  newTable(external, w.WriteRelabelConfigs),
		// Without a version, 2.0 is tried.
		version1: w.ProtobufMessage == remoteapi.WriteV1MessageType,
	}
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

// await waits for more; a batch doesn't wait longer than it may.
func (d *destination) await(ctx, draining context.Context, grown <-chan struct{}) error {
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
	if len(d.batch) < d.write.QueueConfig.MaxSamplesPerSend {
		return nil
	}
	return d.flush(ctx)
}

// flush sends the batch.
func (d *destination) flush(ctx context.Context) error {
	if len(d.batch) == 0 {
		return nil
	}
	budget := splits
	if err := d.deliver(ctx, d.batch, &budget); err != nil {
		return err
	}
	clear(d.batch)
	d.batch = d.batch[:0]
	d.acknowledge()
	return d.describe(ctx)
}

func (d *destination) acknowledge() {
	d.passed.Store(d.taken.Samples)
	d.acked(d.taken)
}

// deliver sends items in one request, until they are delivered or refused. If
// they are refused, each half is sent: many a destination of 1.0 refuses all
// because it has one of the samples already, as it may after a kill.
func (d *destination) deliver(ctx context.Context, items []item, budget *int) error {
	a, err := d.request(ctx, func() ([]byte, error) {
		if d.version1 {
			return d.encoder.encodeV1(d.table, items)
		}
		return d.encoder.encodeV2(d.table, items)
	}, d.metrics.retriedBy(items))
	switch {
	case err != nil:
		return err
	case a.outcome == delivered:
		d.metrics.delivered(items)
		return nil
	case d.version1 && len(items) > 1 && *budget > 0:
		*budget--
		half := len(items) / 2
		if err := d.deliver(ctx, items[:half], budget); err != nil {
			return err
		}
		return d.deliver(ctx, items[half:], budget)
	}
	d.logger.Warn("samples were refused", "samples", len(items), "written", a.written.AllSamples(), "err", a.err)
	d.metrics.refused(items, a.written)
	return nil
}

// request sends what encode makes until the answer is not that it should be
// sent again.
func (d *destination) request(ctx context.Context, encode func() ([]byte, error), retried func()) (answer, error) {
	backoff := time.Duration(d.write.QueueConfig.MinBackoff)
	for attempt := 0; ; attempt++ {
		body, err := encode()
		if err != nil {
			return answer{outcome: refused, err: err}, nil
		}
		began := time.Now()
		a := d.client.send(ctx, body, !d.version1, attempt)
		d.metrics.duration.Observe(time.Since(began).Seconds())
		switch a.outcome {
		case delivered:
			d.metrics.bytes.Add(float64(len(body)))
			return a, nil
		case refused:
			return a, nil
		case unknownVersion:
			d.logger.Info("destination does not know remote write 2.0, going on with 1.0")
			d.version1 = true
			attempt = -1
			continue
		case away:
		}
		if ctx.Err() != nil {
			return a, ctx.Err()
		}
		d.noteAway(a, attempt)
		retried()
		if err := sleep(ctx, max(backoff, a.retryAfter)); err != nil {
			return a, err
		}
		backoff = min(2*backoff, time.Duration(d.write.QueueConfig.MaxBackoff))
	}
}

// noteAway logs that a destination went away, not every attempt.
func (d *destination) noteAway(a answer, attempt int) {
	level := slog.LevelDebug
	if attempt == 0 {
		level = slog.LevelWarn
	}
	d.logger.Log(context.Background(), level, "destination takes nothing, samples wait in the write-ahead log", "attempt", attempt, "retry_after", a.retryAfter, "err", a.err)
}

// describe sends the metadata from time to time to a destination of 1.0; with
// 2.0 the samples have it.
func (d *destination) describe(ctx context.Context) error {
	c := d.write.MetadataConfig
	if !d.version1 || !c.Send || time.Since(d.described) < time.Duration(c.SendInterval) {
		return nil
	}
	d.described = time.Now()
	all := d.table.metadata()
	for start := 0; start < len(all); start += c.MaxSamplesPerSend {
		some := all[start:min(start+c.MaxSamplesPerSend, len(all))]
		_, err := d.request(ctx, func() ([]byte, error) { return d.encoder.encodeMetadataV1(some) }, func() {})
		if err != nil {
			return err
		}
		d.metrics.metadata.Add(float64(len(some)))
	}
	return nil
}

// pending counts the samples in the log that were not acknowledged.
func (d *destination) pending(log *wal.Log) uint64 {
	passed := d.passed.Load()
	return max(log.Committed(), passed) - passed
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
