package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/stretchr/testify/require"
)

// pools is a scrape manager with fixed targets.
type pools struct {
	configs         map[string]*config.ScrapeConfig
	active, dropped map[string][]*scrape.Target
}

var _ Scraper = (*pools)(nil)

func (p *pools) ScrapePools() []string                       { return slices.Collect(maps.Keys(p.configs)) }
func (p *pools) TargetsActive() map[string][]*scrape.Target  { return p.active }
func (p *pools) TargetsDropped() map[string][]*scrape.Target { return p.dropped }
func (p *pools) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	return p.configs[pool], nil
}

func (p *pools) TargetsDroppedCounts() map[string]int {
	counts := map[string]int{}
	for pool := range p.configs {
		counts[pool] = len(p.dropped[pool])
	}
	return counts
}

// newPools has two pools without targets.
func newPools(t *testing.T) *pools {
	conf, err := config.Load(twoPools, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	p := &pools{configs: map[string]*config.ScrapeConfig{}, active: map[string][]*scrape.Target{}, dropped: map[string][]*scrape.Target{}}
	for _, sc := range conf.ScrapeConfigs {
		p.configs[sc.JobName] = sc
	}
	return p
}

func (p *pools) add(instance string, took time.Duration, err error) {
	t := scrape.NewTarget(labels.FromStrings("__address__", instance, "instance", instance, "__scheme__", "http", "__metrics_path__", "/metrics",
		"__scrape_interval__", "30s", "__scrape_timeout__", "10s", "job", pool),
		p.configs[pool], model.LabelSet{"__address__": model.LabelValue(instance)}, nil)
	if took > 0 {
		t.Report(time.Unix(100, 0).UTC(), took, err)
	}
	p.active[pool] = append(p.active[pool], t)
}

func (p *pools) drop(set model.LabelSet) {
	p.dropped[pool] = append(p.dropped[pool], scrape.NewTarget(labels.EmptyLabels(), p.configs[pool], set, nil))
}

// pool is the one with targets.
const pool = "PodMonitoring/shop/api/web"

const twoPools = `
scrape_configs:
- job_name: PodMonitoring/shop/api/web
  relabel_configs:
  - {source_labels: [__meta_kubernetes_namespace], regex: shop, action: keep}
  - {source_labels: [__meta_kubernetes_pod_label_app], regex: api, action: keep}
  - {source_labels: [__meta_kubernetes_pod_phase], regex: (Failed|Succeeded), action: drop}
  - {source_labels: [a], target_label: b, action: dropequal}
- job_name: PodMonitoring/bank/idle/web
`

func serve(t *testing.T, s Scraper, path string) (int, string) {
	t.Helper()
	mux := http.NewServeMux()
	New(Deps{
		Scraper: func() (Scraper, error) {
			if s == nil {
				return nil, errors.New("waiting for a configuration")
			}
			return s, nil
		},
		Settings: func() config.Config { return config.DefaultConfig },
		Refused:  func() []ConfigError { return []ConfigError{{Pool: "bad", Error: "unknown field"}} },
		Flags:    map[string]string{"node.name": "n1"},
		Runtime:  func(info *RuntimeInfo) { info.GOGC = "75" },
		Logger:   slog.New(slog.DiscardHandler),
	}).Register(mux)
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return rec.Code, rec.Body.String()
}

func TestSummary(t *testing.T) {
	t.Parallel()
	p := newPools(t)
	for _, i := range []int{7, 3, 1, 6, 2, 5} {
		p.add(fmt.Sprintf("api-%d:web", i), 30*time.Second, errors.New("context deadline exceeded"))
	}
	p.add("api-4:web", 12*time.Millisecond, nil)
	p.add("api-9:web", time.Millisecond, errors.New("a body of "+strings.Repeat("x", 5000)+"\xff"))
	p.add("api-8:web", 0, nil)
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "bank"})
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "shop"})
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_label_app": "web"})
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_label_app": "api", "__meta_kubernetes_pod_phase": "Failed"})
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_label_app": "api"})

	code, body := serve(t, p, "/api/v1/targets/summary")
	require.Equal(t, http.StatusOK, code)
	sample := func(i int, health, seconds string) string {
		return fmt.Sprintf(`{"labels": {"instance": "api-%d:web", "job": %q}, "health": %q, "lastScrapeDurationSeconds": %q}`, i, pool, health, seconds)
	}
	require.JSONEq(t, fmt.Sprintf(`{"status": "success", "data": {
		"pools": [
			{"name": "PodMonitoring/bank/idle/web", "active": 0, "unhealthy": 0, "dropped": [], "groups": []},
			{"name": %q, "active": 9, "unhealthy": 8,
				"dropped": [
					{"reason": "drop: __meta_kubernetes_pod_phase matches \"(Failed|Succeeded)\"", "count": 1},
					{"reason": "dropequal: a is b", "count": 1},
					{"reason": "keep: __meta_kubernetes_namespace does not match \"shop\"", "count": 1},
					{"reason": "keep: __meta_kubernetes_pod_label_app does not match \"api\"", "count": 2}
				],
				"groups": [
					{"lastError": "a body of %s...", "count": 1, "targets": [%s]},
					{"lastError": "context deadline exceeded", "count": 6, "targets": [%s]},
					{"lastError": "", "count": 2, "targets": [%s]}
				]}
		],
		"configErrors": [{"pool": "bad", "error": "unknown field"}]}}`, pool,
		strings.Repeat("x", maxErrorText-len("a body of ")), sample(9, "down", "0.001"),
		strings.Join([]string{sample(1, "down", "30"), sample(2, "down", "30"), sample(3, "down", "30"), sample(5, "down", "30"), sample(6, "down", "30")}, ","),
		strings.Join([]string{sample(4, "up", "0.012"), sample(8, "unknown", "0")}, ",")), body)
}

func TestReasonsAreCountedAgainWhenAPoolHasNewTargets(t *testing.T) {
	t.Parallel()
	p := newPools(t)
	h := New(Deps{Refused: func() []ConfigError { return nil }})
	counts := func() []DroppedCount { return h.summarize(p).Pools[1].Dropped }
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "bank"})
	require.Len(t, counts(), 1)
	first := counts()
	require.Same(t, &first[0], &counts()[0], "counted once")
	p.dropped = map[string][]*scrape.Target{}
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "shop"})
	require.Equal(t, `keep: __meta_kubernetes_pod_label_app does not match "api"`, counts()[0].Reason)
	delete(p.configs, pool)
	h.summarize(p)
	require.Empty(t, h.reasons)
}

func TestTargetsAreShownWithTheReasonWhyOthersWereDropped(t *testing.T) {
	t.Parallel()
	p := newPools(t)
	p.add("api-1:80", time.Second, errors.New("refused"))
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "bank"})
	active := `[{"discoveredLabels": {"__address__": "api-1:80", "__metrics_path__": "/metrics", "__scheme__": "http", "__scrape_interval__": "1m",
		"__scrape_timeout__": "10s", "job": "` + pool + `"}, "labels": {"instance": "api-1:80", "job": "` + pool + `"}, "scrapePool": "` + pool + `",
		"scrapeUrl": "http://api-1:80/metrics", "globalUrl": "http://api-1:80/metrics", "lastError": "refused", "lastScrape": "1970-01-01T00:01:40Z",
		"lastScrapeDuration": 1, "health": "down", "scrapeInterval": "30s", "scrapeTimeout": "10s"}]`
	dropped := `[{"discoveredLabels": {"__meta_kubernetes_namespace": "bank", "__metrics_path__": "/metrics", "__scheme__": "http",
		"__scrape_interval__": "1m", "__scrape_timeout__": "10s", "job": "` + pool + `"}, "scrapePool": "` + pool + `",
		"reason": "keep: __meta_kubernetes_namespace does not match \"shop\""}]`
	counts := `{"PodMonitoring/bank/idle/web": 0, "PodMonitoring/shop/api/web": 1}`
	for query, want := range map[string][3]string{
		"":                              {active, dropped, counts},
		"?state=active":                 {active, "[]", "null"},
		"?state=dropped":                {"[]", dropped, counts},
		"?scrapePool=other":             {"[]", "[]", counts},
		"?scrapePool=" + pool:           {active, dropped, counts},
		"?state=ANY&scrapePool=" + pool: {active, dropped, counts},
	} {
		code, body := serve(t, p, "/api/v1/targets"+query)
		require.Equal(t, http.StatusOK, code)
		require.JSONEq(t, fmt.Sprintf(`{"status": "success", "data": {"activeTargets": %s, "droppedTargets": %s, "droppedTargetCounts": %s}}`,
			want[0], want[1], want[2]), body, query)
	}
}

func TestTheRestOfTheAPI(t *testing.T) {
	t.Parallel()
	p := newPools(t)
	for path, want := range map[string]string{
		"/api/v1/scrape_pools":                      `{"scrapePools":["PodMonitoring/bank/idle/web","PodMonitoring/shop/api/web"]}`,
		"/api/v1/status/flags":                      `{"node.name":"n1"}`,
		"/api/v1/status/config":                     `{"yaml":"global:`,
		"/api/v1/status/runtimeinfo":                `"GOGC":"75"`,
		"/api/v1/status/buildinfo":                  `"goVersion":"go`,
		"/api/v1/targets/metadata?match_target={a}": `"error":"invalid parameter \"match_target\": `,
		"/api/v1/targets/metadata?limit=many":       `"error":"limit must be a number"`,
		"/api/v1/metadata?limit_per_metric=x":       `"errorType":"bad_data","error":"limit_per_metric must be a number"`,
	} {
		code, body := serve(t, p, path)
		require.Contains(t, body, want)
		require.True(t, json.Valid([]byte(body)))
		require.Equal(t, strings.Contains(body, `"error"`), code == http.StatusBadRequest, path)
	}
	code, body := serve(t, nil, "/api/v1/targets")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "not ready: waiting for a configuration\n", body)
}

func TestThePageOfTargets(t *testing.T) {
	t.Parallel()
	p := newPools(t)
	p.add("api-1:80", time.Second, errors.New("<script>refused</script>"))
	p.drop(model.LabelSet{"__meta_kubernetes_namespace": "bank"})
	code, body := serve(t, p, "/targets")
	require.Equal(t, http.StatusOK, code)
	for _, want := range []string{
		"&lt;script&gt;refused&lt;/script&gt;", "Not as configured: bad: unknown field", "1 active, 1 not up; 1 dropped by keep: __meta_kubernetes_namespace",
		"http://api-1:80/metrics", "1.000s", "00:01:40 UTC",
	} {
		require.Contains(t, body, want)
	}
	_, body = serve(t, nil, "/targets")
	require.Contains(t, body, "waiting for a configuration")
}
