package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// Limit names a limit of a fragment that was exceeded.
type Limit string

// The limits of plan.Limits.
const (
	LimitSamples Limit = "samples"
	LimitSeries  Limit = "series"
	LimitBytes   Limit = "bytes"
	LimitTime    Limit = "time"
)

// Limits are all limits, for metrics.
func Limits() []Limit { return []Limit{LimitSamples, LimitSeries, LimitBytes, LimitTime} }

// limited makes sure that the answer to a fragment is within its limits,
// whether or not the backend knows of them.
func limited(r Result, l plan.Limits) Result {
	if r.Err != nil {
		return r
	}
	for _, bound := range []struct {
		limit     Limit
		got, most int64
	}{
		{LimitSamples, int64(r.SamplesRead), l.Samples},
		{LimitSeries, int64(SeriesIn(r.Value)), l.Series},
		{LimitBytes, int64(r.Bytes), l.Bytes},
	} {
		if bound.most != 0 && bound.got > bound.most {
			r.Value, r.Err = nil, exceeded(bound.limit, "the fragment takes %d %s, the limit is %d", bound.got, bound.limit, bound.most)
			return r
		}
	}
	return r
}

// SeriesIn is the number of series in an answer; a scalar is one.
func SeriesIn(v parser.Value) int {
	switch v := v.(type) {
	case promql.Vector:
		return len(v)
	case promql.Matrix:
		return len(v)
	case nil:
		return 0
	}
	return 1
}

func exceeded(l Limit, format string, args ...any) *Error {
	return &Error{Kind: KindLimit, Limit: l, Err: fmt.Errorf(format, args...)}
}

// errTruncated is what a server remarks that has cut an answer off.
var errTruncated = errors.New("results truncated due to limit")

// errTime is why the context of a request ends that takes too long.
var errTime = errors.New("time limit of the fragment")

// within asks for a fragment and bounds what it costs.
func within(ctx context.Context, l plan.Limits, ask func(context.Context) Result) Result {
	if l.Time != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.Time, errTime)
		defer cancel()
	}
	began := time.Now()
	r := ask(ctx)
	r.Took = time.Since(began)
	// A server that keeps the limit itself may be the first to say so.
	ended := errors.Is(context.Cause(ctx), errTime) || l.Time != 0 && r.Took >= l.Time
	var e *Error
	switch {
	case errors.As(r.Err, &e) && e.Kind == KindTimeout && ended:
		r.Err = exceeded(LimitTime, "the fragment takes longer than %s", l.Time)
	case errors.Is(r.Err, errTruncated):
		r.Err = exceeded(LimitSeries, "the fragment returns more series than the limit, which is %d", l.Series)
	}
	return limited(r, l)
}
