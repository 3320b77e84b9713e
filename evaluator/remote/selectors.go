package remote

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// RangeSelectors fetches series as range vectors over the query API, for
// backends without remote read. Queries leave staleness markers out, so a series
// that has ended seems to last as long as the lookback; native histograms are an
// error.
type RangeSelectors struct {
	api *HTTP
}

var _ SeriesSource = RangeSelectors{}

// NewRangeSelectors returns a source over a backend's query API.
func NewRangeSelectors(api *HTTP) RangeSelectors { return RangeSelectors{api} }

// Series implements SeriesSource.
func (r RangeSelectors) Series(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]storage.Series, error) {
	answer := r.api.query(ctx, plan.Fragment{
		Expr:   rangeSelector(matchers, hints.Start, hints.End),
		Window: plan.Window{Start: hints.End, End: hints.End},
	}, Options{})
	if answer.Err != nil {
		return nil, answer.Err
	}
	matrix, ok := answer.Value.(promql.Matrix)
	if !ok {
		return nil, errorf(KindBackend, "the answer to a range selector is a %s", parser.DocumentedType(answer.Value.Type()))
	}
	list := make([]storage.Series, len(matrix))
	for i, s := range matrix {
		list[i] = promql.NewStorageSeries(s)
	}
	return list, nil
}

// rangeSelector has every sample from start to end, in milliseconds, at end. A
// range does not include its own start.
func rangeSelector(matchers []*labels.Matcher, start, end int64) string {
	selector := parser.VectorSelector{LabelMatchers: matchers}
	return fmt.Sprintf("%s[%s]", selector.String(), model.Duration(time.Duration(end-start+1)*time.Millisecond))
}
