package evaluator_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

type recorder struct {
	mu        sync.Mutex
	fragments map[string]int // series, by text
	fetches   []evaluator.Fetch
}

func (r *recorder) Answered(fragments []plan.Fragment, results []remote.Result, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, f := range fragments {
		switch v := results[i].Value.(type) {
		case promql.Vector:
			r.fragments[f.Expr] += len(v)
		case promql.Matrix:
			r.fragments[f.Expr] += len(v)
		}
	}
}

func (r *recorder) Fetched(f evaluator.Fetch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches = append(r.fetches, f)
}

func TestAnObserverSeesAnswersAndRawSeries(t *testing.T) {
	t.Parallel()
	var data []promql.Series
	for _, cluster := range []string{"east", "west"} {
		data = append(data, promql.Series{
			Metric: labels.FromStrings("__name__", "m", "cluster", cluster),
			Floats: []promql.FPoint{{T: slot.Add(-time.Minute).UnixMilli(), F: 1}, {T: slot.UnixMilli(), F: 2}},
		})
	}
	f := newFleet(t, overNative, data)
	seen := &recorder{fragments: map[string]int{}}
	ctx := evaluator.Observed(context.Background(), seen)
	results := f.evaluator.Evaluate(ctx, slot, []evaluator.Query{
		{Name: "split", Expr: mustParse(t, "sum(m)")},
		{Name: "raw", Expr: mustParse(t, "max_over_time(quantile_over_time(scalar(sum(m)), m[5m])[1ms:1ms])")},
	})
	require.NoError(t, results[0].Err)
	require.NoError(t, results[1].Err)
	require.Equal(t, map[string]int{"sum by (cluster) (m)": 4}, seen.fragments)
	require.Len(t, seen.fetches, 1)
	require.Equal(t, 2, seen.fetches[0].Series)
	require.EqualValues(t, 4, seen.fetches[0].Samples)
	require.NoError(t, seen.fetches[0].Err)
}
