package unittest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"

	"github.com/tocsin-rules/tocsin/ruler"
)

// errNoVector is said of an expression that no rule could have.
var errNoVector = errors.New("rule result is not a vector or scalar")

// sampleText is what is compared of a sample: a histogram in the notation of
// the test language, or else a value.
type sampleText struct {
	labels    labels.Labels
	value     float64
	histogram string
}

func (s sampleText) String() string {
	if s.histogram != "" {
		return s.labels.String() + " " + s.histogram
	}
	return s.labels.String() + " " + strconv.FormatFloat(s.value, 'E', -1, 64)
}

// expr compares the samples of an expression with those expected.
func (b *bench) expr(ctx context.Context, t exprTest) {
	got, err := b.evaluate(ctx, t)
	if err != nil {
		b.fail("    expr: %q, time: %s, err: %w", t.Expr, t.EvalTime, err)
		return
	}
	want, err := t.samples()
	if err != nil {
		b.fail("    expr: %q, time: %s, err: %w", t.Expr, t.EvalTime, err)
		return
	}
	if !slices.EqualFunc(want, got, b.sameSample) {
		b.fail("    expr: %q, time: %s,\n        exp: %v\n        got: %v", t.Expr, t.EvalTime, samplesText(want), samplesText(got))
	}
}

func (b *bench) sameSample(want, got sampleText) bool {
	same := want.value == got.value
	if b.file.FuzzyCompare {
		same = same || math.Nextafter(want.value, math.Inf(-1)) == got.value || math.Nextafter(want.value, math.Inf(1)) == got.value
	}
	return same && labels.Equal(want.labels, got.labels) && want.histogram == got.histogram
}

func (b *bench) evaluate(ctx context.Context, t exprTest) ([]sampleText, error) {
	expr, err := parser.ParseExpr(t.Expr)
	if err != nil {
		return nil, err
	}
	if kind := expr.Type(); kind != parser.ValueTypeVector && kind != parser.ValueTypeScalar {
		return nil, errNoVector
	}
	at := b.test.start().Add(time.Duration(t.EvalTime))
	result := b.env.Evaluator.Evaluate(ctx, at, []ruler.Query{{Name: t.Expr, Expr: expr}})[0]
	if result.Err != nil {
		return nil, cause(result.Err)
	}
	texts := make([]sampleText, len(result.Vector))
	for i, s := range result.Vector {
		texts[i] = sampleText{labels: s.Metric, value: s.F, histogram: promqltest.HistogramTestExpression(s.H)}
	}
	return sorted(texts), nil
}

// samples are those that the test expects.
func (t exprTest) samples() ([]sampleText, error) {
	texts := make([]sampleText, len(t.Expected))
	for i, e := range t.Expected {
		text, err := e.text()
		if err != nil {
			return nil, fmt.Errorf("labels %q: %w", e.Labels, err)
		}
		texts[i] = text
	}
	return sorted(texts), nil
}

func (e expectedSample) text() (sampleText, error) {
	text := sampleText{value: e.Value}
	var err error
	if text.labels, err = parser.ParseMetric(e.Labels); err != nil || e.Histogram == "" {
		return text, err
	}
	_, values, err := parser.ParseSeriesDesc("{} " + e.Histogram)
	switch {
	case err != nil:
		return text, err
	case len(values) != 1:
		return text, fmt.Errorf("expected 1 value, got %d", len(values))
	case values[0].Histogram == nil:
		return text, fmt.Errorf("expected histogram, got %v", values[0])
	}
	text.histogram = promqltest.HistogramTestExpression(values[0].Histogram)
	return text, nil
}

func sorted(texts []sampleText) []sampleText {
	slices.SortStableFunc(texts, func(a, b sampleText) int { return labels.Compare(a.labels, b.labels) })
	return texts
}

func samplesText(texts []sampleText) string {
	if len(texts) == 0 {
		return "nil"
	}
	words := make([]string, len(texts))
	for i, t := range texts {
		words[i] = t.String()
	}
	return strings.Join(words, ", ")
}

// dump prints all series, also those that rules recorded. The range is in whole
// seconds, as that of a selector has to be.
func (b *bench) dump(ctx context.Context) {
	span := (b.test.span() + time.Second).Truncate(time.Second)
	expr := fmt.Sprintf(`{__name__=~".+"}[%v]`, span)
	query, err := b.env.Engine.NewInstantQuery(ctx, b.data.Queryable(), nil, expr, b.test.start().Add(span))
	if err != nil {
		fmt.Fprintf(b.stdout, "DEBUG: Failed querying, expr: %q, err: %v\n", expr, err)
		return
	}
	defer query.Close()
	res := query.Exec(ctx)
	if res.Err != nil {
		fmt.Fprintf(b.stdout, "DEBUG: Failed query exec, expr: %q, err: %v\n", expr, res.Err)
		return
	}
	matrix, ok := res.Value.(promql.Matrix)
	if !ok {
		fmt.Fprintf(b.stdout, "DEBUG: Got unexpected type %T\n", res.Value)
		return
	}
	fmt.Fprintf(b.stdout, "DEBUG: Dump of all data (input_series and rules) at %v:\n", span)
	fmt.Fprintln(b.stdout, matrix.String())
}
