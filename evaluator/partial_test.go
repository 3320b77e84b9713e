package evaluator_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// withoutWest is a fleet whose west does not answer, beside all other data in
// one storage.
func withoutWest(t *testing.T, m mode, series []promql.Series) *fleet {
	t.Helper()
	rest := slices.DeleteFunc(slices.Clone(series), func(s promql.Series) bool { return s.Metric.Get("cluster") == "west" })
	f := &fleet{engine: promserver.Engine(), whole: promserver.Storage(t), registry: prometheus.NewRegistry()}
	promserver.Append(t, f.whole, rest)
	cfg := evaluator.DefaultConfig()
	for _, p := range partitions {
		if p.name == "west" {
			cfg.Backends = append(cfg.Backends, backendConfig(t, "west", "west", "http://127.0.0.1:1"))
			continue
		}
		cfg.Backends = append(cfg.Backends, startPartition(t, m, p, rest))
	}
	var err error
	f.evaluator, err = evaluator.New(cfg, promslog.NewNopLogger(), f.registry)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.evaluator.Close()) })
	return f
}

// TestPartialResultsLackOneBackend: whatever has a result then equals one
// Prometheus without the data of that backend and says so, or needs none of
// it; what is not content with a part fails as ever. absent() over all data is
// the exception: what is missing may well be there.
func TestPartialResultsLackOneBackend(t *testing.T) {
	t.Parallel()
	f := withoutWest(t, overNative, sampleData(rand.New(rand.NewPCG(1, 1))))
	exprs := slices.DeleteFunc(slices.Clone(expressions), func(e string) bool { return strings.Contains(e, "absent") })
	strict := f.evaluator.Evaluate(context.Background(), slot, parsed(t, exprs))
	queries := parsed(t, exprs)
	for i := range queries {
		queries[i].Partial = true
	}
	lacking := 0
	for i, r := range f.evaluator.Evaluate(context.Background(), slot, queries) {
		var e *evaluator.Error
		if errors.As(r.Err, &e) && e.Kind == evaluator.KindBackend {
			require.Error(t, strict[i].Err)
			require.Equal(t, "west", e.Backend, "%s: %s", exprs[i], e)
			continue // All of its data is there.
		}
		want, err := f.expected(t, exprs[i], slot)
		require.Empty(t, difference(exprs[i], want, err, r), exprs[i])
		if evaluator.Lacks(r.Warnings) {
			lacking++
			require.Error(t, strict[i].Err, exprs[i])
		} else if r.Err == nil {
			require.NoError(t, strict[i].Err, exprs[i])
		}
	}
	require.Greater(t, lacking, len(exprs)/3)

	absent := parsed(t, []string{"absent(only_west)"})
	absent[0].Partial = true
	r := f.evaluator.Evaluate(context.Background(), slot, absent)[0]
	require.NoError(t, r.Err)
	require.Empty(t, r.Vector)
	require.True(t, evaluator.Lacks(r.Warnings))
}

// TestPartialResultsAreFolded: that data of all is missing is no reason to
// evaluate each tenant alone.
func TestPartialResultsAreFolded(t *testing.T) {
	t.Parallel()
	f := withoutWest(t, overNative, tenantData(rand.New(rand.NewPCG(1, 1))))
	queries := tenantQueries(t, []string{"sum(gauge)"}, "")
	for i := range queries {
		queries[i].Partial = true
	}
	for i, r := range f.evaluator.Evaluate(context.Background(), slot, queries) {
		want, err := f.expected(t, queries[i].Expr.String(), slot)
		require.Empty(t, difference("", want, err, r))
		require.True(t, evaluator.Lacks(r.Warnings))
	}
	require.Equal(t, 1., counterValue(t, f.registry, "tocsin_evaluator_folds_total"))
	require.Zero(t, counterValue(t, f.registry, "tocsin_evaluator_unfolded_queries_total"))
}

// TestPartialResultsOfTheAPI are only for who asks.
func TestPartialResultsOfTheAPI(t *testing.T) {
	t.Parallel()
	f := withoutWest(t, overNative, sampleData(rand.New(rand.NewPCG(1, 1))))
	for _, ctx := range []context.Context{context.Background(), evaluator.Partial(context.Background())} {
		q, err := f.evaluator.QueryEngine().NewInstantQuery(ctx, nil, promql.NewPrometheusQueryOpts(false, 0), "count(gauge)", slot)
		require.NoError(t, err)
		defer q.Close()
		res := q.Exec(context.Background())
		if ctx == context.Background() {
			require.ErrorContains(t, res.Err, `backend "west": `)
			continue
		}
		require.NoError(t, res.Err)
		require.EqualValues(t, 12, res.Value.(promql.Vector)[0].F)
		var missing *remote.Missing
		for _, w := range res.Warnings {
			require.ErrorAs(t, w, &missing)
		}
		require.Equal(t, "west", missing.Backend)
		require.ErrorContains(t, missing, `backend "west" does not answer, its data is missing: `)
	}
}
