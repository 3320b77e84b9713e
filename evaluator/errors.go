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
	// Query is the name of the query.
	Query string
	// Tenant is the scope of the query as text, empty if it has none.
	Tenant string
	// Backend is the backend that failed, empty if none is to blame.
	Backend string
	// Limit is the setting that was exceeded, as in limits.query.samples;
	// empty if it is none of ours.
	Limit string
	Err   error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Query != "" {
		fmt.Fprintf(&b, "query %q: ", e.Query)
	}
	if e.Tenant != "" {
		fmt.Fprintf(&b, "tenant %s: ", e.Tenant)
	}
	if e.Backend != "" {
		fmt.Fprintf(&b, "backend %q: ", e.Backend)
	}
	b.WriteString(e.Err.Error())
	if e.Limit != "" {
		fmt.Fprintf(&b, " (%s)", e.Limit)
	}
	return b.String()
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// of returns the error as that of a query.
func (e *Error) of(q Query) *Error {
	named := *e
	named.Query = q.Name
	if !q.Scope.IsEmpty() {
		named.Tenant = q.Scope.String()
	}
	return &named
}

// classify gives an error of the local merge its kind: what is not the fault
// of a backend, of a limit or of the clock is the expression's.
func classify(err error) *Error {
	var (
		own      *Error
		asked    *remote.Error
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
		tooMany  promql.ErrTooManySamples
	)
	e := &Error{Kind: KindUser, Err: err}
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &asked):
		*e = Error{Kind: asked.Kind, Backend: asked.Backend, Err: asked.Err}
		if asked.Limit != "" {
			e.Limit = queryLimit(asked.Limit)
		}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		e.Kind = KindTimeout
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		e.Kind = KindCanceled
	case errors.As(err, &tooMany):
		e.Kind, e.Limit = KindLimit, queryLimit(remote.LimitSamples)
		e.Err = fmt.Errorf("%w: aggregate more or raise the limit", err)
	}
	return e
}
