package pushdown

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

type metrics struct {
	streams   prometheus.Gauge
	duration  prometheus.Histogram
	fragments prometheus.Counter
	queries   *prometheus.CounterVec
	samples   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_backend_pushdown_streams",
			Help: "Open streams of the pushdown protocol.",
		}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "tocsin_backend_pushdown_batch_duration_seconds",
			Help:    "Time from the arrival of a batch to its last result.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		fragments: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_backend_pushdown_fragments_total",
			Help: "Fragments received.",
		}),
		queries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_backend_pushdown_queries_total",
			Help: "Distinct fragments of batches that were run, by result.",
		}, []string{"result"}),
		samples: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_backend_pushdown_samples_read_total",
			Help: "Samples that the engine read to answer fragments.",
		}),
	}
	for kind := range pushdownv1.Error_Kind_name {
		m.queries.WithLabelValues(resultLabel(pushdownv1.Error_Kind(kind)))
	}
	return m
}

func (m *metrics) outcome(o *outcome) {
	m.queries.WithLabelValues(resultLabel(o.err.GetKind())).Inc()
	m.samples.Add(float64(o.samples))
}

// resultLabel is "success" for no error, or the error's kind as in
// "canceled".
func resultLabel(kind pushdownv1.Error_Kind) string {
	if kind == pushdownv1.Error_KIND_UNSPECIFIED {
		return "success"
	}
	return strings.ToLower(strings.TrimPrefix(kind.String(), "KIND_"))
}
