package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const someBackend = `
backends: [{name: default, url: "http://127.0.0.1:1"}]
rule_files: [rules]
`

func TestEveryDiscoveryOfAlertmanagersIsBuiltIn(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{
		`static_configs: [{targets: ["a:9093"]}]`,
		`dns_sd_configs: [{names: [_web._tcp.alertmanager.example]}]`,
		`file_sd_configs: [{files: ["alertmanagers.json"]}]`,
		`http_sd_configs: [{url: "http://sd.example"}]`,
		`kubernetes_sd_configs: [{role: endpointslice, namespaces: {names: [monitoring]}}]`,
	} {
		cfg, err := parseConfig([]byte(someBackend + "alerting: {alertmanagers: [{" + mechanism + "}]}"))
		require.NoError(t, err, mechanism)
		require.Len(t, cfg.Alerting.AlertmanagerConfigs[0].ServiceDiscoveryConfigs, 1)
	}
}

func TestFaultsOfTheAlertingSettings(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{
		"global: {notification_queue_capacity: -1}":           "notification_queue_capacity",
		"global: {max_alert_text_bytes: -1}":                  "max_alert_text_bytes",
		"global: {generator_url: '{{ nope }}'}":               `generator_url: template: generator_url:1: function "nope" not defined`,
		"alerting: {alertmanagers: [{no_such_field: true}]}":  "no_such_field",
		"alerting: {alert_relabel_configs: [{action: nope}]}": "unknown relabel action",
	} {
		_, err := parseConfig([]byte(someBackend + settings))
		require.ErrorContains(t, err, want, settings)
	}
}
