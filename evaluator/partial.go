package evaluator

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

type partialKey struct{}

// Partial returns a context in which queries of the API are content with a part
// of the data, as those with plan.Query.Partial are.
func Partial(ctx context.Context) context.Context { return context.WithValue(ctx, partialKey{}, true) }

// IsPartial tells whether a context is one of Partial.
func IsPartial(ctx context.Context) bool { return ctx.Value(partialKey{}) != nil }

// missing turns the failed answers to a query that is content with a part of
// the data into warnings: what such a backend would have contributed, whatever
// it is, is left out. At least one fragment must have been answered.
func (m *merge) missing(q plan.QueryPlan) (ws annotations.Annotations, ok bool) {
	for _, f := range q.Fragments {
		err := m.answers.results[f].Err
		switch {
		case err == nil:
			ok = true
		case !isAbsent(err):
			return nil, false
		default:
			ws.Add(&remote.Missing{Backend: m.plan.Backends[m.plan.Fragments[f].Backend].Name, Err: errors.Unwrap(err)})
		}
	}
	return ws, ok
}

func isAbsent(err error) bool {
	e := classify(err)
	return remote.Absent(&remote.Error{Kind: e.Kind, Err: e.Err})
}

// Lacks tells whether data is missing behind a result with some warnings.
func Lacks(ws annotations.Annotations) bool {
	for _, w := range ws {
		var missing *remote.Missing
		if errors.As(w, &missing) {
			return true
		}
	}
	return false
}
