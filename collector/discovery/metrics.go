package discovery

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/discovery"
)

// The kinds of events, as values of a metric's label.
const (
	added   = "add"
	updated = "update"
	deleted = "delete"
)

// metrics have the names that they have in Prometheus.
type metrics struct {
	events   *prometheus.CounterVec
	failures prometheus.Counter

	discovery.MetricRegisterer
}

var _ discovery.DiscovererMetrics = (*metrics)(nil)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "prometheus_sd_kubernetes_events_total",
			Help: "The number of Kubernetes events handled.",
		}, []string{"role", "event"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_sd_kubernetes_failures_total",
			Help: "The number of failed WATCH/LIST requests.",
		}),
	}
	m.MetricRegisterer = discovery.NewMetricRegisterer(reg, []prometheus.Collector{m.events, m.failures})
	for _, role := range []Role{RolePod, RoleNode} {
		for _, event := range []string{added, updated, deleted} {
			m.events.WithLabelValues(string(role), event)
		}
	}
	return m
}

// Register is part of discovery.DiscovererMetrics.
func (m *metrics) Register() error { return m.RegisterMetrics() }

// Unregister is part of discovery.DiscovererMetrics.
func (m *metrics) Unregister() { m.UnregisterMetrics() }
