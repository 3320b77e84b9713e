package evaluator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// Kind says who or what is to blame for an error.
type Kind = remote.Kind

// The kinds of errors; see package remote.
const (
	KindUser     = remote.KindUser
	KindBackend  = remote.KindBackend
	KindLimit    = remote.KindLimit
	KindTimeout  = remote.KindTimeout
	KindCanceled = remote.KindCanceled
	KindInternal = remote.KindInternal
)

// Error says why a query has no result.
type Error struct {
	Kind Kind
	// Backend is the backend that failed, empty if none is to blame.
	Backend string
	// Query is the name of the query.
	Query string
	Err   error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Query != "" {
		fmt.Fprintf(&b, "query %q: ", e.Query)
	}
	if e.Backend != "" {
		fmt.Fprintf(&b, "backend %q: ", e.Backend)
	}
	return b.String() + e.Err.Error()
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// classify gives an error of the local merge its kind: what is not the fault
// of a backend, of a limit or of the clock is the expression's.
func classify(query string, err error) *Error {
	var (
		own      *Error
		asked    *remote.Error
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
		tooMany  promql.ErrTooManySamples
	)
	e := &Error{Kind: KindUser, Query: query, Err: err}
	switch {
	case errors.As(err, &own):
		*e = Error{Kind: own.Kind, Backend: own.Backend, Query: query, Err: own.Err}
	case errors.As(err, &asked):
		*e = Error{Kind: asked.Kind, Backend: asked.Backend, Query: query, Err: asked.Err}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		e.Kind = KindTimeout
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		e.Kind = KindCanceled
	case errors.As(err, &tooMany):
		e.Kind = KindLimit
		e.Err = fmt.Errorf("%w: aggregate more or raise max_samples", err)
	}
	return e
}
