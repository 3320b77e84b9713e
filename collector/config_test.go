package collector

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector/forward"
)

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "collector.yml")
	require.NoError(t, os.WriteFile(file, []byte(`
tracing: {endpoint: 'localhost:4317'}
remote_write:
- url: http://u:hunter2@localhost:1/write
  tls_config: {ca_file: first.pem}
- url: http://u:hunter2@localhost:1/write
  tls_config: {ca_file: first.pem}
scrape_configs:
- job_name: web
  tls_config: {ca_file: second.pem}
`), 0o600))
	err := CheckConfig(FileSource(file), Terms{})
	for _, want := range []string{file, "tracing", "first.pem", "second.pem", "configured twice"} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "hunter2")
}

func TestRemoteWritesToOneURLHaveKeysOfTheirOwn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "collector.yml")
	require.NoError(t, os.WriteFile(file, []byte(`
remote_write:
- {url: 'http://a/write', remote_timeout: 1s}
- {url: 'http://a/write', remote_timeout: 2s}
- {url: 'http://b/write'}
`), 0o600))
	conf, err := load(FileSource(file), Terms{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	var keys []string
	for key := range forward.Keys(conf.RemoteWriteConfigs) {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	require.Equal(t, []string{"http://a/write", "http://a/write#2", "http://b/write"}, keys)
}
