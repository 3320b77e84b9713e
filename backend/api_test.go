package backend_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend"
)

func TestEveryEndpointAnswers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, backend.StoreConfig{Partition: east}, backend.APIConfig{Flags: map[string]string{"a.flag": "its value"}}).start()
	_, err := f.write(remoteapi.WriteV2MessageType, at(`up{job="a"}`, 60_000, 1), at(`up{job="b"}`, 60_000, 0))
	require.NoError(t, err)
	cases := []struct {
		path string
		text string
	}{
		{"/api/v1/query?query=sum(up)&time=60", `"value":[60,"1"]`},
		{"/api/v1/query?query=up&time=60&stats=all", `"cluster":"east"`},
		{"/api/v1/query_range?query=count(up)&start=60&end=120&step=60", `"values":[[60,"2"],[120,"2"]]`},
		{"/api/v1/query_exemplars?query=up&start=0&end=60", `"data":[]`},
		{"/api/v1/series?match[]=up", `"job":"b"`},
		{"/api/v1/labels", `"cluster"`},
		{"/api/v1/label/job/values", `["a","b"]`},
		{"/api/v1/metadata", `"data":{}`},
		{"/api/v1/format_query?query=sum(up)by(job)", "sum by (job) (up)"},
		{"/api/v1/parse_query?query=up", "vectorSelector"},
		{"/api/v1/rules", `{"groups":[]}`},
		{"/api/v1/alerts", `{"alerts":[]}`},
		{"/api/v1/targets", `"activeTargets":[]`},
		{"/api/v1/targets/metadata", "success"},
		{"/api/v1/scrape_pools", `"scrapePools":[]`},
		{"/api/v1/alertmanagers", `"activeAlertmanagers":[]`},
		{"/api/v1/status/config", "success"},
		{"/api/v1/status/flags", "its value"},
		{"/api/v1/status/runtimeinfo", `"storageRetention":"15d"`},
		{"/api/v1/status/buildinfo", "goVersion"},
		{"/api/v1/status/tsdb", `"numSeries":2`},
		{"/api/v1/status/tsdb/blocks", "success"},
		{"/api/v1/status/walreplay", "success"},
		{"/api/v1/features", "success"},
		{"/api/v1/notifications", `"data":[]`},
	}
	for _, tc := range cases {
		t.Run(tc.path, func(t *testing.T) {
			t.Parallel()
			status, body := f.get(tc.path)
			require.Equal(t, http.StatusOK, status, body)
			require.Contains(t, body, tc.text)
		})
	}
}

func TestRequestsOfOtherOriginsDoNotPanic(t *testing.T) {
	t.Parallel()
	f := newFixture(t, backend.StoreConfig{}, backend.APIConfig{}).start()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/api/v1/query?query=1", nil)
	require.NoError(t, err)
	req.Header.Set("Origin", "http://elsewhere.example")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
}

func TestNothingIsServedBeforeTheStoreIsReady(t *testing.T) {
	t.Parallel()
	f := newFixture(t, backend.StoreConfig{}, backend.APIConfig{})
	require.Error(t, f.store.Ready())
	for _, path := range []string{"/api/v1/query?query=1", "/api/v1/series?match[]=up", "/api/v1/status/tsdb"} {
		status, body := f.get(path)
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Contains(t, body, "not ready")
	}
	_, err := f.write(remoteapi.WriteV2MessageType, at("up", 1000, 1))
	require.ErrorContains(t, err, "503")
	status, _ := f.get("/api/v1/status/walreplay")
	require.Equal(t, http.StatusOK, status)
}

func TestQueryErrorsHaveTheStatusThatClientsExpect(t *testing.T) {
	t.Parallel()
	f := newFixture(t, backend.StoreConfig{}, backend.APIConfig{}).start()
	_, err := f.write(remoteapi.WriteV2MessageType, at(`up{job="a"}`, 60_000, 1), at(`up{job="b"}`, 60_000, 0))
	require.NoError(t, err)
	cases := []struct {
		name, query string
		status      int
		errorType   string
	}{
		{"a parse error", "sum(", 400, "bad_data"},
		{"many-to-many", "up * on () up", 422, "execution"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, body := f.get("/api/v1/query?time=60&query=" + url.QueryEscape(tc.query))
			require.Equal(t, tc.status, status)
			require.Contains(t, body, tc.errorType)
		})
	}
}

// TestRemoteRead reads with Prometheus' own client, which asks for the
// external label as a rule-evaluator does that has it in its selectors.
func TestRemoteRead(t *testing.T) {
	t.Parallel()
	for _, kind := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, backend.StoreConfig{Partition: east}, backend.APIConfig{}).start()
			_, err := f.write(remoteapi.WriteV2MessageType, at(`up{job="a"}`, 1000, 1), at(`up{job="a"}`, 2000, 2), at(`up{job="b"}`, 1000, 3))
			require.NoError(t, err)
			client, err := remote.NewReadClient("test", &remote.ClientConfig{
				URL:              f.configURL("/api/v1/read"),
				Timeout:          model.Duration(10 * time.Second),
				HTTPClientConfig: commonconfig.DefaultHTTPClientConfig,
				ChunkedReadLimit: config.DefaultChunkedReadLimit,

				AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind},
			})
			require.NoError(t, err)
			q, err := remote.ToQuery(0, 10_000, []*labels.Matcher{
				labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"),
				labels.MustNewMatcher(labels.MatchEqual, "cluster", "east"),
			}, nil)
			require.NoError(t, err)
			set, err := client.Read(t.Context(), q, true)
			require.NoError(t, err)
			require.Equal(t, []string{
				`{__name__="up", cluster="east", job="a"} 1@1000 2@2000`,
				`{__name__="up", cluster="east", job="b"} 3@1000`,
			}, describe(t, set))
		})
	}
}
