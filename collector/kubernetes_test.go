package collector

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector/discovery"
)

func TestMain(m *testing.M) {
	discovery.Register()
	os.Exit(m.Run())
}

func TestTheNodesNameIsPutIntoSelectorsOfKubernetesDiscovery(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "collector.yml")
	require.NoError(t, os.WriteFile(file, []byte(`
scrape_configs:
- job_name: pods
  relabel_configs: [{target_label: text, replacement: '$(NODE_NAME)'}]
  kubernetes_sd_configs: [{role: pod, selectors: [{role: pod, field: spec.nodeName=$(NODE_NAME)}]}]
`), 0o600))
	err := CheckConfig(FileSource(file), Terms{})
	require.ErrorContains(t, err, `scrape config "pods": kubernetes_sd_configs: selector field "spec.nodeName=$(NODE_NAME)": the name of the node is not known`)
	conf, err := load(FileSource(file), Terms{Node: "n1"}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Contains(t, conf.String(), "field: spec.nodeName=n1")
	require.Contains(t, conf.String(), "replacement: $(NODE_NAME)")
}
