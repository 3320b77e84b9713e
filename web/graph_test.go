package web

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/util/strutil"
	"github.com/stretchr/testify/require"
)

// TestLinksInAlertsLeadSomewhere follows the link of Prometheus' form to the page
// of the expression.
func TestLinksInAlertsLeadSomewhere(t *testing.T) {
	t.Parallel()
	deps := Deps{
		Engine:    promql.NewEngine(promql.EngineOpts{MaxSamples: 100_000, Timeout: time.Minute}),
		Queryable: promqltest.LoadedStorage(t, ""),
		Logger:    promslog.NewNopLogger(),
	}
	for expr, want := range map[string]string{
		`label_replace(vector(3), "a", "<script>", "", "")`: `<td>{a=&#34;&lt;script&gt;&#34;}</td><td>3</td>`,
		"vector(1) > 2":     ": nothing",
		"1 + 1":             "<td>scalar: 2",
		"sum(":              `class="error">1:5: parse error`,
		`"</textarea><b>"`:  `&lt;/textarea&gt;`,
		"absent(up{a='b'})": "{a=&#34;b&#34;}",
	} {
		rec := serve(deps, http.MethodGet, strutil.TableLinkForExpression(expr))
		require.Equal(t, http.StatusOK, rec.Code)
		require.Contains(t, rec.Body.String(), want, expr)
		require.NotContains(t, rec.Body.String(), "<script>")
	}
	require.NotContains(t, serve(deps, http.MethodGet, "/graph").Body.String(), "At ")
	page := serve(deps, http.MethodGet, "/graph?g0.expr="+url.QueryEscape("vector(1)"))
	require.Contains(t, page.Header().Get("Content-Security-Policy"), "default-src 'none'")
}
