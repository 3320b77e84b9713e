package backend

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	reasonOtherPartition = "other_partition"
	reasonForbiddenLabel = "forbidden_label"
)

type storeMetrics struct {
	refusedSamples *prometheus.CounterVec
}

func newStoreMetrics(reg prometheus.Registerer) *storeMetrics {
	m := &storeMetrics{
		refusedSamples: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_backend_refused_samples_total",
			Help: "Samples and exemplars that were refused because their series is not of this store's partition.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{reasonOtherPartition, reasonForbiddenLabel} {
		m.refusedSamples.WithLabelValues(reason)
	}
	return m
}
