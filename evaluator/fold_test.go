package evaluator_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// tenants are values of the job label, which the expressions of the other
// tests group by, match on, read and set.
var tenants = []string{"a", "b", `b.+"|\$1`}

// tenantData gives the third tenant what the second has.
func tenantData(rng *rand.Rand) []promql.Series {
	all := sampleData(rng)
	for _, s := range all {
		if s.Metric.Get("job") == "b" {
			s.Metric = labels.NewBuilder(s.Metric).Set("job", tenants[2]).Labels()
			all = append(all, s)
		}
	}
	return all
}

// tenantQueries is what every tenant asks for, without expressions that ask
// for another one's data.
func tenantQueries(t testing.TB, exprs []string, cluster string) []evaluator.Query {
	var queries []evaluator.Query
	for _, e := range exprs {
		for _, tenant := range tenants {
			scope := labels.FromMap(map[string]string{"job": tenant, "cluster": cluster}).WithoutEmpty()
			expr, err := plan.Scope(mustParse(t, e), scope)
			if err == nil && !ambiguous(expr) {
				queries = append(queries, evaluator.Query{Name: tenant + "/" + e, Expr: expr, Scope: scope})
			}
		}
	}
	return queries
}

// ambiguous recognises absent() of a selector with two matchers on one label:
// what labels it has depends on what the storage does to their order.
func ambiguous(expr parser.Expr) (found bool) {
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		vs, ok := n.(*parser.VectorSelector)
		if !ok || !strings.Contains(fmt.Sprint(path), "absent") {
			return nil
		}
		seen := map[string]bool{}
		for _, m := range vs.LabelMatchers {
			found = found || seen[m.Name]
			seen[m.Name] = true
		}
		return nil
	})
	return found
}

// TestFoldedAnswersEqualOnePrometheus asks for every expression by several
// tenants in one batch. Each answer is that of one Prometheus asked alone.
func TestFoldedAnswersEqualOnePrometheus(t *testing.T) {
	t.Parallel()
	for _, m := range []mode{overVirtual, overNative} {
		for _, cluster := range []string{"", "east"} {
			t.Run(fmt.Sprintf("%s cluster=%q", m, cluster), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(max(*seedFlag, 1), 9))
				f := newFleet(t, m, tenantData(rng))
				queries := tenantQueries(t, append(generate(rng, *countFlag/6), expressions...), cluster)
				require.Empty(t, strings.Join(f.compareQueries(t, queries, slot), "\n"))
				require.Greater(t, counterValue(t, f.registry, "tocsin_evaluator_folded_queries_total"), float64(len(queries))/3)
			})
		}
	}
}

func counterValue(t testing.TB, g prometheus.Gatherer, name string, labelValues ...string) float64 {
	t.Helper()
	families, err := g.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (len(labelValues) == 0 || m.GetLabel()[0].GetValue() == labelValues[0]) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %q", name, labelValues)
	return 0
}

// TestOneTenantDoesNotFailOthers: what fails together is evaluated alone in
// the same call, and is not tried together again soon.
func TestOneTenantDoesNotFailOthers(t *testing.T) {
	t.Parallel()
	data := tenantData(rand.New(rand.NewPCG(1, 1)))
	twin := labels.FromStrings(labels.MetricName, "gauge2", "job", "a", "instance", "0", "cluster", "east", "twin", "1")
	f := newFleet(t, overNative, append(data, named(labels.NewBuilder(twin).Del(labels.MetricName).Labels(), "gauge2", []promql.FPoint{{T: slot.UnixMilli(), F: 1}})))
	queries := tenantQueries(t, []string{`gauge / on (instance, cluster) gauge2`, `sum(gauge)`}, "east")
	for range 2 {
		results := f.evaluator.Evaluate(context.Background(), slot, queries)
		requireError(t, results[0].Err, evaluator.KindUser, "east")
		require.ErrorContains(t, results[0].Err, `query "a/gauge / on`)
		for _, r := range results[1:] {
			require.NoError(t, r.Err)
			require.NotEmpty(t, r.Vector)
		}
	}
	require.Equal(t, 3., counterValue(t, f.registry, "tocsin_evaluator_unfolded_queries_total", "user"))
	require.Equal(t, 3., counterValue(t, f.registry, "tocsin_evaluator_not_folded_queries_total", "failed"))
	require.Equal(t, 3., counterValue(t, f.registry, "tocsin_evaluator_folds_total"))
	require.Len(t, f.evaluator.Folding(queries).Folds, 1)
}

// TestLimitsAreThoseOfOneTenant: a bound that all together break is kept by
// each.
func TestLimitsAreThoseOfOneTenant(t *testing.T) {
	t.Parallel()
	cfg := evaluator.DefaultConfig()
	cfg.Limits.Query.Samples = 20
	for _, p := range partitions {
		all := tenantData(rand.New(rand.NewPCG(1, 1)))
		cfg.Backends = append(cfg.Backends, startBackend(t, overNative, p.name, p.labels["cluster"], all))
	}
	reg := prometheus.NewRegistry()
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), reg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	for _, r := range e.Evaluate(context.Background(), slot, tenantQueries(t, []string{`quantile(0.5, gauge)`}, "")) {
		require.NoError(t, r.Err)
		require.Len(t, r.Vector, 1)
	}
	require.Equal(t, 3., counterValue(t, reg, "tocsin_evaluator_unfolded_queries_total", "limit"))
}

// TestSlowFoldLeavesTime: a fold that gets no answer ends early enough for
// each of its members.
func TestSlowFoldLeavesTime(t *testing.T) {
	t.Parallel()
	cfg := evaluator.DefaultConfig()
	cfg.Timeout = model.Duration(2 * time.Second)
	east := startBackend(t, overHTTP, "east", "east", tenantData(rand.New(rand.NewPCG(1, 1))))
	proxy := httputil.NewSingleHostReverseProxy(east.URL.URL)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if form, _ := url.ParseQuery(string(body)); strings.Contains(form.Get("query"), "=~") {
			<-r.Context().Done()
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	cfg.Backends = []evaluator.BackendConfig{backendConfig(t, "east", "east", slow.URL)}
	for _, r := range newEvaluator(t, cfg).Evaluate(context.Background(), slot, tenantQueries(t, []string{`sum(gauge)`}, "east")) {
		require.NoError(t, r.Err)
		require.Len(t, r.Vector, 1)
	}
}

// TestRemarksOfOneTenantAreItsOwn: warnings, which may show data, reach only
// the tenant that they are about.
func TestRemarksOfOneTenantAreItsOwn(t *testing.T) {
	t.Parallel()
	data := tenantData(rand.New(rand.NewPCG(1, 1)))
	broken := labels.FromStrings("job", "a", "cluster", "east", "instance", "0", "le", "secret")
	f := newFleet(t, overNative, append(data, named(broken, "latency_bucket", []promql.FPoint{{T: slot.UnixMilli(), F: 1}})))
	results := f.evaluator.Evaluate(context.Background(), slot, tenantQueries(t, []string{`histogram_quantile(0.5, latency_bucket)`}, "east"))
	require.Contains(t, fmt.Sprint(results[0].Warnings), "secret")
	for _, r := range results[1:] {
		require.NoError(t, r.Err)
		require.NotContains(t, fmt.Sprint(r.Warnings), "secret")
	}
}

// TestFoldsAreTriedAgainIfTheyAreNotToBlame: queries that fail alone as well
// are folded at the next slot.
func TestFoldsAreTriedAgainIfTheyAreNotToBlame(t *testing.T) {
	t.Parallel()
	cfg := evaluator.DefaultConfig()
	cfg.Backends = []evaluator.BackendConfig{backendConfig(t, "east", "east", "http://127.0.0.1:1")}
	e := newEvaluator(t, cfg)
	queries := tenantQueries(t, []string{`sum(gauge)`}, "east")
	for _, r := range e.Evaluate(context.Background(), slot, queries) {
		requireError(t, r.Err, evaluator.KindBackend, "east")
	}
	require.Len(t, e.Folding(queries).Folds, 1)
}
