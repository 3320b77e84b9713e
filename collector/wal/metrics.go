package wal

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have the names of Prometheus' agent mode where it has such.
type metrics struct {
	floats      prometheus.Counter
	histograms  prometheus.Counter
	exemplars   prometheus.Counter
	outOfOrder  prometheus.Counter
	corruptions prometheus.Counter
	failed      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, l *Log) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "prometheus_agent_active_series",
		Help: "Number of series that had a sample in the current or the last segment of the log.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(len(l.series))
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tocsin_collector_wal_size_bytes",
		Help: "Size of the write-ahead log on disk.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.size())
	})
	appended := f.NewCounterVec(prometheus.CounterOpts{
		Name: "prometheus_agent_samples_appended_total",
		Help: "Total number of samples appended to the storage.",
	}, []string{"type"})
	return &metrics{
		floats:     appended.WithLabelValues("float"),
		histograms: appended.WithLabelValues("histogram"),
		exemplars: f.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_agent_exemplars_appended_total",
			Help: "Total number of exemplars appended to the storage.",
		}),
		outOfOrder: f.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_agent_out_of_order_samples_total",
			Help: "Total number of out of order samples ingestion failed attempts.",
		}),
		corruptions: f.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_agent_corruptions_total",
			Help: "Total number of segments of the log that could not be read to their end.",
		}),
		failed: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_collector_wal_write_failures_total",
			Help: "Total number of scrapes that could not be written to the log.",
		}),
	}
}
