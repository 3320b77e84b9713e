package gossip

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tocsin-rules/tocsin/sharding"
)

// The reasons for which messages are rejected.
const (
	reasonMetadata = "metadata"
	reasonLabel    = "label"
	reasonKey      = "key"
	reasonCosts    = "costs"
	reasonGarbage  = "garbage"
)

type metrics struct {
	members       *prometheus.GaugeVec
	viewChanges   prometheus.Counter
	joins         *prometheus.CounterVec
	rejected      *prometheus.CounterVec
	nameConflicts prometheus.Counter
	costsVersion  prometheus.Gauge
	keyReloads    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, health func() float64) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tocsin_cluster_health_score",
		Help: "How late this member is at gossiping, by its own measure; 0 is healthy.",
	}, health)
	m := &metrics{
		members: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_cluster_members",
			Help: "Members in this member's view, by state; this one included.",
		}, []string{"state"}),
		viewChanges: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_cluster_view_changes_total",
			Help: "Changes of this member's view.",
		}),
		joins: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_cluster_join_attempts_total",
			Help: "Attempts to connect to peers that are not in the view.",
		}, []string{"result"}),
		rejected: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_cluster_rejected_messages_total",
			Help: "Gossip messages not accepted: by another key, another cluster's label, with metadata or costs that are not understood, or no messages at all.",
		}, []string{"reason"}),
		nameConflicts: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_cluster_name_conflicts_total",
			Help: "How often another process appeared under this member's name.",
		}),
		costsVersion: f.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_cluster_costs_version",
			Help: "Version of the costs of groups that this member shares groups out by.",
		}),
		keyReloads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_cluster_key_reloads_total",
			Help: "Changes of the gossip key file that were taken over, or could not be.",
		}, []string{"result"}),
	}
	for _, r := range []string{reasonMetadata, reasonLabel, reasonKey, reasonCosts, reasonGarbage} {
		m.rejected.WithLabelValues(r)
	}
	for _, r := range []string{"success", "failure"} {
		m.joins.WithLabelValues(r)
		m.keyReloads.WithLabelValues(r)
	}
	return m
}

func (m *metrics) viewChanged(v sharding.View) {
	count := map[sharding.State]float64{}
	for _, member := range v.Members() {
		count[member.State]++
	}
	for _, s := range []sharding.State{sharding.Joining, sharding.Ready, sharding.Leaving} {
		m.members.WithLabelValues(s.String()).Set(count[s])
	}
	m.costsVersion.Set(float64(v.Costs().Version()))
	m.viewChanges.Inc()
}
