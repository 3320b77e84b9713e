// Package write sends recorded samples back: each to the backend whose
// partition labels it carries, by remote write 2.0, or 1.0 where a backend
// knows no other.
//
// A write is acknowledged or it is not; nothing is queued here. What is not
// acknowledged is repeated by the schedule at its original slot, so memory
// stays flat however long a backend is away. One that failed is tried by one
// request at a time, and one that asked for time is left alone: the writes of
// everybody else fail at once instead of waiting. Writers are safe for
// concurrent use.
package write

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/promql"
)

const (
	// maxSeriesPerRequest bounds the size of one request.
	maxSeriesPerRequest = 5000
	// maxSplits bounds how often a refused request is split, which finds a few
	// refused samples among many; of many refused ones it would make as many
	// requests.
	maxSplits = 100
)

// Config says where samples may go.
type Config struct {
	Destinations []Destination
	// MaxPendingSamples bounds the samples that are on their way to one backend.
	MaxPendingSamples int
}

// Unit is what one rule recorded for one slot. It succeeds or fails as one.
type Unit []promql.Sample

// Result says what became of a unit.
type Result struct {
	// Err is set when the unit was not acknowledged and has to be repeated.
	Err error
	// Rejected is set when a backend, or the routing, refused samples of the
	// unit for good; repeating it would not help.
	Rejected error
}

// Writer routes and sends samples.
type Writer struct {
	destinations []*destination
	router       *Router
	maxPending   int
	logger       *slog.Logger
	metrics      *metrics
}

type metrics struct {
	samples, rejected *prometheus.CounterVec
	failures, held    *prometheus.CounterVec
	lacking           *prometheus.CounterVec
	pending           *prometheus.GaugeVec
	duration          *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		samples: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_ruler_written_samples_total",
			Help: "Recorded samples that a backend acknowledged.",
		}, []string{"backend"}),
		rejected: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_ruler_rejected_samples_total",
			Help: "Recorded samples that were refused for good, by backend and reason.",
		}, []string{"backend", "reason"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_ruler_write_failures_total",
			Help: "Write requests that failed and are repeated.",
		}, []string{"backend"}),
		lacking: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_ruler_replica_write_failures_total",
			Help: "Write requests that a replica of a backend did not take while another one did; they are not repeated.",
		}, []string{"backend"}),
		held: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_ruler_writes_held_total",
			Help: "Writes that were not tried and are repeated: the backend had asked to wait (retry_after), had failed and was being tried (unavailable), or too many samples were waiting for it (pending).",
		}, []string{"backend", "reason"}),
		pending: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_ruler_write_pending_samples",
			Help: "Recorded samples that are on their way to a backend.",
		}, []string{"backend"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "tocsin_ruler_write_duration_seconds",
			Help:                            "Duration of write requests.",
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"backend"}),
	}
}

// New returns a writer to the destinations, whose partition labels must be
// disjoint and have the same names everywhere.
func New(cfg Config, logger *slog.Logger, reg prometheus.Registerer) (*Writer, error) {
	router, err := NewRouter(cfg.Destinations)
	if err != nil {
		return nil, err
	}
	w := &Writer{router: router, maxPending: cfg.MaxPendingSamples, logger: logger, metrics: newMetrics(reg)}
	for _, d := range cfg.Destinations {
		client, err := config.NewClientFromConfig(d.HTTPClientConfig, "write_"+d.Name)
		if err != nil {
			return nil, fmt.Errorf("backend %q: HTTP client for writing: %w", d.Name, err)
		}
		w.destinations = append(w.destinations, &destination{Destination: d, client: client})
		w.metrics.initialise(d.Name)
	}
	return w, nil
}

// initialise makes the metrics of a backend visible before anything happens.
func (m *metrics) initialise(backend string) {
	m.samples.WithLabelValues(backend)
	m.failures.WithLabelValues(backend)
	m.lacking.WithLabelValues(backend)
	m.pending.WithLabelValues(backend)
	for _, reason := range []string{heldRetryAfter, heldUnavailable, heldPending} {
		m.held.WithLabelValues(backend, reason)
	}
}

// Write sends all units, one request a backend unless they are very many, and
// answers with one result a unit.
func (w *Writer) Write(ctx context.Context, units []Unit) []Result {
	results := make([]Result, len(units))
	var mu sync.Mutex
	routed := w.route(units, results)
	var wg sync.WaitGroup
	for dst, series := range routed {
		wg.Go(func() {
			outcome := w.deliver(ctx, dst, series)
			mu.Lock()
			defer mu.Unlock()
			outcome.apply(results)
		})
	}
	wg.Wait()
	return results
}

// deliver sends all samples that are for one backend, a request after the other.
func (w *Writer) deliver(ctx context.Context, dst *destination, series []outgoing) (os outcomes) {
	pending := w.metrics.pending.WithLabelValues(dst.Name)
	if err := dst.gate.reserve(len(series), w.maxPending); err != nil {
		w.metrics.held.WithLabelValues(dst.Name, heldPending).Inc()
		return outcomes{{series: series, err: fmt.Errorf("write to backend %q: %w", dst.Name, err)}}
	}
	pending.Add(float64(len(series)))
	defer func(n int) {
		dst.gate.release(n)
		pending.Sub(float64(n))
	}(len(series))
	for len(series) > 0 {
		n := min(len(series), maxSeriesPerRequest)
		s := sending{Writer: w, dst: dst, splits: maxSplits}
		os = append(os, s.send(ctx, series[:n])...)
		series = series[n:]
	}
	return os
}

// outgoing is a sample on its way, with the unit that it belongs to.
type outgoing struct {
	promql.Sample
	unit int
}

func (w *Writer) route(units []Unit, results []Result) map[*destination][]outgoing {
	routed := map[*destination][]outgoing{}
	for u, unit := range units {
		for _, s := range unit {
			to, stored, err := w.router.Route(s.Metric)
			if err != nil {
				results[u].Rejected = err
				w.metrics.rejected.WithLabelValues("", "no_backend").Inc()
				continue
			}
			s.Metric = stored
			dst := w.destinations[to]
			routed[dst] = append(routed[dst], outgoing{Sample: s, unit: u})
		}
	}
	return routed
}

// Where names for each unit the backends that it is written to. Units with
// equal names go the same way.
func (w *Writer) Where(units []Unit) []string {
	where := make([]string, len(units))
	for u, unit := range units {
		var names []string
		for _, s := range unit {
			// What has no backend is refused without waiting for any.
			if to, err := w.router.destination(s.Metric); err == nil && !slices.Contains(names, w.destinations[to].Name) {
				names = append(names, w.destinations[to].Name)
			}
		}
		slices.Sort(names)
		where[u] = strings.Join(names, "\xff")
	}
	return where
}

// outcome is what became of the samples of one request.
type outcome struct {
	series   []outgoing
	err      error
	rejected error
}

func (o outcome) apply(results []Result) {
	for _, s := range o.series {
		if o.err != nil {
			results[s.unit].Err = o.err
		}
		if o.rejected != nil {
			results[s.unit].Rejected = o.rejected
		}
	}
}

type outcomes []outcome

func (os outcomes) apply(results []Result) {
	for _, o := range os {
		o.apply(results)
	}
}

// sending is the way of some samples of one Write to one backend.
type sending struct {
	*Writer
	dst *destination
	// splits is how many more times a refused request may be split.
	splits int
}

// send writes series to the backend. If it refuses any, the request is split
// until only those are left out: by protocol 1.0 it may have stored nothing, by
// 2.0 it has stored the rest, but does not tell which that is. What is stored
// twice is the same sample.
func (s *sending) send(ctx context.Context, series []outgoing) outcomes {
	answer, err := s.negotiate(ctx, series)
	if err == nil {
		err = answer.retryable()
	}
	name := s.dst.Name
	switch {
	case err != nil:
		s.metrics.failures.WithLabelValues(name).Inc()
		return outcomes{{series: series, err: fmt.Errorf("write to backend %q: %w", name, err)}}
	case answer.status/100 == 2:
		s.metrics.samples.WithLabelValues(name).Add(float64(len(series)))
		return nil
	case len(series) == 1 || s.splits == 0:
		stored := max(0, answer.stored)
		s.metrics.samples.WithLabelValues(name).Add(float64(stored))
		return s.rejected(s.dst, series, len(series)-stored, answer)
	default:
		s.splits--
		half := len(series) / 2
		return append(s.send(ctx, series[:half]), s.send(ctx, series[half:])...)
	}
}

// negotiate sends a request by protocol 2.0, and again by 1.0 if the backend
// does not know 2.0. It is asked once.
func (s *sending) negotiate(ctx context.Context, series []outgoing) (answer, error) {
	old := s.dst.v1.Load()
	a, err := s.post(ctx, s.dst, series)
	if err == nil && !old && a.tooNew() {
		s.logger.Info("backend does not know remote write 2.0, using 1.0", "backend", s.dst.Name)
		s.dst.v1.Store(true)
		a, err = s.post(ctx, s.dst, series)
	}
	return a, err
}

func (w *Writer) rejected(dst *destination, series []outgoing, n int, a answer) outcomes {
	w.metrics.rejected.WithLabelValues(dst.Name, a.reason()).Add(float64(n))
	w.logger.Warn("backend refused samples", "backend", dst.Name, "samples", n, "err", a.text)
	return outcomes{{series: series, rejected: fmt.Errorf("backend %q refused %d samples: %s", dst.Name, n, a.text)}}
}
