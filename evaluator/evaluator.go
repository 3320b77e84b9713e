package evaluator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// Query is one expression of a batch. Name appears in errors.
type Query = plan.Query

// Result is the answer to one query.
type Result struct {
	// Vector is the result; a scalar is one sample without labels.
	Vector promql.Vector
	// Warnings are what backends and the local merge remark, of a successful
	// query too.
	Warnings annotations.Annotations
	// Err is an *Error; Vector is nil then.
	Err error
}

// Evaluator asks backends and merges their answers.
type Evaluator struct {
	cfg      Config
	backends []plan.Backend
	clients  []remote.Client
	replicas []*remote.Replicas // the clients, unless in this process
	raw      *remote.Raw
	discover *discoverer
	local    engines
	metrics  *metrics
	pauses   pauses
	foldings memory[*plan.Folding]
	plans    memory[*plan.Plan]
	tenants  tenants
	work     work
}

// New returns an evaluator. It reads certificates and secrets but opens no
// connection.
func New(cfg Config, logger *slog.Logger, reg prometheus.Registerer) (*Evaluator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("evaluator configuration: %w", err)
	}
	e := &Evaluator{
		cfg:      cfg,
		backends: cfg.PlanBackends(),
		metrics:  newMetrics(reg, cfg.PlanBackends()),
		local:    newEngines(cfg, logger, prometheus.WrapRegistererWithPrefix("tocsin_evaluator_", reg)),
	}
	endpoints := remote.NewMetrics(reg)
	readers := make([]*remote.Reader, len(cfg.Backends))
	for i, b := range cfg.Backends {
		replicas := remote.NewReplicas(remote.ReplicasConfig{Name: b.Name, Connect: connector(cfg, b)}, logger, endpoints)
		if err := replicas.SetTargets(b.fixed()); err != nil {
			return nil, fmt.Errorf("backend %q: %w", b.Name, err)
		}
		e.clients, e.replicas = append(e.clients, replicas), append(e.replicas, replicas)
		readers[i] = remote.NewReader(e.backends[i], replicas)
	}
	e.raw = remote.NewRaw(readers)
	var err error
	e.discover, err = newDiscoverer(cfg, e.replicas, logger, reg)
	return e, err
}

// Run discovers and checks the endpoints of backends until ctx ends, then
// closes connections.
func (e *Evaluator) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, r := range e.replicas {
		running.Go(func() { r.Run(ctx) })
	}
	err := e.discover.run(ctx)
	running.Wait()
	return errors.Join(err, e.Close())
}

// Discovered waits, while Run runs, until every backend has an endpoint, or
// until ctx ends.
func (e *Evaluator) Discovered(ctx context.Context) {
	tick := time.NewTicker(discoveryInterval / 10)
	defer tick.Stop()
	for slices.ContainsFunc(e.replicas, func(r *remote.Replicas) bool { return !r.Known() }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends connections. Evaluations must have ended.
func (e *Evaluator) Close() error {
	var errs []error
	for _, c := range e.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Ready asks every backend whether it answers and names those that do not.
func (e *Evaluator) Ready(ctx context.Context) error {
	errs := make([]error, len(e.clients))
	var probes sync.WaitGroup
	for i, c := range e.clients {
		probes.Go(func() {
			if err := c.Probe(ctx); err != nil {
				errs[i] = fmt.Errorf("backend %q does not answer: %w", e.backends[i].Name, err)
			}
		})
	}
	probes.Wait()
	return errors.Join(errs...)
}

// Queryable is the union of the raw series of all backends, for metadata
// requests of the API.
func (e *Evaluator) Queryable() storage.SampleAndChunkQueryable { return e.raw }

// Plan says how Evaluate would answer queries at ts.
func (e *Evaluator) Plan(ts time.Time, queries []Query) *plan.Plan {
	return plan.New(queries, e.backends, e.instant(ts))
}

func (e *Evaluator) instant(ts time.Time) plan.Options {
	ms := timestamp.FromTime(ts)
	return e.options(plan.Window{Start: ms, End: ms})
}

func (e *Evaluator) options(w plan.Window) plan.Options {
	return plan.Options{Window: w, SubqueryStep: time.Duration(e.cfg.SubqueryStep)}
}

// Folding says which of the queries Evaluate would answer together, since they
// differ only in their tenant. Plan describes what becomes of each alone.
func (e *Evaluator) Folding(queries []Query) *plan.Folding {
	f := e.foldings.get(queries, func() *plan.Folding { return plan.NewFolding(queries, e.backends) })
	return f.Without(e.pauses.has)
}

// Evaluate answers all queries at ts, to the millisecond. The results are in
// the order of the queries. It returns when the slowest backend has answered,
// or failed to within the timeout; if queries were tried together first, in
// vain, that may take as long again.
func (e *Evaluator) Evaluate(ctx context.Context, ts time.Time, queries []Query) []Result {
	return e.EvaluateOver(ctx, ts, queries, make([][]promql.Sample, len(queries)))
}

// EvaluateOver is Evaluate for queries that may read samples which were recorded
// but which backends with a read delay may not show yet: those of each query
// are laid over the stored series. Staleness markers are samples, too.
func (e *Evaluator) EvaluateOver(ctx context.Context, ts time.Time, queries []Query, recorded [][]promql.Sample) []Result {
	b := batch{options: e.instant(ts), lookback: time.Duration(e.cfg.LookbackDelta)}
	results := make([]Result, len(queries))
	var indexes []int
	for i, q := range queries {
		if err := e.admit(&q); err != nil {
			results[i].Err = err.of(q)
			continue
		}
		b.queries, indexes = append(b.queries, q), append(indexes, i)
		b.recorded = append(b.recorded, e.covered(q.Expr, recorded[i]))
	}
	outcomes := e.overlaid(ctx, b)
	e.charge(b.queries, outcomes)
	for n, o := range outcomes {
		results[indexes[n]] = o.result(b.queries[n])
	}
	for _, r := range results {
		e.metrics.evaluated(r.Err)
	}
	return results
}

// admit gives a query its limits. It is an error if it cannot be a rule's or
// if its tenant has used up what it may.
func (e *Evaluator) admit(q *Query) *Error {
	if t := q.Expr.Type(); t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		return &Error{Kind: KindUser, Err: fmt.Errorf("the expression is a %s: a rule needs an instant vector or a scalar", parser.DocumentedType(t))}
	}
	query, tenant := e.cfg.Limits.of(q.Scope)
	q.Limits = query.plan()
	return e.tenants.refusal(q.Scope, tenant.plan(), time.Now())
}

// charge makes tenants pay for what their queries took.
func (e *Evaluator) charge(queries []Query, outcomes []outcome) {
	now := time.Now()
	for from := 0; from < len(queries); {
		scope, to, cost := queries[from].Scope, from, Cost{}
		for ; to < len(queries) && labels.Equal(queries[to].Scope, scope); to++ {
			cost = cost.plus(outcomes[to].cost)
		}
		_, tenant := e.cfg.Limits.of(scope)
		e.tenants.charge(scope, tenant.plan(), cost, now)
		from = to
	}
}

// batch is what is planned and executed together.
type batch struct {
	queries []Query
	// recorded are samples, parallel to the queries, that they may read and
	// that a backend may not show yet.
	recorded [][]promql.Sample
	options  plan.Options
	lookback time.Duration
}

// only is the part of the batch with the given indexes.
func (b batch) only(indexes []int) batch {
	part := b
	part.queries = make([]Query, len(indexes))
	part.recorded = make([][]promql.Sample, len(indexes))
	for n, i := range indexes {
		part.queries[n], part.recorded[n] = b.queries[i], b.recorded[i]
	}
	return part
}

// outcome is what became of one query.
type outcome struct {
	value    parser.Value
	warnings annotations.Annotations
	err      error
	// raw, if set, is why the query has to be evaluated from raw series.
	raw string
	// cost is what the query took, or its share of what several asked for.
	cost Cost
	// rolledUp means that the query depends on what another one asked for.
	rolledUp bool
}

// result makes a vector of the outcome of a vector or scalar expression.
func (o outcome) result(q Query) Result {
	if o.err != nil {
		return Result{Warnings: o.warnings, Err: classify(o.err).of(q)}
	}
	switch v := o.value.(type) {
	case promql.Vector:
		return Result{Vector: v, Warnings: o.warnings}
	case promql.Scalar:
		return Result{Vector: promql.Vector{{T: v.T, F: v.V}}, Warnings: o.warnings}
	}
	err := &Error{Kind: KindBackend, Err: fmt.Errorf("the answer is a %s", parser.DocumentedType(o.value.Type()))}
	return Result{Warnings: o.warnings, Err: err.of(q)}
}

// run plans a batch, asks the backends and merges the answers. Queries for
// which pushdown turns out to lose something are evaluated again from raw
// series, and those that failed with what another one asked for alone.
func (e *Evaluator) run(ctx context.Context, b batch) []outcome {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(e.cfg.Timeout))
	defer cancel()
	outcomes := e.once(ctx, b)
	b.options.Raw = cmp.Or(b.options.Raw, plan.ReasonRaw)
	e.again(ctx, b, outcomes, func(o outcome) string { return o.raw })
	b.options.Raw, b.options.Alone = "", true
	e.again(ctx, b, outcomes, func(o outcome) string {
		if o.err == nil || !o.rolledUp || ctx.Err() != nil {
			return ""
		}
		return rolledUpFailed
	})
	return outcomes
}

// again evaluates those queries once more that have a reason for it.
func (e *Evaluator) again(ctx context.Context, b batch, outcomes []outcome, reason func(outcome) string) {
	var indexes []int
	for i, o := range outcomes {
		if why := reason(o); why != "" {
			e.metrics.again.WithLabelValues(why).Inc()
			indexes = append(indexes, i)
		}
	}
	if len(indexes) == 0 {
		return
	}
	for n, o := range e.once(ctx, b.only(indexes)) {
		o.cost = o.cost.plus(outcomes[indexes[n]].cost)
		outcomes[indexes[n]] = o
	}
}

// once does all of run but the second attempt. A query is merged as soon as
// the backends that it needs have answered, so that one that is slow takes no
// time from the others.
func (e *Evaluator) once(ctx context.Context, b batch) []outcome {
	p := e.planned(b)
	e.metrics.planned(p)
	m := newMerge(ctx, e, b, p)
	m.ask(ctx)
	outcomes := make([]outcome, len(b.queries))
	var queries sync.WaitGroup
	for i := range outcomes {
		queries.Go(func() {
			m.wait(p.Queries[i])
			m.permits <- struct{}{}
			defer func() { <-m.permits }()
			outcomes[i] = m.query(ctx, i)
			outcomes[i].rolledUp = p.Queries[i].RolledUp
		})
	}
	queries.Wait()
	return outcomes
}

// planned is the plan of a batch: that of the same batch at an earlier instant,
// if it still holds.
func (e *Evaluator) planned(b batch) *plan.Plan {
	if b.options.Raw != "" || b.options.Alone || b.options.Window.Step != 0 {
		return plan.New(b.queries, e.backends, b.options)
	}
	p := e.plans.get(b.queries, func() *plan.Plan { return plan.New(b.queries, e.backends, b.options) })
	if moved, ok := p.At(b.options.Window); ok {
		return moved
	}
	return plan.New(b.queries, e.backends, b.options)
}
