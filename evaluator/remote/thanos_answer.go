package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	thanosv1 "github.com/tocsin-rules/tocsin/proto/thanos/v1"
)

// thanosAnswer puts the answer to one fragment together from its messages.
type thanosAnswer struct {
	budget
	window    plan.Window
	valueType parser.ValueType
	series    []promql.Series
	result    Result
}

func (a *thanosAnswer) add(msg *thanosv1.QueryResponse) error {
	if err := a.spend(msg); err != nil {
		return err
	}
	switch r := msg.GetResult().(type) {
	case *thanosv1.QueryResponse_Warnings:
		return addRemarks(&a.result.Warnings, splitRemarks(r.Warnings))
	case *thanosv1.QueryResponse_Timeseries:
		return a.take(r.Timeseries)
	case *thanosv1.QueryResponse_TimeseriesBatch:
		for _, s := range r.TimeseriesBatch.GetSeries() {
			if err := a.take(s); err != nil {
				return err
			}
		}
		return nil
	case *thanosv1.QueryResponse_Stats:
		a.result.SamplesRead = uint64(r.Stats.GetSamplesTotal())
		return nil
	}
	return errorf(KindBackend, "the answer holds a message of an unknown kind: the querier speaks another version of the protocol")
}

// splitRemarks takes apart what Thanos puts into one text.
func splitRemarks(text string) []string {
	list := strings.Split(text, ", "+remarkPrefix)
	for i := range list[1:] {
		list[i+1] = remarkPrefix + list[i+1]
	}
	return list
}

func (a *thanosAnswer) take(ts *thanosv1.TimeSeries) error {
	s, err := decodeSeries(ts)
	if err == nil && a.window.Step != 0 {
		err = checkSeries(s, a.window)
	}
	if err == nil && a.window.Step == 0 && len(s.Floats)+len(s.Histograms) != 1 {
		err = fmt.Errorf("series %s has %d samples, asked for one", s.Metric, len(s.Floats)+len(s.Histograms))
	}
	if err != nil {
		return errorf(KindBackend, "the answer is malformed: %w", err)
	}
	a.series = append(a.series, s)
	return nil
}

func decodeSeries(ts *thanosv1.TimeSeries) (s promql.Series, err error) {
	if s.Metric, err = decodeLabels(ts.GetLabels()); err != nil {
		return s, err
	}
	for _, p := range ts.GetSamples() {
		s.Floats = append(s.Floats, promql.FPoint{T: p.GetTimestamp(), F: p.GetValue()})
	}
	for _, b := range ts.GetHistograms() {
		p, err := decodeHistogram(b)
		if err != nil {
			return s, err
		}
		s.Histograms = append(s.Histograms, p)
	}
	return s, nil
}

func decodeLabels(pairs []*thanosv1.Label) (labels.Labels, error) {
	b := labels.NewScratchBuilder(len(pairs))
	previous := ""
	for _, l := range pairs {
		if l.GetName() <= previous {
			return labels.EmptyLabels(), fmt.Errorf("a label set is not sorted at %q", l.GetName())
		}
		previous = l.GetName()
		b.Add(l.GetName(), l.GetValue())
	}
	return b.Labels(), nil
}

func (a *thanosAnswer) finish() Result {
	a.result.Bytes = int(a.bytes)
	switch {
	case a.window.Step != 0:
		a.result.Value = promql.Matrix(a.series)
	case a.valueType == parser.ValueTypeVector:
		a.result.Value = a.vector()
	case len(a.series) == 1 && a.series[0].Metric.IsEmpty() && len(a.series[0].Floats) == 1:
		a.result.Value = promql.Scalar{T: a.window.Start, V: a.series[0].Floats[0].F}
	default:
		return Result{Err: errorf(KindBackend, "the answer is malformed: %d series for a scalar", len(a.series))}
	}
	return a.result
}

// vector puts samples at the time that was asked for: some queriers leave
// there when they were scraped.
func (a *thanosAnswer) vector() promql.Vector {
	v := make(promql.Vector, len(a.series))
	for i, s := range a.series {
		v[i] = promql.Sample{Metric: s.Metric, T: a.window.Start}
		if len(s.Histograms) > 0 {
			v[i].H = s.Histograms[0].H
		} else {
			v[i].F = s.Floats[0].F
		}
	}
	return v
}

// thanosError gives an error of a call its kind. Thanos reports whatever goes
// wrong during evaluation with one code, so the text has to tell mistakes of
// the expression from stores that are away. What is unknown may pass.
func thanosError(ctx context.Context, err error) error {
	if ended := contextError(ctx); ended != nil {
		return ended
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.ResourceExhausted:
		return errorf(KindLimit, "%s", s.Message())
	case codes.DeadlineExceeded:
		return errorf(KindTimeout, "%s", s.Message())
	case codes.InvalidArgument:
		return errorf(KindUser, "%s", s.Message())
	case codes.Unimplemented:
		return errorf(KindBackend, "the server is no Thanos querier, or one of another version: %s", s.Message())
	}
	return errorf(thanosKind(s.Message()), "%s", s.Message())
}

func thanosKind(text string) Kind {
	if isLimit(text) {
		return KindLimit
	}
	if fromStore(text) {
		return KindBackend
	}
	for _, mistake := range []string{
		"parse error", "many-to-many matching not allowed", "many matching requires", "multiple matches for labels",
		"duplicate series", "same labelset", "invalid parameter",
	} {
		if strings.Contains(text, mistake) {
			return KindUser
		}
	}
	return KindBackend
}
