package evaluator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// errTime is why the context of a local expression ends that takes too long.
var errTime = errors.New("time limit of the query")

// localQuery evaluates what is left of a query over sites and raw series. It
// is the storage of that: the engine selects from one goroutine.
type localQuery struct {
	merge   *merge
	limits  plan.Limits
	partial bool
	// recorded is laid over raw series.
	recorded []promql.Sample
	// cost is what the query has taken so far, fetched the part of it that is
	// raw series, for nobody else.
	cost, fetched Cost
	// fault is the first error of fetching raw series.
	fault error
}

func (l *localQuery) run(ctx context.Context, expr parser.Expr, o outcome) outcome {
	if l.limits.Time != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.limits.Time, errTime)
		defer cancel()
	}
	query, err := l.newQuery(ctx, expr.String())
	if err != nil {
		o.err = err
		return o
	}
	defer query.Close()
	began := time.Now()
	res := query.Exec(ctx)
	// The engine looks at the clock now and then only.
	late := l.limits.Time != 0 && time.Since(began) > l.limits.Time
	o.warnings.Merge(res.Warnings)
	o.err = res.Err
	switch {
	case late, errors.Is(context.Cause(ctx), errTime):
		o.err = &Error{Kind: KindLimit, Limit: queryLimit(remote.LimitTime), Err: fmt.Errorf("the query takes longer than %s here", l.limits.Time)}
	case res.Err == nil:
		o.value = remote.Kept(res.Value)
	case l.fault != nil:
		// The engine's word for a late backend does not name it.
		o.err = l.fault
	}
	return o
}

func (l *localQuery) newQuery(ctx context.Context, expr string) (promql.Query, error) {
	w := l.merge.batch.options.Window
	opts := promql.NewPrometheusQueryOpts(false, l.merge.batch.lookback)
	engine := l.merge.evaluator.local.of(l.limits.Samples)
	if w.Step == 0 {
		return engine.NewInstantQuery(ctx, l, opts, expr, timestamp.Time(w.Start))
	}
	return engine.NewRangeQuery(ctx, l, opts, expr, timestamp.Time(w.Start), timestamp.Time(w.End), time.Duration(w.Step)*time.Millisecond)
}

// Querier implements storage.Queryable.
func (l *localQuery) Querier(mint, maxt int64) (storage.Querier, error) {
	raw, err := l.merge.evaluator.raw.Content(l.partial).Querier(mint, maxt)
	return localQuerier{raw, l}, err
}

type localQuerier struct {
	storage.Querier
	query *localQuery
}

// Select implements storage.Querier.
func (q localQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	m := q.query.merge
	if site, ok := plan.SiteOf(matchers); ok {
		i, err := strconv.Atoi(site)
		if err != nil || i < 0 || i >= len(m.plan.Sites) {
			return storage.ErrSeriesSet(&Error{Kind: KindInternal, Err: fmt.Errorf("site %q is not in the plan", site)})
		}
		return m.site(m.plan.Sites[i])
	}
	if name, ok := plan.ScalarOf(matchers); ok {
		return m.scalarSeries(name)
	}
	m.evaluator.metrics.selects.Inc()
	began := time.Now()
	set := q.Querier.Select(ctx, sorted, q.query.bounded(hints), matchers...)
	q.query.fetched.Time += time.Since(began)
	if q.query.fault == nil {
		q.query.fault = set.Err()
	}
	set = &fetchedSet{SeriesSet: observeFetch(ctx, set, matchers, began), query: q.query}
	return overlay(set, matching(q.query.recorded, matchers))
}

// bounded permits as many series as the query has left.
func (l *localQuery) bounded(hints *storage.SelectHints) *storage.SelectHints {
	h := *hints
	if l.limits.Series != 0 {
		h.Limit = int(max(1, l.limits.Series-l.cost.Series))
	}
	return &h
}

// fetchedSet counts raw series.
type fetchedSet struct {
	storage.SeriesSet
	query *localQuery
}

// Next implements storage.SeriesSet.
func (s *fetchedSet) Next() bool {
	if !s.SeriesSet.Next() {
		return false
	}
	s.query.cost.Series++
	s.query.fetched.Series++
	return true
}
