package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const backendsConfig = `
rule_files: [rules]
backends:
- name: east
  partition_labels: {cluster: east}
  kubernetes_sd_configs: [{role: endpointslice, namespaces: {names: [monitoring]}}]
  dns_sd_configs: [{names: [_http._tcp.thanos-query.east]}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_endpointslice_port_name], regex: http, action: keep}
  scheme: https
  path_prefix: /thanos
  http_client_config: {authorization: {credentials_file: token}, tls_config: {ca_file: ca.pem}}
  thanos: {address: ":10901", tls_config: {ca_file: ca.pem}}
  remote_write:
    url: https://thanos-receive.east/api/v1/receive
    http_client_config: {basic_auth: {username: u, password_file: password}}
- name: west
  partition_labels: {cluster: west}
  virtual: true
  static_configs: [{targets: ["prometheus-0:9090", "prometheus-1:9090"]}]
`

func load(t *testing.T, text string) (*Config, string, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "evaluator.yml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, err := LoadConfig(file)
	return cfg, dir, err
}

func TestBackendsAreFoundAsPrometheusFindsTargets(t *testing.T) {
	t.Parallel()
	cfg, dir, err := load(t, backendsConfig)
	require.NoError(t, err)
	east := cfg.Backends[0]
	require.Len(t, east.ServiceDiscoveryConfigs, 2)
	require.Equal(t, filepath.Join(dir, "ca.pem"), east.Thanos.TLSConfig.CAFile)
	require.Equal(t, filepath.Join(dir, "token"), east.HTTPClientConfig.Authorization.CredentialsFile)

	written := cfg.writer().Destinations
	require.Equal(t, []string{"https://thanos-receive.east/api/v1/receive"}, written[0].URLs)
	require.Equal(t, filepath.Join(dir, "password"), written[0].HTTPClientConfig.BasicAuth.PasswordFile)
	require.Equal(t, []string{"http://prometheus-0:9090/api/v1/write", "http://prometheus-1:9090/api/v1/write"}, written[1].URLs)

	again, err := parseConfig([]byte(backendsConfig))
	require.NoError(t, err)
	again.resolve(dir)
	require.Empty(t, cfg.needsRestart(again), "nothing has changed")
}

func TestAnUnknownSettingOfABackendIsAnError(t *testing.T) {
	t.Parallel()
	_, _, err := load(t, "rule_files: [rules]\nbackends: [{name: a, url: 'http://a', thanoss: {}}]\n")
	require.ErrorContains(t, err, "thanoss")
}
