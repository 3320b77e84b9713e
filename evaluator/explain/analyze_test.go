package explain_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/explain"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
)

var slot = time.Unix(36_000, 0).UTC()

// prometheusOf starts Prometheus' API over two series m of a cluster.
func prometheusOf(t *testing.T, cluster string) string {
	t.Helper()
	db := promserver.Storage(t)
	var series []promql.Series
	for _, pod := range []string{"a", "b"} {
		series = append(series, promql.Series{
			Metric: labels.FromStrings("__name__", "m", "cluster", cluster, "pod", pod),
			Floats: []promql.FPoint{{T: slot.Add(-time.Minute).UnixMilli(), F: 1}, {T: slot.UnixMilli(), F: 2}},
		})
	}
	promserver.Append(t, db, series)
	return promserver.Start(t, db, labels.EmptyLabels())
}

func newEvaluator(t *testing.T, east, west string) *evaluator.Evaluator {
	t.Helper()
	cfg := evaluator.DefaultConfig()
	for name, base := range map[string]string{"east": east, "west": west} {
		u, err := url.Parse(base)
		require.NoError(t, err)
		cfg.Backends = append(cfg.Backends, evaluator.BackendConfig{
			Name: name, PartitionLabels: map[string]string{"cluster": name},
			URL: config.URL{URL: u}, HTTPClientConfig: config.DefaultHTTPClientConfig,
		})
	}
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

func rulesOf(t *testing.T, exprs ...string) []explain.Rule {
	t.Helper()
	rules := make([]explain.Rule, len(exprs))
	for i, text := range exprs {
		expr, err := parser.ParseExpr(text)
		require.NoError(t, err)
		rules[i] = explain.Rule{Name: text, Type: "expression", Expr: expr}
	}
	return rules
}

func TestAnAnalysisSaysWhatEachPartCosts(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, prometheusOf(t, "east"), prometheusOf(t, "west"))
	rules := rulesOf(t, "sum(m)", "max_over_time(quantile_over_time(scalar(sum(m)), m[5m])[1s:1s])", `sum(m{cluster="east"})`, "count(m < scalar(sum(m)))")
	r := explain.Analyze(t.Context(), e, slot, rules)
	require.False(t, r.Failed(), r)
	require.Empty(t, r.Unplanned)
	for i, want := range []int{1, 4, 1, 1} {
		require.Equal(t, want, r.Rules[i].Result.Series, rules[i].Name)
	}
	for _, f := range r.Fragments {
		require.NotNil(t, f.Cost, f.Expr)
		require.Equal(t, 1, f.Cost.Series, f.Expr)
		require.Positive(t, f.Cost.Bytes)
		require.Positive(t, f.Cost.Seconds)
	}
	raw := r.Rules[1].Tree.Children[0].Children[0].Children[1]
	require.Equal(t, explain.KindRaw, raw.Kind)
	require.Equal(t, 4, raw.Cost.Series)
	require.EqualValues(t, 8, raw.Cost.Samples)
	for _, b := range r.Backends {
		want := map[string]int{"east": 4, "west": 3}[b.Name]
		require.Equal(t, want, b.Cost.Fragments, b.Name)
		require.Positive(t, b.Cost.Requests)
	}
}

func TestAnAnalysisNamesTheBackendThatFails(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	e := newEvaluator(t, prometheusOf(t, "east"), refusing.URL)
	r := explain.Analyze(t.Context(), e, slot, rulesOf(t, "sum(m)", `sum(m{cluster="east"})`))
	require.True(t, r.Failed())
	require.Contains(t, r.Rules[0].Result.Error, `backend "west"`)
	require.Empty(t, r.Rules[1].Result.Error)
	require.Contains(t, r.String(), "west: sum by (cluster) (m) (failed after ")
}
