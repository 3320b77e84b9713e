package evaluator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// QueryEngine returns the evaluator in the form that Prometheus' HTTP API
// wants. The queryable that is passed to its methods is ignored: the data is
// that of the backends.
func (e *Evaluator) QueryEngine() promql.QueryEngine { return queryEngine{e} }

type queryEngine struct {
	evaluator *Evaluator
}

// NewInstantQuery implements promql.QueryEngine.
func (qe queryEngine) NewInstantQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	ms := timestamp.FromTime(ts)
	return qe.query(ctx, opts, qs, plan.Window{Start: ms, End: ms})
}

// NewRangeQuery implements promql.QueryEngine.
func (qe queryEngine) NewRangeQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	w := plan.Window{Start: timestamp.FromTime(start), End: timestamp.FromTime(end), Step: interval.Milliseconds()}
	if w.Step <= 0 {
		return nil, fmt.Errorf("step %s of a range query is shorter than a millisecond", interval)
	}
	q, err := qe.query(ctx, opts, qs, w)
	if err != nil {
		return nil, err
	}
	if t := q.stmt.Expr.Type(); t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		return nil, fmt.Errorf("invalid expression type %q for range query, must be Scalar or instant Vector", parser.DocumentedType(t))
	}
	return q, nil
}

func (qe queryEngine) query(ctx context.Context, opts promql.QueryOpts, qs string, w plan.Window) (*query, error) {
	expr, err := parser.ParseExpr(qs)
	if err != nil {
		return nil, err
	}
	lookback := time.Duration(qe.evaluator.cfg.LookbackDelta)
	if opts != nil && opts.LookbackDelta() > 0 {
		lookback = opts.LookbackDelta()
	}
	asked := Query{Expr: expr, Limits: qe.evaluator.cfg.Limits.Query.plan(), Partial: IsPartial(ctx)}
	cancelled, cancel := context.WithCancel(context.Background())
	return &query{
		evaluator: qe.evaluator,
		text:      qs,
		stmt: &parser.EvalStmt{
			Expr: expr, Start: timestamp.Time(w.Start), End: timestamp.Time(w.End),
			Interval: time.Duration(w.Step) * time.Millisecond, LookbackDelta: lookback,
		},
		batch:     batch{queries: []Query{asked}, recorded: make([][]promql.Sample, 1), options: qe.evaluator.options(w), lookback: lookback},
		stats:     &stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(false)},
		cancelled: cancelled,
		cancel:    cancel,
	}, nil
}

// query implements promql.Query.
type query struct {
	evaluator *Evaluator
	text      string
	stmt      *parser.EvalStmt
	batch     batch
	stats     *stats.Statistics
	// cancelled ends when Cancel or Close is called.
	cancelled context.Context
	cancel    context.CancelFunc
}

// Exec implements promql.Query. Errors have the types by which Prometheus'
// API chooses a status.
func (q *query) Exec(ctx context.Context) *promql.Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(q.cancelled, cancel)()
	timer, _ := q.stats.Timers.GetSpanTimer(ctx, stats.ExecTotalTime)
	defer timer.Finish()
	o := q.evaluator.run(ctx, q.batch)[0]
	q.evaluator.metrics.evaluated(o.err)
	if o.err != nil {
		return &promql.Result{Err: apiError(o.err), Warnings: o.warnings}
	}
	value := o.value
	if q.batch.options.Window.Step != 0 {
		value = sortedMatrix(value)
	}
	return &promql.Result{Value: value, Warnings: o.warnings}
}

// sortedMatrix is the value of a range query in the order that Prometheus
// gives it.
func sortedMatrix(v parser.Value) parser.Value {
	matrix, _ := v.(promql.Matrix)
	slices.SortFunc(matrix, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
	return matrix
}

// Close implements promql.Query.
func (q *query) Close() { q.cancel() }

// Cancel implements promql.Query.
func (q *query) Cancel() { q.cancel() }

// Statement implements promql.Query.
func (q *query) Statement() parser.Statement { return q.stmt }

// Stats implements promql.Query.
func (q *query) Stats() *stats.Statistics { return q.stats }

// String implements promql.Query.
func (q *query) String() string { return q.text }

func apiError(err error) error {
	e := classify(err)
	switch e.Kind {
	case KindTimeout:
		return promql.ErrQueryTimeout(e.Error())
	case KindCanceled:
		return promql.ErrQueryCanceled(e.Error())
	case KindBackend, KindInternal:
		return promql.ErrStorage{Err: e}
	}
	return e
}
