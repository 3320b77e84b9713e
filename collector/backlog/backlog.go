// Package backlog sends to a backend what an earlier run of the collector left
// in the write-ahead log. Prometheus' remote write queues begin with what is
// scraped after their start, so samples that waited for a backend when the
// process ended would never leave the disk.
//
//	log of earlier runs ──▶ Sender ──▶ backend     until the end of the log is reached,
//	log of this run     ──▶ Sender ──▶ backend     then
//	log of this run     ──▶ queue  ──▶ backend     for all that is scraped from there on
//
// A Sender reads the log in order, one request at a time, so each series
// arrives in order. It sends floats and native histograms, no exemplars. It
// never writes the log and never starts a queue: its owner does, when asked.
//
// Run blocks; Sent may be called meanwhile.
package backlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

// poll is how often the end of the log is looked at for new records.
const poll = 100 * time.Millisecond

// Config says what is sent and how.
type Config struct {
	// StoragePath is the directory above the log's.
	StoragePath string
	// RemoteWrite and ExternalLabels shape the requests as they do a queue's.
	RemoteWrite    *config.RemoteWriteConfig
	ExternalLabels labels.Labels
	// After is the timestamp, in milliseconds, of the last sample that
	// needn't be sent.
	After int64
	// Grace is how long a sample may take from its timestamp into the log.
	Grace time.Duration
}

// Deps are what a Sender needs from its process.
type Deps struct {
	Client  remote.WriteClient
	Logger  *slog.Logger
	Metrics *Metrics
}

// Metrics count the samples of all Senders of a process.
type Metrics struct {
	sent    *prometheus.CounterVec
	dropped *prometheus.CounterVec
	reader  *wlog.LiveReaderMetrics
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		sent: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_backlog_samples_total",
			Help: "Samples of earlier runs that were sent to the backend.",
		}, []string{"url"}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_backlog_samples_dropped_total",
			Help: "Samples of earlier runs that the backend refused, as it does if it has them already.",
		}, []string{"url"}),
		// The queues' readers have registered theirs.
		reader: wlog.NewLiveReaderMetrics(nil),
	}
}

// Sender sends the backlog of one remote write.
type Sender struct {
	cfg     Config
	deps    Deps
	sent    prometheus.Counter
	dropped prometheus.Counter
	decoder record.Decoder
	series  *series
	batch   []remotewrite.Sample
	// until is the timestamp of the last sample to send, known once the queue
	// runs; zero before.
	until int64
	// last is the greatest timestamp that was sent, or Config.After.
	last atomic.Int64
}

// New returns a Sender that has opened nothing.
func New(cfg Config, deps Deps) *Sender {
	url := cfg.RemoteWrite.URL.Redacted()
	s := &Sender{
		cfg:     cfg,
		deps:    deps,
		sent:    deps.Metrics.sent.WithLabelValues(url),
		dropped: deps.Metrics.dropped.WithLabelValues(url),
		decoder: record.NewDecoder(labels.NewSymbolTable(), deps.Logger),
		series:  newSeries(cfg.ExternalLabels, cfg.RemoteWrite.WriteRelabelConfigs),
	}
	s.last.Store(cfg.After)
	return s
}

// Sent is the greatest timestamp, in milliseconds, among what was sent; what is
// left is later or at most Config.Grace earlier.
func (s *Sender) Sent() int64 { return s.last.Load() }

// HandOver starts the queue that takes over and returns a timestamp, in
// milliseconds: every later sample is the queue's.
type HandOver func(context.Context) (int64, error)

// Run sends the backlog and what is scraped meanwhile. When it has reached the
// end of the log it calls handOver, sends what the queue leaves out because it
// was being scraped just then, and returns.
func (s *Sender) Run(ctx context.Context, handOver HandOver) (err error) {
	r := &reader{dir: filepath.Join(s.cfg.StoragePath, "wal"), logger: s.deps.Logger, metrics: s.deps.Metrics.reader}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := s.sendNew(ctx, r); err != nil {
		return err
	}
	until, err := handOver(ctx)
	if err != nil {
		return fmt.Errorf("hand over to the queue: %w", err)
	}
	s.until = until
	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if err := s.sendNew(ctx, r); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grace.C:
			return s.sendNew(ctx, r)
		case <-tick.C:
		}
	}
}

// sendNew sends what the log has beyond what was read before.
func (s *Sender) sendNew(ctx context.Context, r *reader) error {
	err := r.read(func(rec []byte) error {
		if err := s.take(rec); err != nil {
			return err
		}
		if len(s.batch) < s.cfg.RemoteWrite.QueueConfig.MaxSamplesPerSend {
			return ctx.Err()
		}
		return s.flush(ctx)
	})
	if err != nil {
		return err
	}
	return s.flush(ctx)
}

// flush sends the batch, which a record may have made longer than one request
// should be.
func (s *Sender) flush(ctx context.Context) error {
	size := s.cfg.RemoteWrite.QueueConfig.MaxSamplesPerSend
	for start := 0; start < len(s.batch); start += size {
		if err := s.send(ctx, s.batch[start:min(start+size, len(s.batch))]); err != nil {
			return err
		}
	}
	for _, smp := range s.batch {
		s.last.Store(max(s.last.Load(), smp.T))
	}
	s.batch = s.batch[:0]
	return nil
}

// send returns an error only if ctx ended.
func (s *Sender) send(ctx context.Context, samples []remotewrite.Sample) error {
	err := s.store(ctx, samples)
	switch {
	case err == nil:
		s.sent.Add(float64(len(samples)))
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case len(samples) == 1 || !refusedForSamples(err):
		s.deps.Logger.Debug("backend refused samples of an earlier run", "samples", len(samples), "err", err)
		s.dropped.Add(float64(len(samples)))
		return nil
	}
	// Some backends refuse a whole request because they have one of its
	// samples already.
	half := len(samples) / 2
	if err := s.send(ctx, samples[:half]); err != nil {
		return err
	}
	return s.send(ctx, samples[half:])
}

// refusedForSamples tells an answer about the samples from one about the
// request, say its credentials. The client has the status in its text alone.
func refusedForSamples(err error) bool {
	text := err.Error()
	return strings.Contains(text, "HTTP status 400") || strings.Contains(text, "HTTP status 409")
}

// store sends one request, again and again while the backend is away.
func (s *Sender) store(ctx context.Context, samples []remotewrite.Sample) error {
	body, err := remotewrite.Encode(samples, s.cfg.RemoteWrite.ProtobufMessage)
	if err != nil {
		return err
	}
	queue := s.cfg.RemoteWrite.QueueConfig
	wait := time.Duration(queue.MinBackoff)
	for attempt := 0; ; attempt++ {
		_, err := s.deps.Client.Store(ctx, body, attempt)
		var away remote.RecoverableError
		if err == nil || !errors.As(err, &away) {
			return err
		}
		s.deps.Logger.Debug("backend is away, samples of an earlier run wait", "attempt", attempt, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Duration(queue.MaxBackoff))
	}
}
