package deploy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// dashboard is what is needed of Grafana's form.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct{ RefID, Expr string }
	}
}

// TestDashboardsAreWellFormed covers what Grafana would only show as an empty
// panel. That the metrics exist is seen where the programs run, in test/e2e.
func TestDashboardsAreWellFormed(t *testing.T) {
	t.Parallel()
	names := files(t, "dashboards")
	require.Len(t, names, 3)
	for _, name := range names {
		var d dashboard
		require.NoError(t, json.Unmarshal(read(t, name), &d), name)
		require.Equal(t, "dashboards/"+d.UID+".json", name)
		ids, taken := map[int]bool{}, map[[2]int]bool{}
		for _, p := range d.Panels {
			require.False(t, ids[p.ID], "%s: two panels have number %d", name, p.ID)
			ids[p.ID] = true
			if p.Type == "row" {
				continue
			}
			at := [2]int{p.GridPos.X, p.GridPos.Y}
			require.False(t, taken[at], "%s: %s covers another panel", name, p.Title)
			taken[at] = true
			require.NotEmpty(t, p.Description, "%s: %s", name, p.Title)
			require.NotEmpty(t, p.Targets, "%s: %s", name, p.Title)
			for _, target := range p.Targets {
				_, err := parser.ParseExpr(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
				require.NoError(t, err, "%s: %s: %s", name, p.Title, target.Expr)
			}
		}
	}
}
