package forward

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

const prefix = "prometheus_remote_storage_"

var (
	byDestination = []string{"remote_name", "url"}
	byReason      = append(byDestination[:2:2], "reason")
)

// metrics are those of all destinations, with the names and labels that the
// queues of Prometheus' remote write have.
type metrics struct {
	samples, histograms, exemplars perKind
	dropped                        *prometheus.CounterVec
	metadata, bytes                *prometheus.CounterVec
	highestSent                    *prometheus.GaugeVec
	duration                       *prometheus.HistogramVec
	state                          *state
}

// perKind counts the samples of one kind.
type perKind struct {
	sent, failed, retried *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, log *wal.Log) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, names []string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, names)
	}
	kind := func(name string) perKind {
		return perKind{
			sent:    counter(name+"_total", "Total number of "+name+" that the destination has answered for.", byDestination),
			failed:  counter(name+"_failed_total", "Total number of "+name+" that the destination has refused.", byDestination),
			retried: counter(name+"_retried_total", "Total number of "+name+" that were sent again because the destination was away.", byDestination),
		}
	}
	m := &metrics{
		samples:    kind("samples"),
		histograms: kind("histograms"),
		exemplars:  kind("exemplars"),
		dropped:    counter("samples_dropped_total", "Total number of samples and histograms that were read from the log, or lost from it, and not sent.", byReason),
		metadata:   counter("metadata_total", "Total number of metadata entries sent in requests of their own.", byDestination),
		bytes:      counter("bytes_total", "Total number of bytes of requests, compressed, that the destination has accepted.", byDestination),
		highestSent: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: prefix + "queue_highest_sent_timestamp_seconds",
			Help: "Timestamp of the latest sample that the destination has.",
		}, byDestination),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            prefix + "sent_batch_duration_seconds",
			Help:                            "Duration of requests.",
			Buckets:                         append(prometheus.DefBuckets, 25, 60, 120, 300),
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, byDestination),
		state: &state{log: log, all: map[*destination]struct{}{}},
	}
	reg.MustRegister(m.state)
	return m
}

// destinationMetrics are those of one destination.
type destinationMetrics struct {
	samples, histograms, exemplars counters
	lost, unwanted, tooOld         prometheus.Counter
	metadata, bytes                prometheus.Counter
	highestSent                    prometheus.Gauge
	duration                       prometheus.Observer
	highest                        int64
}

type counters struct{ sent, failed, retried prometheus.Counter }

func (m *metrics) of(d *destination) *destinationMetrics {
	name, url := d.name, d.write.URL.Redacted()
	kind := func(k perKind) counters {
		return counters{k.sent.WithLabelValues(name, url), k.failed.WithLabelValues(name, url), k.retried.WithLabelValues(name, url)}
	}
	return &destinationMetrics{
		samples: kind(m.samples), histograms: kind(m.histograms), exemplars: kind(m.exemplars),
		lost:        m.dropped.WithLabelValues(name, url, "lost_from_log"),
		unwanted:    m.dropped.WithLabelValues(name, url, "dropped_series"),
		tooOld:      m.dropped.WithLabelValues(name, url, "too_old"),
		metadata:    m.metadata.WithLabelValues(name, url),
		bytes:       m.bytes.WithLabelValues(name, url),
		highestSent: m.highestSent.WithLabelValues(name, url),
		duration:    m.duration.WithLabelValues(name, url),
	}
}

func (m *metrics) watch(d *destination) {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	m.state.all[d] = struct{}{}
}

func (m *metrics) forget(d *destination) {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	delete(m.state.all, d)
}

// tally counts items by kind.
type tally struct{ samples, histograms, exemplars int }

func tallyOf(items []item) (n tally) {
	for i := range items {
		switch it := &items[i]; {
		case it.exemplar != nil:
			n.exemplars++
		case it.H != nil || it.FH != nil:
			n.histograms++
		default:
			n.samples++
		}
	}
	return n
}

func (m *destinationMetrics) delivered(items []item) {
	n := tallyOf(items)
	m.samples.sent.Add(float64(n.samples))
	m.histograms.sent.Add(float64(n.histograms))
	m.exemplars.sent.Add(float64(n.exemplars))
}

// reached notes what is delivered or refused, with all that precedes it.
func (m *destinationMetrics) reached(items []item) {
	for i := range items {
		m.highest = max(m.highest, items[i].T)
	}
	m.highestSent.Set(float64(m.highest) / 1000)
}

// refused counts what was sent and, of it, what was not written.
func (m *destinationMetrics) refused(items []item, written remote.WriteResponseStats) {
	n := tallyOf(items)
	m.delivered(items)
	m.samples.failed.Add(float64(max(0, n.samples-written.Samples)))
	m.histograms.failed.Add(float64(max(0, n.histograms-written.Histograms)))
	m.exemplars.failed.Add(float64(max(0, n.exemplars-written.Exemplars)))
}

// retriedBy returns what counts another attempt.
func (m *destinationMetrics) retriedBy(items []item) func() {
	return func() {
		n := tallyOf(items)
		m.samples.retried.Add(float64(n.samples))
		m.histograms.retried.Add(float64(n.histograms))
		m.exemplars.retried.Add(float64(n.exemplars))
	}
}

// state says, when it is gathered, how far the destinations are.
type state struct {
	log *wal.Log
	mu  sync.Mutex
	all map[*destination]struct{}
}

var (
	shardsDesc    = prometheus.NewDesc(prefix+"shards", "Number of requests that may be under way at once.", byDestination, nil)
	minShardsDesc = prometheus.NewDesc(prefix+"shards_min", "Least number of requests that may be under way at once.", byDestination, nil)
	maxShardsDesc = prometheus.NewDesc(prefix+"shards_max", "Greatest number of requests that may be under way at once.", byDestination, nil)

	pendingDesc = prometheus.NewDesc(prefix+"samples_pending", "Number of samples and histograms in the log that the destination has not got.", byDestination, nil)
	highestDesc = prometheus.NewDesc(prefix+"queue_highest_timestamp_seconds", "Timestamp of the latest sample in the log.", byDestination, nil)
)

// Describe is part of prometheus.Collector.
func (*state) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{pendingDesc, highestDesc, shardsDesc, minShardsDesc, maxShardsDesc} {
		ch <- desc
	}
}

// Collect is part of prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	highest := float64(s.log.Highest()) / 1000
	for d := range s.all {
		for desc, v := range map[*prometheus.Desc]float64{
			pendingDesc: float64(d.pending(s.log)), highestDesc: highest,
			shardsDesc: float64(d.width.now.Load()), minShardsDesc: float64(d.width.least), maxShardsDesc: float64(d.width.most),
		} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, d.name, d.write.URL.Redacted())
		}
	}
}
