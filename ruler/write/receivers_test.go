package write_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend"
	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/ruler/write"
)

// debian starts the Prometheus that Debian has, which knows remote write 1.0
// only, and returns its URL.
func debian(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("Debian's prometheus is not installed; .ci/install does it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cmd := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--web.enable-remote-write-receiver", "--log.level=error")
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return "http://" + address
}

// embedded runs the embedded backend in this process.
func embedded(t *testing.T) string {
	t.Helper()
	logger, reg := promslog.NewNopLogger(), prometheus.NewRegistry()
	store, err := backend.NewStore(backend.StoreConfig{Path: t.TempDir()}, reg, logger)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	srv := httptest.NewServer(backend.NewAPI(backend.APIConfig{}, store, engine.New(engine.Config{}, reg, logger), reg, logger))
	t.Cleanup(func() {
		srv.Close()
		cancel()
		require.NoError(t, <-ended)
	})
	require.Eventually(t, func() bool { return store.Ready() == nil }, time.Minute, 10*time.Millisecond)
	return srv.URL
}

// TestRealReceivers writes to real servers: what is good is stored at its
// timestamp, in spite of what is not, which is counted with its reason.
func TestRealReceivers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a Prometheus server; run without -short")
	}
	for name, start := range map[string]func(*testing.T) string{"remote write 1.0, Debian's Prometheus": debian, "remote write 2.0, the embedded backend": embedded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := start(t)
			awaitReady(t, url)
			reg := prometheus.NewRegistry()
			w, err := write.New(write.Config{
				Destinations:      []write.Destination{{Name: "all", URLs: []string{url + "/api/v1/write"}, Timeout: time.Minute}},
				MaxPendingSamples: 1000,
			}, promslog.NewNopLogger(), reg)
			require.NoError(t, err)
			now := time.Now().Truncate(time.Second)
			at := func(d time.Duration, name string, v float64) promql.Sample {
				return promql.Sample{T: now.Add(d).UnixMilli(), F: v, Metric: labels.FromStrings("__name__", name)}
			}
			require.Equal(t, []write.Result{{}}, w.Write(t.Context(), []write.Unit{{at(-time.Minute, "a", 1), at(0, "a", 2), at(0, "b", 3)}}))
			require.Equal(t, []write.Result{{}}, w.Write(t.Context(), []write.Unit{{at(0, "a", 2)}}), "the same again is no fault")
			got := w.Write(t.Context(), []write.Unit{{at(time.Second, "c", 4)}, {at(0, "a", 9)}, {at(-1000*time.Hour, "b", 5)}, {at(time.Second, "d", 6)}})
			for _, r := range got {
				require.NoError(t, r.Err)
			}
			require.NoError(t, got[0].Rejected)
			require.Error(t, got[1].Rejected)
			require.Error(t, got[2].Rejected)
			require.NoError(t, got[3].Rejected)
			require.Equal(t, map[string]float64{"a": 2, "b": 3, "c": 4, "d": 6}, values(t, url, now.Add(time.Second)))
			require.Equal(t, map[string]float64{"duplicate_value": 1, "out_of_bounds": 1}, rejected(t, reg))
		})
	}
}

func awaitReady(t *testing.T, url string) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/api/v1/status/buildinfo")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 2*time.Minute, 100*time.Millisecond)
}

// values are the values of all series without labels at a time.
func values(t *testing.T, url string, at time.Time) map[string]float64 {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: url})
	require.NoError(t, err)
	v, _, _, err := promv1.NewAPI(client).Query(t.Context(), `{__name__=~"[a-z]"}`, at)
	require.NoError(t, err)
	found := map[string]float64{}
	for _, s := range v.(model.Vector) {
		found[string(s.Metric[model.MetricNameLabel])] = float64(s.Value)
	}
	return found
}

// rejected are the numbers of refused samples by reason.
func rejected(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tocsin_ruler_rejected_samples_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					found[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	return found
}
