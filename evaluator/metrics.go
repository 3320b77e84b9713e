package evaluator

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// Reasons to evaluate a query again: from raw series, or alone.
const (
	// rawJSONHistogram: an answer in JSON held a native histogram.
	rawJSONHistogram = "json_histogram"
	// rawMixedTypes: a part of a sum was left out by its backend because
	// floats and native histograms, or histograms of different kinds, met.
	rawMixedTypes = "mixed_types"
	// rawOverflow: a sum of which a mean is made is more than a float can hold.
	rawOverflow = "overflow"
	// rolledUpFailed: the query was to be answered from what another one asked
	// for, and that failed.
	rolledUpFailed = "rolled_up"
)

// backendsOwn stands for limits that are not ours.
const backendsOwn = "backend"

type metrics struct {
	queries   *prometheus.CounterVec
	fragments *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	samples   *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	local     *prometheus.CounterVec
	again     *prometheus.CounterVec
	selects   prometheus.Counter
	folds     prometheus.Counter
	members   prometheus.Counter
	alone     *prometheus.CounterVec
	unfolded  *prometheus.CounterVec
	limited   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, backends []plan.Backend) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "tocsin_evaluator_" + name, Help: help}, labels)
	}
	m := &metrics{
		queries:   counter("queries_total", "Queries evaluated, by result: success or the kind of the error.", "result"),
		fragments: counter("fragments_total", "Fragments sent to backends, by result: success or the kind of the error.", "backend", "result"),
		bytes:     counter("response_bytes_total", "Size of the answers to fragments.", "backend"),
		samples:   counter("samples_read_total", "Samples that backends say they read to answer fragments.", "backend"),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tocsin_evaluator_backend_duration_seconds",
			Help:    "Time for one backend's answer to all fragments of a batch.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"backend"}),
		local: counter("local_total", "Parts of expressions that were not pushed down, by reason.", "reason"),
		again: counter("repeated_evaluations_total", "Queries that were evaluated again, by reason: from raw series, or alone after rolled_up.", "reason"),
		selects: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_evaluator_raw_selects_total",
			Help: "Selectors whose raw series were fetched.",
		}),
		folds: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_evaluator_folds_total",
			Help: "Queries evaluated in place of several that differ only in their tenant.",
		}),
		members: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_evaluator_folded_queries_total",
			Help: "Queries that differ from others only in their tenant and were evaluated together with them.",
		}),
		alone:    counter("not_folded_queries_total", "Queries that differ from others only in their tenant but were not evaluated together, by reason.", "reason"),
		unfolded: counter("unfolded_queries_total", "Queries evaluated a second time, each alone, because the evaluation together failed, by kind of the error.", "kind"),
		limited:  counter("limited_queries_total", "Queries that failed because of a limit, by its setting; backend is for limits of backends' own.", "limit"),
	}
	m.initialise(backends)
	return m
}

func (m *metrics) initialise(backends []plan.Backend) {
	for _, result := range results() {
		m.queries.WithLabelValues(result)
	}
	for _, b := range backends {
		m.bytes.WithLabelValues(b.Name)
		m.samples.WithLabelValues(b.Name)
		m.duration.WithLabelValues(b.Name)
		for _, result := range results() {
			m.fragments.WithLabelValues(b.Name, result)
		}
	}
	for _, reason := range plan.Reasons() {
		m.local.WithLabelValues(string(reason))
	}
	for _, reason := range plan.FoldReasons() {
		m.alone.WithLabelValues(string(reason))
	}
	for _, kind := range remote.Kinds() {
		m.unfolded.WithLabelValues(string(kind))
	}
	m.limited.WithLabelValues(backendsOwn)
	for _, limit := range remote.Limits() {
		m.limited.WithLabelValues(queryLimit(limit))
		m.limited.WithLabelValues(tenantLimit(limit))
	}
	for _, reason := range []string{rawJSONHistogram, rawMixedTypes, rawOverflow, rolledUpFailed} {
		m.again.WithLabelValues(reason)
	}
}

func results() []string {
	list := []string{"success"}
	for _, kind := range remote.Kinds() {
		list = append(list, string(kind))
	}
	return list
}

// evaluated counts the result of a query.
func (m *metrics) evaluated(err error) {
	if err == nil {
		m.queries.WithLabelValues("success").Inc()
		return
	}
	e := classify(err)
	m.queries.WithLabelValues(string(e.Kind)).Inc()
	if e.Kind == KindLimit {
		m.limited.WithLabelValues(cmp.Or(e.Limit, backendsOwn)).Inc()
	}
}

// planned counts what a plan leaves local.
func (m *metrics) planned(p *plan.Plan) {
	for _, q := range p.Queries {
		for _, n := range q.Notes {
			m.local.WithLabelValues(string(n.Reason)).Inc()
		}
	}
}

// folded counts what is evaluated together and what is not.
func (m *metrics) folded(f *plan.Folding) {
	m.folds.Add(float64(len(f.Folds)))
	for _, fold := range f.Folds {
		m.members.Add(float64(len(fold.Members)))
	}
	for _, n := range f.Notes {
		m.alone.WithLabelValues(string(n.Reason)).Add(float64(len(n.Queries)))
	}
}

// apart counts the members of a fold that failed.
func (m *metrics) apart(f plan.Fold, err error) {
	m.unfolded.WithLabelValues(string(classify(err).Kind)).Add(float64(len(f.Members)))
}

// answered counts the answers of one backend.
func (m *metrics) answered(backend string, results []remote.Result, took time.Duration) {
	m.duration.WithLabelValues(backend).Observe(took.Seconds())
	for _, r := range results {
		m.bytes.WithLabelValues(backend).Add(float64(r.Bytes))
		m.samples.WithLabelValues(backend).Add(float64(r.SamplesRead))
		result := "success"
		if r.Err != nil {
			result = string(classify(r.Err).Kind)
		}
		m.fragments.WithLabelValues(backend, result).Inc()
	}
}
