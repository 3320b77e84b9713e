package evaluator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
)

// limited is an evaluator over the tenants' data with some limits.
func limited(t *testing.T, m mode, limits evaluator.Limits) (*evaluator.Evaluator, *prometheus.Registry) {
	cfg := evaluator.DefaultConfig()
	cfg.Limits = limits
	for _, p := range partitions {
		cfg.Backends = append(cfg.Backends, startPartition(t, m, p, tenantData(rand.New(rand.NewPCG(1, 1)))))
	}
	reg := prometheus.NewRegistry()
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), reg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e, reg
}

// TestLimitsOfOneTenantsQueries: a tenant with narrower limits than the others
// is the only one whose queries fail, though all are evaluated as one.
func TestLimitsOfOneTenantsQueries(t *testing.T) {
	t.Parallel()
	for _, m := range []mode{overNative, overHTTP} {
		for name, tc := range map[string]struct {
			bounds evaluator.Bounds
			expr   string
			reason string
		}{
			"series of one backend":    {evaluator.Bounds{Series: 1}, `gauge`, `backend "`},
			"series of all backends":   {evaluator.Bounds{Series: 4}, `sum by (instance) (gauge)`, "the query takes"},
			"series fetched raw":       {evaluator.Bounds{Series: 3}, `max_over_time(quantile_over_time(scalar(gauge{cluster="east",instance="0"}), gauge[5m])[1s:1s])`, "raw series"},
			"bytes":                    {evaluator.Bounds{Bytes: 30}, `gauge`, `backend "`},
			"samples held here":        {evaluator.Bounds{Samples: 100}, `sum_over_time(vector(1)[10m:1s]) + on () group_left sum(gauge)`, "too many samples"},
			"time of evaluating here":  {evaluator.Bounds{Time: model.Duration(time.Millisecond)}, `sum_over_time(vector(1)[10m:1ms])`, "the query takes longer"},
			"samples read by backends": {evaluator.Bounds{Samples: 20}, `sum(count_over_time(gauge[30m]))`, `samples`},
		} {
			if m == overHTTP && name == "samples read by backends" {
				continue // The API does not say.
			}
			t.Run(fmt.Sprint(m, " ", name), func(t *testing.T) {
				t.Parallel()
				limits := evaluator.DefaultConfig().Limits
				limits.Tenants = []evaluator.TenantLimits{{Scope: map[string]string{"job": "a"}, Query: tc.bounds}}
				e, reg := limited(t, m, limits)
				queries := tenantQueries(t, []string{tc.expr}, "")
				results := e.Evaluate(context.Background(), slot, queries)
				var failed *evaluator.Error
				require.ErrorAs(t, results[0].Err, &failed)
				require.Equal(t, evaluator.KindLimit, failed.Kind, failed)
				require.Equal(t, `{job="a"}`, failed.Tenant)
				require.Equal(t, queries[0].Name, failed.Query)
				require.ErrorContains(t, failed, tc.reason)
				require.ErrorContains(t, failed, fmt.Sprintf(`query %q: tenant {job="a"}: `, queries[0].Name))
				require.ErrorContains(t, failed, "("+failed.Limit+")")
				require.Positive(t, counterValue(t, reg, "tocsin_evaluator_limited_queries_total", failed.Limit))
				for _, r := range results[1:] {
					require.NoError(t, r.Err)
				}
			})
		}
	}
}

// TestATenantThatSpendsTooMuchHasToWait and nobody waits with it.
func TestATenantThatSpendsTooMuchHasToWait(t *testing.T) {
	t.Parallel()
	limits := evaluator.DefaultConfig().Limits
	limits.Tenant.Series = 2
	limits.Tenants = []evaluator.TenantLimits{{Scope: map[string]string{"job": "b"}, Tenant: evaluator.Bounds{Series: 1_000_000}}}
	e, reg := limited(t, overNative, limits)
	queries := tenantQueries(t, []string{`gauge`}, "")
	for slots := range 3 {
		results := e.Evaluate(context.Background(), slot, queries)
		for i, r := range results {
			if slots == 0 || i == 1 {
				require.NoError(t, r.Err)
				continue
			}
			requireError(t, r.Err, evaluator.KindLimit, "")
			require.ErrorContains(t, r.Err, "(limits.tenant.series)")
		}
	}
	require.Equal(t, 4., counterValue(t, reg, "tocsin_evaluator_limited_queries_total", "limits.tenant.series"))
}

// TestQueriesOfTheAPIAreLimited as those of rules are.
func TestQueriesOfTheAPIAreLimited(t *testing.T) {
	t.Parallel()
	limits := evaluator.DefaultConfig().Limits
	limits.Query.Series = 2
	e, _ := limited(t, overNative, limits)
	q, err := e.QueryEngine().NewInstantQuery(context.Background(), nil, promql.NewPrometheusQueryOpts(false, 0), "gauge", slot)
	require.NoError(t, err)
	defer q.Close()
	require.ErrorContains(t, q.Exec(context.Background()).Err, "the limit is 2 (limits.query.series)")
}

// TestTenantsWithoutLabelsAreOne: rules without a scope share their limits.
func TestTenantsWithoutLabelsAreOne(t *testing.T) {
	t.Parallel()
	limits := evaluator.DefaultConfig().Limits
	limits.Tenant.Series = 1
	e, _ := limited(t, overNative, limits)
	require.NoError(t, evaluate(t, e, "sum(gauge)")[0].Err)
	r := e.Evaluate(context.Background(), slot, []evaluator.Query{{Name: "other", Expr: mustParse(t, "up"), Scope: labels.EmptyLabels()}})
	require.ErrorContains(t, r[0].Err, `query "other": the queries of the tenant owe 3 series, the limit is 1 a minute`)
}
