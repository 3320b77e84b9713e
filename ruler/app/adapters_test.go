package app

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

func TestQueriesOfTemplatesStayInTheTenancyOfTheirGroup(t *testing.T) {
	t.Parallel()
	var asked []string
	evaluate := func(_ context.Context, ts time.Time, queries []evaluator.Query) []evaluator.Result {
		asked = append(asked, queries[0].Expr.String()+" at "+ts.UTC().Format(time.TimeOnly))
		return []evaluator.Result{{Vector: promql.Vector{{F: 1}}}}
	}
	g := rule.Group{Key: "rules/east/shop/g", Scope: labels.FromStrings("cluster", "east", "namespace", "shop"), QueryOffset: time.Minute}
	query := scopedQuery(g, "X", evaluate)
	slot := time.Unix(3600, 0)
	for _, text := range []string{
		"sum(up)",
		`sum(up{cluster=~"e.*"}) / count({__name__=~"up|down"} offset 5m)`,
		`label_replace(up, "cluster", "west", "", "")`,
		"vector(1)",
	} {
		vector, err := query(t.Context(), text, slot)
		require.NoError(t, err)
		require.Len(t, vector, 1)
	}
	require.Equal(t, []string{
		`sum(up{cluster="east",namespace="shop"}) at 01:00:00`,
		`sum(up{cluster="east",cluster=~"e.*",namespace="shop"}) / count({__name__=~"up|down",cluster="east",namespace="shop"} offset 5m) at 01:00:00`,
		`label_replace(up{cluster="east",namespace="shop"}, "cluster", "west", "", "") at 01:00:00`,
		"vector(1) at 01:00:00",
	}, asked)
	asked = nil
	for _, text := range []string{`up{cluster="west"}`, `sum(up{namespace="secret"})`, "sum("} {
		_, err := query(t.Context(), text, slot)
		require.Error(t, err, text)
	}
	require.Empty(t, asked)
}
