package alerting

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have the names that dashboards and alerts for Prometheus know; since
// each Alertmanager has its own queue, length and drops are by Alertmanager.
type metrics struct {
	latency          *prometheus.SummaryVec
	latencyHistogram *prometheus.HistogramVec
	sent             *prometheus.CounterVec
	errors           *prometheus.CounterVec
	dropped          *prometheus.CounterVec
	queueCapacity    prometheus.Gauge
}

const alertmanagerLabel = "alertmanager"

// newMetrics registers the metrics of a Sender; lengths are read from it when
// they are asked for.
func newMetrics(reg prometheus.Registerer, s *Sender) *metrics {
	factory := promauto.With(reg)
	byAlertmanager := []string{alertmanagerLabel}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "prometheus_notifications_alertmanagers_discovered",
		Help: "Alertmanagers that are discovered and get alerts.",
	}, func() float64 { return float64(len(s.queueLengths())) })
	reg.MustRegister(queueLengths(s.queueLengths))
	return &metrics{
		latency: factory.NewSummaryVec(prometheus.SummaryOpts{
			Name:       "prometheus_notifications_latency_seconds",
			Help:       "Quantiles of the time that requests to Alertmanagers take.",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001},
		}, byAlertmanager),
		latencyHistogram: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "prometheus_notifications_latency_histogram_seconds",
			Help:                            "Time that requests to Alertmanagers take.",
			Buckets:                         []float64{.01, .1, 1, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, byAlertmanager),
		sent: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "prometheus_notifications_sent_total",
			Help: "Alerts in requests to Alertmanagers, failed requests and repetitions included.",
		}, byAlertmanager),
		errors: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "prometheus_notifications_errors_total",
			Help: "Alerts in failed requests to Alertmanagers, repetitions included.",
		}, byAlertmanager),
		dropped: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "prometheus_notifications_dropped_total",
			Help: "Notifications that an Alertmanager never got: the queue was full, they were no longer true, it refused them, or the process ended.",
		}, byAlertmanager),
		queueCapacity: factory.NewGauge(prometheus.GaugeOpts{
			Name: "prometheus_notifications_queue_capacity",
			Help: "Notifications that the queue of an Alertmanager can hold.",
		}),
	}
}

// add makes the series of an Alertmanager, so that its first error is an
// increase.
func (m *metrics) add(alertmanager string) {
	m.sent.WithLabelValues(alertmanager)
	m.errors.WithLabelValues(alertmanager)
	m.dropped.WithLabelValues(alertmanager)
}

// forget removes the series of an Alertmanager that is gone.
func (m *metrics) forget(alertmanager string) {
	gone := prometheus.Labels{alertmanagerLabel: alertmanager}
	m.latency.DeletePartialMatch(gone)
	m.latencyHistogram.DeletePartialMatch(gone)
	m.sent.DeletePartialMatch(gone)
	m.errors.DeletePartialMatch(gone)
	m.dropped.DeletePartialMatch(gone)
}

// queueLengths collects the lengths of all queues, by Alertmanager.
type queueLengths func() map[string]int

var queueLengthDesc = prometheus.NewDesc("prometheus_notifications_queue_length",
	"Notifications in the queue of an Alertmanager.", []string{alertmanagerLabel}, nil)

func (queueLengths) Describe(ch chan<- *prometheus.Desc) { ch <- queueLengthDesc }

func (q queueLengths) Collect(ch chan<- prometheus.Metric) {
	for alertmanager, n := range q() {
		ch <- prometheus.MustNewConstMetric(queueLengthDesc, prometheus.GaugeValue, float64(n), alertmanager)
	}
}
