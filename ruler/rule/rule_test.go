package rule

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPackHasOnePhaseForAllTenants(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"rules/east/shop/slo/errors": "slo/errors",
		"rules/west/blog/slo/errors": "slo/errors",
		"clusterrules/east/node/cpu": "node/cpu",
		"file/a/b/node/cpu":          "cpu",
		"file/cpu":                   "cpu",
		"x":                          "x",
	} {
		require.Equal(t, want, Group{Key: key}.Phase(), key)
	}
}
