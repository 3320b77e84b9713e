// Package write sends recorded samples back: each to the backend whose
// partition labels it carries, by remote write 2.0, or 1.0 where a backend
// knows no other.
//
// A write is acknowledged or it is not; nothing is queued here. What is not
// acknowledged is repeated by the schedule at its original slot, so memory
// stays flat however long a backend is away. Writers are safe for concurrent
// use.
package write

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

const (
	// maxSeriesPerRequest bounds the size of one request.
	maxSeriesPerRequest = 5000
	// maxAnswerBytes is how much of an error answer is read.
	maxAnswerBytes = 1024
)

// Destination is a backend that samples can be written to.
type Destination struct {
	Name string
	// Partition are the labels, empty values included, that a series must
	// carry to belong here.
	Partition labels.Labels
	// Virtual backends do not store their partition labels: they are taken
	// off before the write.
	Virtual bool
	// URLs are the remote-write endpoints of the backend's replicas, at least
	// one. Each gets every sample; one that takes it suffices.
	URLs []string
	// Timeout bounds one request.
	Timeout          time.Duration
	HTTPClientConfig config.HTTPClientConfig
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
	names        []string // of the partition labels
	byPartition  map[string]*destination
	logger       *slog.Logger
	metrics      *metrics
}

type destination struct {
	Destination
	client *http.Client
	v1     atomic.Bool // the backend refused 2.0
}

type metrics struct {
	samples, rejected *prometheus.CounterVec
	failures, lacking *prometheus.CounterVec
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
func New(destinations []Destination, logger *slog.Logger, reg prometheus.Registerer) (*Writer, error) {
	w := &Writer{byPartition: map[string]*destination{}, logger: logger, metrics: newMetrics(reg)}
	for _, d := range destinations {
		client, err := config.NewClientFromConfig(d.HTTPClientConfig, "write_"+d.Name)
		if err != nil {
			return nil, fmt.Errorf("backend %q: HTTP client for writing: %w", d.Name, err)
		}
		dst := &destination{Destination: d, client: client}
		if other, ok := w.byPartition[d.Partition.String()]; ok {
			return nil, fmt.Errorf("backends %q and %q have the same partition labels %s", other.Name, d.Name, d.Partition)
		}
		w.byPartition[d.Partition.String()] = dst
		w.destinations = append(w.destinations, dst)
		w.names = w.names[:0]
		d.Partition.Range(func(l labels.Label) { w.names = append(w.names, l.Name) })
		w.metrics.samples.WithLabelValues(d.Name)
		w.metrics.failures.WithLabelValues(d.Name)
		w.metrics.lacking.WithLabelValues(d.Name)
	}
	return w, nil
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
			for len(series) > 0 {
				n := min(len(series), maxSeriesPerRequest)
				outcome := w.send(ctx, dst, series[:n])
				mu.Lock()
				outcome.apply(results)
				mu.Unlock()
				series = series[n:]
			}
		})
	}
	wg.Wait()
	return results
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
			dst, err := w.destination(s.Metric)
			if err != nil {
				results[u].Rejected = err
				w.metrics.rejected.WithLabelValues("", "no_backend").Inc()
				continue
			}
			if dst.Virtual {
				s.Metric = labels.NewBuilder(s.Metric).Del(w.names...).Labels()
			}
			routed[dst] = append(routed[dst], outgoing{Sample: s, unit: u})
		}
	}
	return routed
}

// destination is the backend whose partition labels the series carries.
func (w *Writer) destination(series labels.Labels) (*destination, error) {
	if len(w.names) == 0 && len(w.destinations) == 1 {
		return w.destinations[0], nil
	}
	b := labels.NewScratchBuilder(len(w.names))
	for _, n := range w.names {
		b.Add(n, series.Get(n))
	}
	b.Sort()
	partition := b.Labels()
	if d, ok := w.byPartition[partition.String()]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("no backend holds series with %s: %s", partition, series)
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

// send writes series to one backend. A backend that refuses a request of
// protocol 1.0 stores nothing of it, so the request is split until only the
// refused series are left out.
func (w *Writer) send(ctx context.Context, dst *destination, series []outgoing) outcomes {
	old := dst.v1.Load()
	answer, err := w.post(ctx, dst, series)
	if err == nil && !old && answer.tooNew() {
		w.logger.Info("backend does not know remote write 2.0, using 1.0", "backend", dst.Name)
		dst.v1.Store(true)
		answer, err = w.post(ctx, dst, series)
	}
	if err == nil {
		err = answer.retryable()
	}
	switch {
	case err != nil:
		w.metrics.failures.WithLabelValues(dst.Name).Inc()
		return outcomes{{series: series, err: fmt.Errorf("write to backend %q: %w", dst.Name, err)}}
	case answer.status/100 == 2:
		w.metrics.samples.WithLabelValues(dst.Name).Add(float64(len(series)))
		return nil
	case answer.stored >= 0: // 2.0: the rest of the request was stored
		w.metrics.samples.WithLabelValues(dst.Name).Add(float64(answer.stored))
		return w.rejected(dst, series, len(series)-answer.stored, answer)
	case len(series) == 1:
		return w.rejected(dst, series, 1, answer)
	default:
		half := len(series) / 2
		return append(w.send(ctx, dst, series[:half]), w.send(ctx, dst, series[half:])...)
	}
}

func (w *Writer) rejected(dst *destination, series []outgoing, n int, a answer) outcomes {
	w.metrics.rejected.WithLabelValues(dst.Name, a.reason()).Add(float64(n))
	w.logger.Warn("backend refused samples", "backend", dst.Name, "samples", n, "err", a.text)
	return outcomes{{series: series, rejected: fmt.Errorf("backend %q refused %d samples: %s", dst.Name, n, a.text)}}
}

func (w *Writer) post(ctx context.Context, dst *destination, series []outgoing) (answer, error) {
	protocol := protocolV2
	if dst.v1.Load() {
		protocol = protocolV1
	}
	samples := make([]remotewrite.Sample, len(series))
	for i, s := range series {
		samples[i] = remotewrite.Sample{Labels: s.Metric, T: s.T, F: s.F, FH: s.H}
	}
	body, err := remotewrite.Encode(samples, protocol.message)
	if err != nil {
		return answer{}, err
	}
	if dst.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dst.Timeout)
		defer cancel()
	}
	start := time.Now()
	defer func() { w.metrics.duration.WithLabelValues(dst.Name).Observe(time.Since(start).Seconds()) }()
	return w.best(dst, dst.postAll(ctx, protocol, body))
}

// reply is what one replica said to a request.
type reply struct {
	answer answer
	err    error
}

// rank is less for a reply that says more about the samples.
func (r reply) rank() int {
	switch {
	case r.err != nil:
		return 3
	case r.answer.retryable() != nil:
		return 2
	case r.answer.status/100 != 2:
		return 1
	}
	return 0
}

func (d *destination) postAll(ctx context.Context, p protocol, body []byte) []reply {
	replies := make([]reply, len(d.URLs))
	var posts sync.WaitGroup
	for i, u := range d.URLs {
		posts.Go(func() { replies[i].answer, replies[i].err = d.post(ctx, u, p, body) })
	}
	posts.Wait()
	return replies
}

// best is the reply that counts. A replica that is away lacks the samples, as it
// lacks those that it would have scraped.
func (w *Writer) best(dst *destination, replies []reply) (answer, error) {
	best := slices.MinFunc(replies, func(a, b reply) int { return a.rank() - b.rank() })
	for i, r := range replies {
		if best.rank() == 0 && r.rank() > 1 {
			w.metrics.lacking.WithLabelValues(dst.Name).Inc()
			w.logger.Warn("a replica did not take samples", "backend", dst.Name, "replica", i, "err", errors.Join(r.err, r.answer.retryable()))
		}
	}
	return best.answer, best.err
}

func (d *destination) post(ctx context.Context, target string, p protocol, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", p.contentType)
	req.Header.Set("X-Prometheus-Remote-Write-Version", p.version)
	req.Header.Set("User-Agent", "Tocsin/"+version.Version)
	resp, err := d.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	a := answer{status: resp.StatusCode, text: string(bytes.TrimSpace(text)), stored: -1}
	if stats, err := remote.ParseWriteResponseStats(resp); err == nil && stats.Confirmed {
		a.stored = stats.Samples + stats.Histograms
	}
	return a, nil
}

// answer is what a backend said to a request.
type answer struct {
	status int
	text   string
	// stored is the number of samples stored if the backend says so
	// (protocol 2.0), else negative.
	stored int
}

// tooNew tells an answer to protocol 2.0 of a backend that knows only 1.0. It
// may say so, or take the message for an empty one and be content: then it
// does not tell how much it has stored, as 2.0 demands.
func (a answer) tooNew() bool {
	return a.status == http.StatusUnsupportedMediaType || a.status/100 == 2 && a.stored < 0
}

// retryable is an error if the same request may succeed later: the backend is
// in trouble, or it does not let us in, which an operator will mend.
func (a answer) retryable() error {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusUnsupportedMediaType:
		return a.error()
	}
	if a.status/100 != 2 && a.status/100 != 4 {
		return a.error()
	}
	return nil
}

func (a answer) error() error {
	return errors.New(http.StatusText(a.status) + ": " + a.text)
}
