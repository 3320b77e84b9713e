package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	enginequery "github.com/thanos-io/promql-engine/query"
)

// PanicError says that promql-engine panicked. It is a fault of the engine,
// not of the expression's author.
type PanicError struct {
	// Expr is the expression that was being executed.
	Expr string
	// Cause is the value of the panic as far as it is known.
	Cause any
}

// Error implements error.
func (e *PanicError) Error() string {
	return fmt.Sprintf("query engine panicked on %q: %v", e.Expr, e.Cause)
}

// translate gives errors of promql-engine the types of Prometheus' engine, so
// that callers tell a timeout from a mistake in the expression the same way
// for both.
func translate(err error, expr string) error {
	var tooMany enginequery.ErrMaxSamplesExceeded
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout("query execution")
	case errors.Is(err, context.Canceled):
		return promql.ErrQueryCanceled("query execution")
	case errors.As(err, &tooMany):
		return promql.ErrTooManySamples("query execution")
	case strings.HasPrefix(err.Error(), "unexpected panic: "), strings.HasPrefix(err.Error(), "unexpected error"):
		// The two spellings of promql-engine for a panic that it recovered.
		return &PanicError{Expr: expr, Cause: err}
	}
	return err
}

// markedQueryable marks errors of the storage as promql.ErrStorage, which
// sets them apart from errors that the expression is to blame for.
type markedQueryable struct {
	storage.Queryable
}

// Querier implements storage.Queryable.
func (q *markedQueryable) Querier(mint, maxt int64) (storage.Querier, error) {
	inner, err := q.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, promql.ErrStorage{Err: err}
	}
	return &markedQuerier{Querier: inner}, nil
}

type markedQuerier struct {
	storage.Querier
}

// Select implements storage.Querier.
func (q *markedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	return &markedSet{q.Querier.Select(ctx, sorted, hints, matchers...)}
}

type markedSet struct {
	storage.SeriesSet
}

// Err implements storage.SeriesSet. The error of a query that was cancelled is
// not the storage's.
func (s *markedSet) Err() error {
	err := s.SeriesSet.Err()
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return promql.ErrStorage{Err: err}
}
