package ruler

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// TestDataThatIsMissingEndsNothing: while results are partial, what they do not
// show is neither marked as ended nor resolved; when they are complete again, it
// is.
func TestDataThatIsMissingEndsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := alerting("g", 0)
		g.Partial = true
		g.Rules = append(g.Rules, rule.Rule{Record: "r", Expr: mustParse("x")})
		w := newWorld(t, g)
		shown := []string{"east", "west"}
		w.result = func(_ string, at time.Time) promql.Vector {
			var v promql.Vector
			for _, cluster := range shown {
				v = append(v, promql.Sample{Metric: labels.FromStrings("cluster", cluster), F: 1, T: at.UnixMilli()})
			}
			return v
		}
		m := w.add("a")
		pass(time.Minute)
		change := func(warning string, clusters ...string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.missing, shown = warning, clusters
		}
		change("west is away", "east")
		pass(2 * time.Minute)
		rules := m.Status()[0].Rules
		for _, r := range rules {
			require.NoError(t, r.Err)
			require.Equal(t, []string{"west is away"}, r.Warnings)
		}
		require.Len(t, rules[0].Alerts.Alerts(), 2)
		for _, a := range rules[0].Alerts.Alerts() {
			require.Equal(t, alert.Firing, a.Status)
		}
		require.Zero(t, w.markers(`{__name__="r", cluster="west"}`))

		change("", "east")
		pass(time.Minute)
		rules = m.Status()[0].Rules
		require.Empty(t, rules[0].Warnings)
		require.Equal(t, alert.Firing, rules[0].Alerts.Alerts()[0].Status)
		require.Equal(t, alert.Inactive, rules[0].Alerts.Alerts()[1].Status)
		require.Equal(t, 1, w.markers(`{__name__="r", cluster="west"}`))
	})
}

// markers counts the staleness markers of a series.
func (w *world) markers(series string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, v := range w.data[series] {
		if value.IsStaleNaN(v) {
			n++
		}
	}
	return n
}
