package pushdown_test

import (
	"context"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// TestLimitsOfFragments: one over its limit has an error that says which, and
// the others of the batch have their results.
func TestLimitsOfFragments(t *testing.T) {
	t.Parallel()
	const selectorThatHangs = `up{job="hangs"}`
	e := newEngine()
	hanging := &slowStorage{Queryable: loaded(t)}
	for _, messageBytes := range []int{1, 1 << 20} {
		c := open(t, serve(t, pushdown.Config{MessageBytes: messageBytes}, e, hanging))
		limited := func(f *pushdownv1.Fragment, l *pushdownv1.Limits) *pushdownv1.Fragment {
			f.Limits = l
			return f
		}
		all := func() *pushdownv1.Fragment { return instant(`{__name__=~".+"}`, 270_000) }
		results := c.batch(1,
			limited(all(), &pushdownv1.Limits{Samples: 3}),
			limited(all(), &pushdownv1.Limits{Series: 3}),
			limited(all(), &pushdownv1.Limits{Bytes: 40}),
			limited(instant(selectorThatHangs, 270_000), &pushdownv1.Limits{TimeMs: 20}),
			limited(all(), &pushdownv1.Limits{Samples: 1000, Series: 1000, Bytes: 1 << 20, TimeMs: 3_600_000}),
			all(),
		)
		for i, limit := range []string{"samples", "series", "bytes", "time"} {
			require.Equal(t, pushdownv1.Error_KIND_LIMIT, results[i].err.GetKind(), limit)
			require.Equal(t, limit, results[i].err.GetLimit())
			require.True(t, results[i].complete)
		}
		require.Equal(t, "the fragment returns 9 series, the limit is 3", results[1].err.GetMessage())
		require.Equal(t, "the fragment takes longer than 20ms", results[3].err.GetMessage())
		for _, r := range results[4:] {
			require.Nil(t, r.err)
			require.Len(t, r.rows, 9)
			require.Positive(t, r.samples)
			require.True(t, r.complete)
		}
		require.Equal(t, results[4].rows, results[5].rows)
	}
}

// slowStorage never ends reading what asks for job="hangs".
type slowStorage struct {
	storage.Queryable
}

func (s *slowStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return slowQuerier{q}, err
}

type slowQuerier struct {
	storage.Querier
}

func (q slowQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	for _, m := range ms {
		if m.Name == "job" && m.Value == "hangs" {
			<-ctx.Done()
			return storage.ErrSeriesSet(promql.ErrQueryCanceled("reading"))
		}
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}
