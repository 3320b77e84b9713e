package pushdown

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// The limits of a fragment by the names of their fields.
const (
	limitSamples = "samples"
	limitSeries  = "series"
	limitBytes   = "bytes"
	limitTime    = "time"
)

// limits are what the client lets a fragment cost; 0 is no limit.
type limits struct {
	samples, series, bytes uint64
	time                   time.Duration
}

func limitsOf(f *pushdownv1.Fragment) limits {
	l := f.GetLimits()
	return limits{
		samples: l.GetSamples(), series: l.GetSeries(), bytes: l.GetBytes(),
		time: time.Duration(l.GetTimeMs()) * time.Millisecond,
	}
}

// errTime is why the context of a fragment ends that takes too long.
var errTime = errors.New("time limit of the fragment")

// bounded returns the context that a fragment runs in.
func (l limits) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.time == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, l.time, errTime)
}

// failed is the error of a fragment that failed in ctx.
func (l limits) failed(ctx context.Context, err error) *pushdownv1.Error {
	if errors.Is(context.Cause(ctx), errTime) {
		return exceeded(limitTime, "the fragment takes longer than %s", l.time)
	}
	return errorOf(err)
}

// check compares the result of a fragment, which read some samples.
func (l limits) check(v parser.Value, samples uint64) *pushdownv1.Error {
	if l.samples != 0 && samples > l.samples {
		return exceeded(limitSamples, "the fragment reads %d samples, the limit is %d", samples, l.samples)
	}
	if n := seriesIn(v); l.series != 0 && n > l.series {
		return exceeded(limitSeries, "the fragment returns %d series, the limit is %d", n, l.series)
	}
	return nil
}

func seriesIn(v parser.Value) uint64 {
	switch v := v.(type) {
	case promql.Vector:
		return uint64(len(v))
	case promql.Matrix:
		return uint64(len(v))
	default:
		return 1
	}
}

// exceeded is the error about one of the client's limits.
func exceeded(limit, format string, args ...any) *pushdownv1.Error {
	return &pushdownv1.Error{Kind: pushdownv1.Error_KIND_LIMIT, Limit: limit, Message: fmt.Sprintf(format, args...)}
}
