package evaluator

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// Steps are Count instants, Every apart, both in whole milliseconds.
type Steps struct {
	First time.Time
	Every time.Duration
	Count int
}

// At is the n-th instant, from 0.
func (s Steps) At(n int) time.Time { return s.First.Add(time.Duration(n) * s.Every) }

func (s Steps) window() plan.Window {
	return plan.Window{Start: timestamp.FromTime(s.First), End: timestamp.FromTime(s.At(s.Count - 1)), Step: s.Every.Milliseconds()}
}

// EvaluateSteps answers each query as Evaluate does at each of many instants,
// for a fraction of the cost: as range queries. The results are by query, then
// by instant. A query that means something else over a range, since it says
// start() or end(), is evaluated instant by instant, and so is one that failed
// over the range for its data or for a limit: Prometheus refuses a range for
// what is wrong at one of its instants. Values may differ from Evaluate's by the
// order in which a backend sums up floats.
func (e *Evaluator) EvaluateSteps(ctx context.Context, steps Steps, queries []Query) [][]Result {
	results := make([][]Result, len(queries))
	var ranges, single []int
	for i, q := range queries {
		results[i] = make([]Result, steps.Count)
		if steps.Count == 1 || plan.NamesWindow(q.Expr) || !isInstant(q.Expr) {
			single = append(single, i)
		} else {
			ranges = append(ranges, i)
		}
	}
	for n, o := range e.overRange(ctx, steps, pick(queries, ranges)) {
		i := ranges[n]
		e.metrics.evaluated(o.err)
		if o.err != nil && dependsOnRange(classify(o.err)) {
			single = append(single, i)
			continue
		}
		o.spread(queries[i], steps, results[i])
	}
	part := pick(queries, single)
	for n := 0; n < steps.Count && len(part) > 0; n++ {
		for k, r := range e.Evaluate(ctx, steps.At(n), part) {
			results[single[k]][n] = r
		}
	}
	return results
}

// isInstant tells what a rule may have from what Evaluate refuses.
func isInstant(expr parser.Expr) bool {
	return expr.Type() == parser.ValueTypeVector || expr.Type() == parser.ValueTypeScalar
}

func pick(queries []Query, indexes []int) []Query {
	part := make([]Query, len(indexes))
	for n, i := range indexes {
		part[n] = queries[i]
	}
	return part
}

func (e *Evaluator) overRange(ctx context.Context, steps Steps, queries []Query) []outcome {
	if len(queries) == 0 {
		return nil
	}
	for i, q := range queries {
		query, _ := e.cfg.Limits.of(q.Scope)
		queries[i].Limits = query.plan()
	}
	recorded := make([][]promql.Sample, len(queries))
	return e.run(ctx, batch{queries: queries, recorded: recorded, options: e.options(steps.window()), lookback: time.Duration(e.cfg.LookbackDelta)})
}

// dependsOnRange tells whether some instants of a range that failed may have an
// answer.
func dependsOnRange(err *Error) bool {
	return err.Kind == KindUser || err.Kind == KindLimit || err.Kind == KindTimeout
}

// spread cuts the outcome of a range query into those of its instants.
func (o outcome) spread(q Query, steps Steps, results []Result) {
	matrix, ok := o.value.(promql.Matrix)
	err := o.err
	if err == nil && !ok {
		err = &Error{Kind: KindBackend, Err: fmt.Errorf("the answer to a range query is a %T", o.value)}
	}
	for n := range results {
		results[n] = Result{Warnings: o.warnings}
		if err != nil {
			results[n].Err = classify(err).of(q)
		}
	}
	if err != nil {
		return
	}
	w := steps.window()
	for _, s := range matrix {
		for _, p := range s.Floats {
			add(results, w, promql.Sample{Metric: s.Metric, T: p.T, F: p.F})
		}
		for _, p := range s.Histograms {
			add(results, w, promql.Sample{Metric: s.Metric, T: p.T, H: p.H})
		}
	}
}

func add(results []Result, w plan.Window, s promql.Sample) {
	n := (s.T - w.Start) / w.Step
	results[n].Vector = append(results[n].Vector, s)
}
