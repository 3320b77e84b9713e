package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// Local runs fragments over data in this process, one after the other.
type Local struct {
	engine promql.QueryEngine
	data   storage.Queryable
}

var _ Client = (*Local)(nil)

// NewLocal returns a client. The engine bounds the samples of a query.
func NewLocal(engine promql.QueryEngine, data storage.Queryable) *Local {
	return &Local{engine: engine, data: data}
}

// Execute implements Client.
func (l *Local) Execute(ctx context.Context, fragments []plan.Fragment, opts Options) []Result {
	results := make([]Result, len(fragments))
	for i, f := range fragments {
		results[i] = within(ctx, f.Limits, func(ctx context.Context) Result { return l.fragment(ctx, f, opts) })
	}
	return results
}

func (l *Local) fragment(ctx context.Context, f plan.Fragment, opts Options) Result {
	query, err := l.query(ctx, f, opts)
	if err != nil {
		return Result{Err: localError(ctx, err)}
	}
	defer query.Close()
	res := query.Exec(ctx)
	if res.Err != nil {
		return Result{Warnings: res.Warnings, Err: localError(ctx, res.Err)}
	}
	return Result{Value: Kept(res.Value), Warnings: res.Warnings}
}

// Kept copies the part of a value that an engine takes back when the query is
// closed.
func Kept(v parser.Value) parser.Value {
	matrix, ok := v.(promql.Matrix)
	if !ok {
		return v
	}
	c := slices.Clone(matrix)
	for i, s := range c {
		c[i].Floats, c[i].Histograms = slices.Clone(s.Floats), slices.Clone(s.Histograms)
	}
	return c
}

func (l *Local) query(ctx context.Context, f plan.Fragment, opts Options) (promql.Query, error) {
	qo := promql.NewPrometheusQueryOpts(false, opts.Lookback)
	start := timestamp.Time(f.Window.Start)
	if f.Window.Step == 0 {
		return l.engine.NewInstantQuery(ctx, l.data, qo, f.Expr, start)
	}
	step := time.Duration(f.Window.Step) * time.Millisecond
	return l.engine.NewRangeQuery(ctx, l.data, qo, f.Expr, start, timestamp.Time(f.Window.End), step)
}

// localError gives an error of the engine its kind.
func localError(ctx context.Context, err error) *Error {
	if ended := contextError(ctx); ended != nil {
		return ended
	}
	var (
		timeout promql.ErrQueryTimeout
		tooMany promql.ErrTooManySamples
		broken  promql.ErrStorage
	)
	e := &Error{Kind: KindUser, Err: err}
	switch {
	case errors.As(err, &timeout):
		e.Kind = KindTimeout
	case errors.As(err, &tooMany):
		e.Kind = KindLimit
	case errors.As(err, &broken):
		e.Kind, e.Err = KindBackend, fmt.Errorf("read the data: %w", broken.Err)
	}
	return e
}

// Probe implements Client: the data is always there.
func (l *Local) Probe(context.Context) error { return nil }

// Close implements Client. Engine and data are whoever's made them.
func (l *Local) Close() error { return nil }
