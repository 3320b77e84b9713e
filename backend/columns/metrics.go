package columns

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why a query is left to Prometheus' engine.
const (
	// reasonUnsupported: the expression has something that is not covered.
	reasonUnsupported elsewhere = "unsupported"
	// reasonHistograms: there are native histograms where they are not covered.
	reasonHistograms elsewhere = "histograms"
	// reasonRead: the storage failed, warned, or has more than fits in memory.
	reasonRead elsewhere = "read"
	// reasonCollision: series ended up with the same labels, or matched several
	// others, which mostly is an error.
	reasonCollision elsewhere = "collision"
	// reasonAnnotations: a shared part has annotations, which differ by query.
	reasonAnnotations elsewhere = "annotations"
	// reasonPanic: a fault of this package, which the log tells more about.
	reasonPanic elsewhere = "panic"
)

type metrics struct{ queries *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer, e *Evaluator) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tocsin_backend_columns_series",
		Help: "Series for which groups, joins and labels of results are kept from batch to batch.",
	}, e.derived.Weight)
	f.NewCounterFunc(prometheus.CounterOpts{
		Name: "tocsin_backend_columns_forgotten_total",
		Help: "Sub-expressions whose groups, joins and labels were forgotten for lack of room.",
	}, e.derived.Forgotten)
	m := &metrics{queries: f.NewCounterVec(prometheus.CounterOpts{
		Name: "tocsin_backend_columns_queries_total",
		Help: "Queries of batches by what became of them: success, or why Prometheus' engine answers.",
	}, []string{"result"})}
	for _, r := range []elsewhere{"", reasonUnsupported, reasonHistograms, reasonRead, reasonCollision, reasonAnnotations, reasonPanic} {
		m.queries.WithLabelValues(resultLabel(r))
	}
	return m
}

func (m *metrics) query(why elsewhere) { m.queries.WithLabelValues(resultLabel(why)).Inc() }

func resultLabel(why elsewhere) string {
	if why == "" {
		return "success"
	}
	return string(why)
}
