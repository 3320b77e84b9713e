package discovery

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v2"
)

func parse(text string) (*Config, error) {
	var c Config
	err := yaml.UnmarshalStrict([]byte(text), &c)
	return &c, err
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"role: endpoints":                                                                    `the collector discovers the roles pod and node, not "endpoints"`,
		"role: pod\nattach_metadata: {node: true}":                                           "field attach_metadata not found",
		"role: pod\napi_server: http://a\nkubeconfig_file: b":                                "api_server and kubeconfig_file exclude each other",
		"role: pod\nbearer_token_file: t":                                                    "need an api_server",
		"role: pod\nselectors: [{role: node}]":                                               `role pod takes a selector of this role, not "node"`,
		"role: pod\nselectors: [{role: pod, field: a}]":                                      `selector field "a": invalid selector`,
		"role: pod\nselectors: [{role: pod, label: a in}]":                                   `selector label "a in": `,
		"role: node\nselectors: [{role: node, field: a=b}, {role: node, label: c}]":          "takes one selector, not 2",
		"role: node\nfollow_redirects: true\nenable_http2: true\nselectors: [{role: node}]":  "",
		"role: pod\napi_server: https://a:1\nbearer_token_file: t\nnamespaces: {names: [x]}": "",
	} {
		_, err := parse(text)
		if want == "" {
			require.NoError(t, err, text)
		} else {
			require.ErrorContains(t, err, want, text)
		}
	}
}

func TestTheNodesNameGoesIntoSelectorFieldsAlone(t *testing.T) {
	t.Parallel()
	c, err := parse(`
role: pod
namespaces: {names: ['$(NODE_NAME)']}
selectors: [{role: pod, field: 'spec.nodeName=$(NODE_NAME)', label: app}]`)
	require.NoError(t, err)
	require.ErrorContains(t, c.Place("", ""), `"spec.nodeName=$(NODE_NAME)": the name of the node is not known, set --node.name`)
	require.NoError(t, c.Place("n,1", "kubeconfig"))
	require.Equal(t, `spec.nodeName=n\,1`, c.Selectors[0].Field)
	require.Equal(t, []string{"$(NODE_NAME)"}, c.Namespaces.Names)
	require.Equal(t, "kubeconfig", c.KubeconfigFile)
	require.NoError(t, c.Place("other", "other"), "once placed, nothing changes")
	require.Equal(t, "kubeconfig", c.KubeconfigFile)
}
