package ruler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have Prometheus' names where Prometheus has the same, so that
// dashboards and rules made for it work. The label rule_group holds the
// group's key; its cardinality is that of the groups that this member owns.
type metrics struct {
	evaluations, failures         *prometheus.CounterVec
	duration                      prometheus.Summary
	iterations, missed, partial   *prometheus.CounterVec
	lastDuration, lastEvaluation  *prometheus.GaugeVec
	interval, rules               *prometheus.GaugeVec
	repeated                      prometheus.Counter
	groups                        prometheus.Gauge
	handoffs                      *prometheus.CounterVec
	checkpointErrors, batchesFull prometheus.Counter
	alertSamplesDropped           prometheus.Counter
	tenantsApart                  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{groupLabel})
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{groupLabel})
	}
	return &metrics{
		evaluations: counter("prometheus_rule_evaluations_total", "Rule evaluations."),
		failures:    counter("prometheus_rule_evaluation_failures_total", "Rule evaluations that failed."),
		duration: f.NewSummary(prometheus.SummaryOpts{
			Name:       "prometheus_rule_evaluation_duration_seconds",
			Help:       "Duration of a rule evaluation: its share of the batch.",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001},
		}),
		iterations:     counter("prometheus_rule_group_iterations_total", "Slots of the group that were evaluated or given up."),
		missed:         counter("prometheus_rule_group_iterations_missed_total", "Slots of the group that were given up, older than the backfill limit."),
		lastDuration:   gauge("prometheus_rule_group_last_duration_seconds", "Duration of the batch of the group's last slot."),
		lastEvaluation: gauge("prometheus_rule_group_last_evaluation_timestamp_seconds", "The group's last slot."),
		partial:        counter("tocsin_ruler_partial_results_total", "Rule evaluations whose result lacks the data of a backend that did not answer."),
		interval:       gauge("prometheus_rule_group_interval_seconds", "Interval of the group."),
		rules:          gauge("prometheus_rule_group_rules", "Number of rules of the group."),
		repeated: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_ruler_repeated_slots_total",
			Help: "Slots that were evaluated again, at their original timestamp, for rules that had failed or had been missed.",
		}),
		alertSamplesDropped: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_ruler_dropped_alert_samples_total",
			Help: "Samples of alerts that could not be written and were given up: older than the backfill limit, or beyond max_unwritten_alert_series.",
		}),
		tenantsApart: f.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_ruler_tenants_apart",
			Help: "Tenants that are evaluated apart from the others since their rules are, or may be, slow.",
		}),
		groups: f.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_ruler_groups",
			Help: "Rule groups that this member evaluates.",
		}),
		handoffs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_ruler_groups_started_total",
			Help: "Groups that this member began to evaluate, by where their state came from.",
		}, []string{"from"}),
		checkpointErrors: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_ruler_checkpoint_failures_total",
			Help: "Checkpoints that could not be left with a successor.",
		}),
		batchesFull: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_ruler_batches_delayed_total",
			Help: "Times that due slots had to wait because all batches were running.",
		}),
	}
}

func (m *metrics) started(g *group) {
	key := g.def.Key
	for _, c := range []*prometheus.CounterVec{m.evaluations, m.failures, m.iterations, m.missed, m.partial} {
		c.WithLabelValues(key)
	}
	m.interval.WithLabelValues(key).Set(g.def.Interval.Seconds())
	m.rules.WithLabelValues(key).Set(float64(len(g.def.Rules)))
}

func (m *metrics) stopped(key string) {
	for _, c := range []*prometheus.CounterVec{m.evaluations, m.failures, m.iterations, m.missed, m.partial} {
		c.DeleteLabelValues(key)
	}
	for _, g := range []*prometheus.GaugeVec{m.lastDuration, m.lastEvaluation, m.interval, m.rules} {
		g.DeleteLabelValues(key)
	}
}

func (m *metrics) evaluation(e *evaluation, took time.Duration) {
	key := e.task.group.def.Key
	m.evaluations.WithLabelValues(key).Inc()
	m.duration.Observe(took.Seconds())
	if e.err != nil {
		m.failures.WithLabelValues(key).Inc()
	}
	if e.partial {
		m.partial.WithLabelValues(key).Inc()
	}
}

func (m *metrics) iteration(t *task, took time.Duration) {
	if t.job.Repeat {
		m.repeated.Inc()
		return
	}
	key := t.group.def.Key
	m.iterations.WithLabelValues(key).Inc()
	m.lastDuration.WithLabelValues(key).Set(took.Seconds())
	m.lastEvaluation.WithLabelValues(key).Set(float64(t.job.Slot.Unix()))
}

func (m *metrics) gaveUp(key string, slots int) {
	m.iterations.WithLabelValues(key).Add(float64(slots))
	m.missed.WithLabelValues(key).Add(float64(slots))
}
