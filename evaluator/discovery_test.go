package evaluator_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/promslog"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-rules/tocsin/evaluator"
)

func fromYAML(t *testing.T, text string) evaluator.Config {
	t.Helper()
	var cfg evaluator.Config
	require.NoError(t, yaml.Unmarshal([]byte(text), &cfg))
	return cfg
}

func host(t *testing.T, base string) string {
	t.Helper()
	u, err := url.Parse(base)
	require.NoError(t, err)
	return u.Host
}

// TestDiscoveredEndpoints: what a file lists is asked, and nothing else. A
// backend without endpoints stays, and fails.
func TestDiscoveredEndpoints(t *testing.T) {
	t.Parallel()
	east := host(t, healthy(t).URL.String())
	file := filepath.Join(t.TempDir(), "east.yml")
	list := func(targets string) {
		require.NoError(t, os.WriteFile(file+".tmp", []byte(targets), 0o600))
		require.NoError(t, os.Rename(file+".tmp", file))
	}
	list("[]")
	cfg := fromYAML(t, fmt.Sprintf(`
backends:
- name: east
  partition_labels: {cluster: east}
  file_sd_configs: [{files: [%q], refresh_interval: 1s}]
  relabel_configs: [{source_labels: [drop], regex: "yes", action: drop}]
  remote_write: {url: "http://127.0.0.1:1"}
`, file))
	reg := prometheus.NewRegistry()
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), reg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	fails := func() bool {
		err := evaluate(t, e, `sum(gauge)`)[0].Err
		return err != nil && strings.Contains(err.Error(), `backend "east": no endpoint is known`)
	}
	require.True(t, fails())

	list(fmt.Sprintf(`[{targets: [%q]}, {targets: ["127.0.0.1:1"], labels: {drop: "yes"}}]`, east))
	require.Eventually(t, func() bool { return evaluate(t, e, `sum(gauge)`)[0].Err == nil }, time.Minute, 50*time.Millisecond)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP tocsin_evaluator_endpoints Endpoints of a backend that are configured or discovered; without any, whatever needs the backend fails.
# TYPE tocsin_evaluator_endpoints gauge
tocsin_evaluator_endpoints{backend="east"} 1
`), "tocsin_evaluator_endpoints"))

	list("[]")
	require.Eventually(t, fails, time.Minute, 50*time.Millisecond)
}

// TestStaticReplicas are known from the start, and written to.
func TestStaticReplicas(t *testing.T) {
	t.Parallel()
	cfg := fromYAML(t, fmt.Sprintf(`
backends:
- name: east
  partition_labels: {cluster: east}
  static_configs: [{targets: ["127.0.0.1:1", %q]}]
  params: {nocache: ["1"]}
`, host(t, healthy(t).URL.String())))
	r := evaluate(t, newEvaluator(t, cfg), `sum(gauge)`, `max_over_time(quantile_over_time(scalar(sum(gauge)) * 0 + 0.5, gauge[5m])[1s:1s])`)
	require.NoError(t, r[0].Err, "the first one is away")
	require.NoError(t, r[1].Err, "nor are raw series lost")
	require.Equal(t, "http://127.0.0.1:1/api/v1/write?nocache=1", cfg.Backends[0].WriteURLs()[0])
	require.Len(t, cfg.Backends[0].WriteURLs(), 2)
}

func TestDiscoveryFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ backend, want string }{
		"nothing":                   {`{}`, "url is missing"},
		"two ways":                  {`{url: "http://a", static_configs: [{targets: [b]}]}`, "exclude each other"},
		"a URL for an address":      {`{static_configs: [{targets: ["http://a"]}]}`, "not a valid hostname"},
		"an unknown scheme":         {`{scheme: ftp, static_configs: [{targets: [a]}]}`, "neither http nor https"},
		"nowhere to write to":       {`{dns_sd_configs: [{names: [a], type: A, port: 1}]}`, "remote_write is missing"},
		"an empty relabelling rule": {`{static_configs: [{targets: [a]}], relabel_configs: [null]}`, "empty rule"},
		"plaintext to anywhere":     {`{static_configs: [{targets: [a]}], grpc: {address: ":9091"}}`, "set a certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.ErrorContains(t, fromYAML(t, "backends: ["+tc.backend+"]").Validate(), tc.want)
		})
	}
}
