package evaluator_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-rules/tocsin/evaluator"
)

func newEvaluator(t *testing.T, cfg evaluator.Config) *evaluator.Evaluator {
	t.Helper()
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

func evaluate(t *testing.T, e *evaluator.Evaluator, exprs ...string) []evaluator.Result {
	t.Helper()
	queries := make([]evaluator.Query, len(exprs))
	for i, expr := range exprs {
		queries[i] = evaluator.Query{Name: expr, Expr: mustParse(t, expr)}
	}
	return e.Evaluate(context.Background(), slot, queries)
}

func requireError(t *testing.T, err error, kind evaluator.Kind, backend string) {
	t.Helper()
	var e *evaluator.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, kind, e.Kind, err)
	require.Equal(t, backend, e.Backend, err)
}

// healthy starts the east partition, with the gauge and only_west metrics.
func healthy(t *testing.T) evaluator.BackendConfig {
	ls := labels.FromStrings("cluster", "east", "job", "a", "instance", "0")
	return startBackend(t, overHTTP, "east", "east", instanceData(rand.New(rand.NewPCG(1, 1)), ls))
}

// TestOneBadBackendFailsWhatNeedsIt is invariant 6: no silent partial data.
func TestOneBadBackendFailsWhatNeedsIt(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(hanging.Close)
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "garbage") }))
	t.Cleanup(garbage.Close)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	large := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) }))
	t.Cleanup(large.Close)
	for name, tc := range map[string]struct {
		url  string
		kind evaluator.Kind
	}{
		"away":               {away.URL, evaluator.KindBackend},
		"hanging":            {hanging.URL, evaluator.KindTimeout},
		"answering nonsense": {garbage.URL, evaluator.KindBackend},
		"refusing":           {refusing.URL, evaluator.KindBackend},
		"saying too much":    {large.URL, evaluator.KindLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := evaluator.DefaultConfig()
			cfg.Timeout = model.Duration(2 * time.Second)
			cfg.MaxResponseBytes = 1 << 16
			cfg.Backends = []evaluator.BackendConfig{healthy(t), backendConfig(t, "west", "west", tc.url)}
			e := newEvaluator(t, cfg)
			r := evaluate(t, e,
				`sum(gauge)`, `sum(gauge{cluster="east"})`, `gauge{cluster="west"}`, `vector(1)`,
				`gauge or vector(0)`, `absent(gauge)`, `max_over_time(quantile_over_time(scalar(gauge{cluster="east"}), gauge[5m])[1s:1s])`,
				`gauge{cluster="east"} > scalar(sum(gauge{cluster="west"}))`, `gauge > scalar(sum(gauge{cluster="east"}))`)
			require.NoError(t, r[1].Err)
			require.Len(t, r[1].Vector, 1)
			require.NoError(t, r[3].Err)
			for _, i := range []int{0, 2, 4, 5, 7, 8} {
				requireError(t, r[i].Err, tc.kind, "west")
				require.Nil(t, r[i].Vector)
			}
			// Remote read has no bound of its own on the size of an error page.
			var raw *evaluator.Error
			require.ErrorAs(t, r[6].Err, &raw)
			require.Equal(t, "west", raw.Backend)
			require.ErrorContains(t, r[0].Err, `query "sum(gauge)": backend "west": `)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			err := e.Ready(ctx)
			require.ErrorContains(t, err, `backend "west" does not answer`)
			require.NotContains(t, err.Error(), "east")
		})
	}
}

// TestForeignSeriesAreRefused: a backend that is not what the configuration
// says would be counted twice or not at all.
func TestForeignSeriesAreRefused(t *testing.T) {
	t.Parallel()
	cfg := evaluator.DefaultConfig()
	east := healthy(t)
	wrong := healthy(t)
	wrong.Name, wrong.PartitionLabels = "west", map[string]string{"cluster": "west"}
	unlabelled := startBackend(t, overVirtual, "north", "north", instanceData(rand.New(rand.NewPCG(1, 1)), labels.FromStrings("cluster", "north")))
	unlabelled.Virtual = false
	cfg.Backends = []evaluator.BackendConfig{east, wrong, unlabelled}
	r := evaluate(t, newEvaluator(t, cfg), `sum(gauge)`, `sum(gauge{cluster="east"})`, `gauge{cluster=~"north|south"}`, `gauge{cluster!="west"}`)
	requireError(t, r[0].Err, evaluator.KindBackend, "north")
	require.NoError(t, r[1].Err)
	require.NoError(t, r[2].Err, "nothing there has the label")
	require.Empty(t, r[2].Vector)
	requireError(t, r[3].Err, evaluator.KindBackend, "north")
	require.ErrorContains(t, r[3].Err, "set virtual if the stored series lack them")
}

func TestFaultsOfTheExpression(t *testing.T) {
	t.Parallel()
	cfg := evaluator.DefaultConfig()
	cfg.Limits.Query.Samples = 30
	west := healthy(t)
	west.Name, west.PartitionLabels, west.Virtual = "west", map[string]string{"cluster": "west"}, true
	cfg.Backends = []evaluator.BackendConfig{healthy(t), west}
	r := evaluate(t, newEvaluator(t, cfg), `gauge[5m]`, `"text"`, `gauge / on (job) gauge2`, `vector(1)`, `1 + 1`,
		`sum_over_time(vector(1)[10m:1s])`, `gauge{cluster="east"}[5m]`)
	for _, i := range []int{0, 1, 2} {
		requireError(t, r[i].Err, evaluator.KindUser, "")
	}
	require.ErrorContains(t, r[0].Err, "the expression is a range vector")
	require.Equal(t, promql.Vector{{T: slot.UnixMilli(), F: 1}}, withoutMetric(r[3].Vector))
	require.Equal(t, promql.Vector{{T: slot.UnixMilli(), F: 2}}, withoutMetric(r[4].Vector))
	requireError(t, r[5].Err, evaluator.KindLimit, "")
	require.ErrorContains(t, r[5].Err, "(limits.query.samples)")
	requireError(t, r[6].Err, evaluator.KindUser, "")
}

func withoutMetric(v promql.Vector) promql.Vector {
	for i := range v {
		v[i].Metric = labels.Labels{}
	}
	return v
}

// TestRequestsAreShared counts what reaches a backend.
func TestRequestsAreShared(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overNative, sampleData(rand.New(rand.NewPCG(1, 1))))
	queries := []string{"sum(gauge) > 1", "sum(gauge) > 2", "avg by (job) (gauge)", "count(gauge)", "gauge", "quantile(0.5, gauge)", `gauge{cluster="north"}`}
	for _, r := range evaluate(t, f.evaluator, queries...) {
		require.NoError(t, r.Err)
	}
	want := `
# HELP tocsin_evaluator_fragments_total Fragments sent to backends, by result: success or the kind of the error.
# TYPE tocsin_evaluator_fragments_total counter
`
	for _, b := range []string{"east", "global", "west"} {
		for _, kind := range []string{"backend", "canceled", "internal", "limit", "success", "timeout", "user"} {
			n := " 0\n"
			if kind == "success" {
				n = " 3\n" // sum, count, gauge
			}
			want += `tocsin_evaluator_fragments_total{backend="` + b + `",result="` + kind + `"}` + n
		}
	}
	require.NoError(t, testutil.GatherAndCompare(f.registry, strings.NewReader(want), "tocsin_evaluator_fragments_total"))
}

// TestCoarserGroupingSurvivesTheFiner: what a query would be made of fails, so
// it is asked alone.
func TestCoarserGroupingSurvivesTheFiner(t *testing.T) {
	t.Parallel()
	var series []promql.Series
	for i := range 100 {
		ls := labels.FromStrings("cluster", "east", "instance", fmt.Sprint(i), "job", fmt.Sprint(i%2))
		series = append(series, named(ls, "x", []promql.FPoint{{T: slot.UnixMilli(), F: 1}}))
	}
	cfg := evaluator.DefaultConfig()
	cfg.MaxResponseBytes = 2000
	cfg.Backends = []evaluator.BackendConfig{startBackend(t, overHTTP, "east", "east", series)}
	r := evaluate(t, newEvaluator(t, cfg), `sum by (job) (x)`, `sum by (job, instance) (x)`)
	require.NoError(t, r[0].Err)
	require.Len(t, r[0].Vector, 2)
	requireError(t, r[1].Err, evaluator.KindLimit, "east")
}

func TestCancelledEvaluation(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overNative, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := f.evaluator.Evaluate(ctx, slot, []evaluator.Query{{Expr: mustParse(t, "sum(x)")}})
	var e *evaluator.Error
	require.ErrorAs(t, r[0].Err, &e)
	require.Equal(t, evaluator.KindCanceled, e.Kind)
}

func TestReadyAndRun(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		f := newFleet(t, m, nil)
		require.NoError(t, f.evaluator.Ready(context.Background()))
	}
	e, err := evaluator.New(evaluator.Config{}, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.Nil(t, e)
	require.ErrorContains(t, err, "no backend")
	cfg := evaluator.DefaultConfig()
	cfg.Backends = []evaluator.BackendConfig{backendConfig(t, "a", "a", "http://127.0.0.1:1")}
	e, err = evaluator.New(cfg, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, e.Run(ctx))
}

func TestConfigFromYAML(t *testing.T) {
	t.Parallel()
	var cfg evaluator.Config
	require.NoError(t, yaml.Unmarshal([]byte(`
timeout: 10s
limits:
  query: {samples: 2000}
  tenants:
  - scope: {cluster: east}
    query: {bytes: 1MiB}
backends:
- name: east
  partition_labels: {cluster: east}
  url: http://127.0.0.1:9090/prom?nocache=1
  grpc: {address: "127.0.0.1:9091", compress: true}
- name: global
  partition_labels: {cluster: ""}
  virtual: true
  url: https://prometheus.example
  http_client_config:
    basic_auth: {username: u, password: hunter2}
    http_headers: {X-Scope-OrgID: {values: [tenant]}}
`), &cfg))
	require.NoError(t, cfg.Validate())
	require.EqualValues(t, 2000, cfg.Limits.Query.Samples)
	require.Equal(t, evaluator.DefaultConfig().Limits.Query.Series, cfg.Limits.Query.Series)
	require.EqualValues(t, 1<<20, cfg.Limits.Tenants[0].Query.Bytes)
	require.Equal(t, model.Duration(10*time.Second), cfg.Timeout)
	require.True(t, cfg.Backends[0].GRPC.Compress)
	require.True(t, cfg.Backends[1].HTTPClientConfig.FollowRedirects)
	shown, err := yaml.Marshal(cfg)
	require.NoError(t, err)
	require.NotContains(t, string(shown), "hunter2")
}

func TestConfigFaultsAreAllReported(t *testing.T) {
	t.Parallel()
	var cfg evaluator.Config
	require.NoError(t, yaml.Unmarshal([]byte(`
timeout: 0s
limits:
  query: {samples: -1, time: 0s}
  tenants:
  - tenant: {bytes: -1B}
backends:
- name: a
  partition_labels: {cluster: x}
  url: ftp://h
- name: a
  partition_labels: {region: x}
  virtual: true
  url: http://user:hunter2@h
  grpc: {address: "10.0.0.1:80"}
- name: c
  grpc: {address: nowhere}
`), &cfg))
	err := cfg.Validate()
	for _, want := range []string{
		"timeout must be more than zero", "limits.query: no limit may be negative", "limits.query: every limit must be", "limits.tenants[0]: scope is missing", "limits.tenants[0].tenant: no limit", `two backends are named "a"`, "different partition labels",
		`url "ftp://h" is not an http`, "basic_auth", "cannot be virtual", "not a loopback address", `backend "c": url is missing`, `"nowhere" is not host:port`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "hunter2")
}

// TestLongRawSeries: remote read cuts a long series in pieces.
func TestLongRawSeries(t *testing.T) {
	t.Parallel()
	var points []promql.FPoint
	for i := range int64(40_000) {
		points = append(points, promql.FPoint{T: slot.UnixMilli() - 40_000 + i, F: float64(i*7919%104729) / 3})
	}
	var all []promql.Series
	for _, p := range partitions {
		all = append(all, promql.Series{Metric: labels.FromStrings(labels.MetricName, "long", "cluster", p.labels["cluster"]).WithoutEmpty(), Floats: points})
	}
	f := newFleet(t, overHTTP, all)
	require.Empty(t, f.compare(t, []string{`max_over_time(quantile_over_time(scalar(sum(long)) * 0 + 0.5, long[1m])[1s:1s])`, `quantile_over_time(scalar(sum(long)) * 0 + 0.5, long[1m])`, `sum(long)`}, slot))
}
