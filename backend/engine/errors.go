package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/promql"
	enginequery "github.com/thanos-io/promql-engine/query"
)

// PanicError says that an engine panicked. It is a fault of the engine,
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

// translate gives errors the types that Prometheus' engine documents, so that
// callers tell a timeout from a mistake in the expression the same way for
// both engines.
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
		// The spellings of the engines for a panic that they recovered.
		return &PanicError{Expr: expr, Cause: err}
	}
	return err
}
