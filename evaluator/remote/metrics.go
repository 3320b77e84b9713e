package remote

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are about backends and their endpoints.
type Metrics struct {
	endpoints *prometheus.GaugeVec
	hedged    *prometheus.CounterVec
	failovers *prometheus.CounterVec
	up        *prometheus.GaugeVec
	requests  *prometheus.CounterVec
}

// NewMetrics registers the metrics of all backends.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	perBackend, perEndpoint := []string{"backend"}, []string{"backend", "endpoint"}
	return &Metrics{
		endpoints: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_evaluator_endpoints", Help: "Endpoints of a backend that are configured or discovered; without any, whatever needs the backend fails.",
		}, perBackend),
		hedged: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_evaluator_hedged_requests_total", Help: "Requests that were sent to another endpoint as well, since the first took longer than 99 of 100 answers before.",
		}, perBackend),
		failovers: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_evaluator_failovers_total", Help: "Requests that were sent to another endpoint since one failed.",
		}, perBackend),
		up: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_evaluator_endpoint_up", Help: "Whether an endpoint answered the last check.",
		}, perEndpoint),
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_evaluator_endpoint_requests_total", Help: "Requests to an endpoint, by result: success or the kind of the error; canceled if another endpoint was faster.",
		}, []string{"backend", "endpoint", "result"}),
	}
}

func (m *Metrics) backend(name string) {
	m.endpoints.WithLabelValues(name)
	m.hedged.WithLabelValues(name)
	m.failovers.WithLabelValues(name)
}

func (m *Metrics) endpoint(backend, endpoint string) {
	m.up.WithLabelValues(backend, endpoint)
	m.requests.WithLabelValues(backend, endpoint, "success")
}

// forget drops the series of an endpoint that is gone.
func (m *Metrics) forget(backend, endpoint string) {
	of := prometheus.Labels{"backend": backend, "endpoint": endpoint}
	m.up.DeletePartialMatch(of)
	m.requests.DeletePartialMatch(of)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
