// Package engine runs PromQL over the backend's own data. It is the one
// promql.QueryEngine of the process: the HTTP API and the pushdown protocol
// both use it.
//
// Instant queries run on Prometheus' engine: rules are made of them, and there
// promql-engine costs half as much again and allocates three times as much,
// because it pays for operators, goroutines and buffers that only a range of
// steps pays back. Range queries run on promql-engine. Those that it does not
// implement, or that it is known to answer differently from Prometheus
// (routes.go lists them with their reasons), run on Prometheus' engine over the
// same data and are counted. The package never answers with part of a result:
// a panic inside an engine, also one that promql-engine swallows, becomes an
// error that names the expression.
//
// An Engine is safe for concurrent use and starts no goroutine of its own.
package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
	fast "github.com/thanos-io/promql-engine/engine"
)

// linger is how long the querier of a query that failed stays open.
// promql-engine returns from a cancelled query while goroutines of it may
// still be reading; memory-mapped chunks must not vanish under them.
const linger = 2 * time.Second

// Config bounds queries. The zero value of a field asks for its default.
type Config struct {
	// MaxSamples is the greatest number of samples that one query may hold in
	// memory at a time.
	MaxSamples int
	// MaxConcurrent is the number of queries that run at the same time; more
	// of them wait.
	MaxConcurrent int
	// Timeout ends a query that runs longer.
	Timeout time.Duration
	// Lookback is how far an instant selector looks for its sample unless the
	// query asks for another distance.
	Lookback time.Duration
	// SubqueryInterval is the step of subqueries that name none.
	SubqueryInterval time.Duration
}

// withDefaults fills in Prometheus' own defaults.
func (c Config) withDefaults() Config {
	orInt := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	orDuration := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	orInt(&c.MaxSamples, 50_000_000)
	orInt(&c.MaxConcurrent, 20)
	orDuration(&c.Timeout, 2*time.Minute)
	orDuration(&c.Lookback, 5*time.Minute)
	orDuration(&c.SubqueryInterval, time.Minute)
	return c
}

// Engine implements promql.QueryEngine.
type Engine struct {
	fast      *fast.Engine
	reference *promql.Engine
	gate      gate
	fallbacks *prometheus.CounterVec
	lingering sync.WaitGroup
}

var _ promql.QueryEngine = (*Engine)(nil)

// New returns an engine.
func New(cfg Config, reg prometheus.Registerer, logger *slog.Logger) *Engine {
	cfg = cfg.withDefaults()
	gate := newGate(cfg.MaxConcurrent)
	opts := promql.EngineOpts{
		Logger:                   logger,
		Reg:                      reg,
		MaxSamples:               cfg.MaxSamples,
		Timeout:                  cfg.Timeout,
		ActiveQueryTracker:       gate,
		LookbackDelta:            cfg.Lookback,
		NoStepSubqueryIntervalFn: func(int64) int64 { return cfg.SubqueryInterval.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       true,
		FeatureRegistry:          features.NewRegistry(),
	}
	e := &Engine{
		fast:      fast.New(fast.Opts{EngineOpts: opts, EnableAnalysis: true}),
		reference: promql.NewEngine(opts),
		gate:      gate,
		fallbacks: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_backend_engine_fallback_total",
			Help: "Queries that Prometheus' engine answered instead of promql-engine.",
		}, []string{"reason"}),
	}
	for _, reason := range allReasons {
		e.fallbacks.WithLabelValues(string(reason))
	}
	return e
}

// NewInstantQuery implements promql.QueryEngine. The error is a
// parser.ParseErrors when expr does not parse.
func (e *Engine) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, ts time.Time) (promql.Query, error) {
	rq, err := e.reference.NewInstantQuery(ctx, marked{q}, opts, expr, ts)
	if err != nil {
		return nil, translate(err, expr)
	}
	return &referenceQuery{rq, expr}, nil
}

// NewRangeQuery implements promql.QueryEngine; see NewInstantQuery.
func (e *Engine) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return e.newQuery(ctx, q, expr, func(ctx context.Context, engine promql.QueryEngine, q storage.Queryable) (promql.Query, error) {
		return engine.NewRangeQuery(ctx, q, opts, expr, start, end, step)
	})
}

// Admit waits for a place among the queries that may run at the same time, for
// one that the engine itself does not run. It fails when ctx ends.
func (e *Engine) Admit(ctx context.Context) (release func(), err error) {
	place, err := e.gate.Insert(ctx, "")
	return func() { e.gate.Delete(place) }, err
}

// Wait blocks until no query holds on to the storage any more, at most a few
// seconds after the last one was closed. Call it before closing the storage.
func (e *Engine) Wait() { e.lingering.Wait() }

// prepare makes the query on either of the two engines.
type prepare func(context.Context, promql.QueryEngine, storage.Queryable) (promql.Query, error)

func (e *Engine) newQuery(ctx context.Context, q storage.Queryable, expr string, p prepare) (promql.Query, error) {
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		return nil, err
	}
	t := traitsOf(parsed)
	onReference := func(ctx context.Context, why reason) (promql.Query, error) {
		e.fallbacks.WithLabelValues(string(why)).Inc()
		rq, err := p(ctx, e.reference, marked{q})
		if err != nil {
			return nil, translate(err, expr)
		}
		return &referenceQuery{rq, expr}, nil
	}
	if t.reason != "" {
		return onReference(ctx, t.reason)
	}
	w := &watched{Queryable: marked{q}}
	fq, err := e.newFast(ctx, w, expr, p)
	switch {
	case fast.IsUnimplemented(err):
		return onReference(ctx, reasonUnimplemented)
	case err != nil:
		return nil, translate(err, expr)
	}
	return &query{Query: fq, engine: e, expr: expr, traits: t, storage: w, onReference: onReference}, nil
}

func (e *Engine) newFast(ctx context.Context, q storage.Queryable, expr string, p prepare) (_ promql.Query, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Expr: expr, Cause: r}
		}
	}()
	return p(ctx, e.fast, q)
}

// referenceQuery guards one query of Prometheus' engine.
type referenceQuery struct {
	promql.Query
	expr string
}

// Exec implements promql.Query; see query.Exec.
func (q *referenceQuery) Exec(ctx context.Context) *promql.Result {
	res := exec(ctx, q.Query, q.expr)
	res.Err = translate(res.Err, q.expr)
	return res
}

// query guards one query of promql-engine.
type query struct {
	promql.Query
	engine      *Engine
	expr        string
	traits      traits
	storage     *watched
	onReference func(context.Context, reason) (promql.Query, error)
	failed      bool
}

// Exec implements promql.Query. Errors have the types that Prometheus' engine
// uses: ErrQueryTimeout, ErrQueryCanceled, ErrTooManySamples, ErrStorage.
func (q *query) Exec(ctx context.Context) *promql.Result {
	res := exec(ctx, q.Query, q.expr)
	if swallowedPanic(res) {
		res = &promql.Result{Err: &PanicError{Expr: q.expr, Cause: "cause unknown"}}
	}
	q.failed = res.Err != nil
	if why := q.traits.doubt(res, q.storage); why != "" {
		return q.repeat(ctx, why)
	}
	res.Err = translate(res.Err, q.expr)
	return res
}

// exec runs a query of either engine, neither of which catches all panics.
func exec(ctx context.Context, q promql.Query, expr string) (res *promql.Result) {
	defer func() {
		if r := recover(); r != nil {
			res = &promql.Result{Err: &PanicError{Expr: expr, Cause: r}}
		}
	}()
	return q.Exec(ctx)
}

// repeat answers from Prometheus' engine, which takes promql-engine's place
// for the rest of the query's life.
func (q *query) repeat(ctx context.Context, why reason) *promql.Result {
	again, err := q.onReference(ctx, why)
	if err != nil {
		return &promql.Result{Err: err}
	}
	q.Close()
	q.Query, q.failed = again, false
	return again.Exec(ctx)
}

// Close releases the storage, later if the query failed.
func (q *query) Close() {
	done := q.Query
	if !q.failed {
		done.Close()
		return
	}
	q.engine.lingering.Add(1)
	time.AfterFunc(linger, func() {
		defer q.engine.lingering.Done()
		done.Close()
	})
}

// swallowedPanic tells whether promql-engine recovered from a panic without
// turning it into an error. It then returns before it fills in the warnings,
// which are non-nil, if empty, on every regular return but that of a string.
func swallowedPanic(res *promql.Result) bool {
	if res.Err != nil || res.Warnings != nil {
		return false
	}
	_, isString := res.Value.(promql.String)
	return !isString
}

// gate bounds the number of queries that run at a time. It is a
// promql.QueryTracker because that is where both engines ask for admission.
type gate chan struct{}

func newGate(n int) gate { return make(gate, n) }

// GetMaxConcurrent implements promql.QueryTracker.
func (g gate) GetMaxConcurrent() int { return cap(g) }

// Insert waits for a free place.
func (g gate) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case g <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Delete frees a place.
func (g gate) Delete(int) { <-g }

// Close implements io.Closer; there is nothing to close.
func (g gate) Close() error { return nil }
