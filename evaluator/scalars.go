package evaluator

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// newScalars are the outcomes of the plan's scalars. Each is worked out once,
// for all fragments and queries that need it, when it is first asked for.
func (m *merge) newScalars(ctx context.Context) []func() outcome {
	list := make([]func() outcome, len(m.plan.Scalars))
	for i, s := range m.plan.Scalars {
		list[i] = sync.OnceValue(func() outcome { return m.scalar(ctx, s) })
	}
	return list
}

// scalar waits for the backends that a scalar needs and works it out. The cost
// is that of raw series; what fragments cost is known to those who need them.
func (m *merge) scalar(ctx context.Context, s plan.Scalar) outcome {
	m.answers.wait(s.Fragments)
	var total Cost
	for _, f := range s.Fragments {
		answer := m.answers.results[f]
		if answer.Err != nil {
			return outcome{err: answer.Err}
		}
		total = total.plus(costOf(answer))
	}
	m.permits <- struct{}{}
	defer func() { <-m.permits }()
	local := &localQuery{merge: m, limits: s.Limits, cost: total}
	o := local.run(ctx, s.Local, outcome{})
	o.cost = local.fetched
	if _, ok := o.value.(promql.Scalar); o.err == nil && !ok {
		o.err = &Error{Kind: KindInternal, Err: fmt.Errorf("%s is a %T", s.Name, o.value)}
	}
	return o
}

// wait returns when all that a query needs is there.
func (m *merge) wait(q plan.QueryPlan) {
	m.answers.wait(q.Fragments)
	for _, i := range q.Scalars {
		m.scalars[i]()
	}
}

// withScalars is what is sent for a fragment: with numbers for its scalars.
func (m *merge) withScalars(f plan.Fragment) (plan.Fragment, error) {
	if len(f.Scalars) == 0 {
		return f, nil
	}
	values := map[string]float64{}
	for _, i := range f.Scalars {
		o := m.scalars[i]()
		if o.err != nil {
			return f, o.err
		}
		values[m.plan.Scalars[i].Name] = o.value.(promql.Scalar).V
	}
	return f.With(values), nil
}

// scalarSeries presents a scalar as a stored series without labels.
func (m *merge) scalarSeries(name string) storage.SeriesSet {
	for i, s := range m.plan.Scalars {
		if s.Name != name {
			continue
		}
		o := m.scalars[i]()
		if o.err != nil {
			return storage.ErrSeriesSet(o.err)
		}
		return &seriesSet{list: seriesOf(o.value, m.batch.options.Window)}
	}
	return storage.ErrSeriesSet(&Error{Kind: KindInternal, Err: fmt.Errorf("scalar %q is not in the plan", name)})
}
