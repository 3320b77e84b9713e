package plan

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

var oneBackend = []Backend{{Name: "b", Partition: labels.FromStrings("cluster", "")}}

// TestFragmentsHaveTheWidestLimitsOfTheirQueries: who shares is not limited by
// the others.
func TestFragmentsHaveTheWidestLimitsOfTheirQueries(t *testing.T) {
	t.Parallel()
	narrow, wide := Limits{Samples: 1, Series: 5, Time: time.Second}, Limits{Samples: 2, Series: 4, Bytes: 3}
	p := New([]Query{
		{Expr: parse(t, "sum(x)"), Limits: narrow},
		{Expr: parse(t, "sum(x)"), Limits: wide},
		{Expr: parse(t, "sum(y)"), Limits: narrow},
	}, oneBackend, Options{})
	require.Len(t, p.Fragments, 2)
	require.Equal(t, Limits{Samples: 2, Series: 5}, p.Fragments[0].Limits)
	require.Equal(t, narrow, p.Fragments[1].Limits)
}

// TestFoldsAreWithinTheLimitsOfEachMember: tenants with other limits are not
// folded with them.
func TestFoldsAreWithinTheLimitsOfEachMember(t *testing.T) {
	t.Parallel()
	var queries []Query
	for i, namespace := range []string{"a", "b", "c", "d", "e"} {
		scope := labels.FromStrings("namespace", namespace)
		expr, err := Scope(parse(t, "sum(x)"), scope)
		require.NoError(t, err)
		queries = append(queries, Query{Expr: expr, Scope: scope, Limits: Limits{Samples: int64(i/2 + 1)}})
	}
	f := NewFolding(queries, oneBackend)
	require.Len(t, f.Folds, 2)
	require.Equal(t, Limits{Samples: 1}, f.Folds[0].Query.Limits)
	require.Equal(t, Limits{Samples: 2}, f.Folds[1].Query.Limits)
	require.Equal(t, []int{4}, f.Rest)
}
