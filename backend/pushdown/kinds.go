package pushdown

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/backend/engine"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// errorOf puts an error of the engine on the wire.
func errorOf(err error) *pushdownv1.Error {
	return &pushdownv1.Error{Kind: kindOf(err), Message: err.Error()}
}

// kindOf says who is to blame for an error of the engine. What the engine
// does not attribute to a limit, to the storage or to itself is the fault of
// the expression, as in Prometheus' API.
func kindOf(err error) pushdownv1.Error_Kind {
	var (
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
		tooMany  promql.ErrTooManySamples
		stored   promql.ErrStorage
		panicked *engine.PanicError
	)
	switch {
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return pushdownv1.Error_KIND_TIMEOUT
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return pushdownv1.Error_KIND_CANCELED
	case errors.As(err, &tooMany):
		return pushdownv1.Error_KIND_LIMIT
	case errors.As(err, &stored), errors.As(err, &panicked):
		return pushdownv1.Error_KIND_INTERNAL
	}
	return pushdownv1.Error_KIND_USER
}
