package collector

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

// Not parallel and once, because a process registers its discovery once.
func TestCheckConfig(t *testing.T) {
	t.Setenv("NODE_NAME", "n1")
	file := filepath.Join(t.TempDir(), "collector.yml")
	require.NoError(t, os.WriteFile(file, []byte(`
scrape_configs:
- job_name: pods
  tls_config: {ca_file: missing.pem}
  kubernetes_sd_configs: [{role: pod, selectors: [{role: pod, field: spec.nodeName=$(NODE_NAME)}]}]
`), 0o600))
	var out, errs bytes.Buffer
	status := Run([]string{"--check-config", "--config.file=" + file}, command.Streams{Stdout: &out, Stderr: &errs})
	require.Equal(t, command.ExitFailed, status)
	require.Contains(t, errs.String(), "collector: load configuration file")
	require.Contains(t, errs.String(), "missing.pem")
	require.NotContains(t, errs.String(), "NODE_NAME")
}

func TestTheMemoryLimitIsAPartOfTheContainers(t *testing.T) {
	t.Parallel()
	for _, ratio := range []float64{-0.1, 1.1} {
		require.ErrorContains(t, limitMemory(ratio, slog.New(slog.DiscardHandler)), "must be from 0 to 1")
	}
	require.NoError(t, limitMemory(0, slog.New(slog.DiscardHandler)))
}
