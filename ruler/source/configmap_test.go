package source

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConfigMapsNeedASelector(t *testing.T) {
	t.Parallel()
	require.NoError(t, ConfigMaps{LabelSelector: "rules in (a, b),!draft"}.Validate())
	require.EqualError(t, ConfigMaps{Namespace: "x"}.Validate(), "ConfigMaps need a label_selector")
	require.ErrorContains(t, ConfigMaps{LabelSelector: "a in"}.Validate(), `label_selector "a in": `)
}
