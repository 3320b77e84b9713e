package dataset

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

func series(t *testing.T, f Fleet) (all []Series) {
	t.Helper()
	require.NoError(t, f.Each(func(s Series) error {
		all = append(all, s)
		return nil
	}))
	return all
}

func TestTheSameSeedMakesTheSameData(t *testing.T) {
	t.Parallel()
	f := Fleet{Seed: 7, Series: 2000}
	a, b, other := series(t, f), series(t, f), series(t, Fleet{Seed: 8, Series: 2000})
	require.Equal(t, a, b)
	differ := 0
	for i := range a {
		if a[i].Native() {
			require.Equal(t, a[i].Histograms(5), b[i].Histograms(5))
			continue
		}
		require.Equal(t, a[i].Floats(5), b[i].Floats(5))
		if a[i].Floats(5)[4] != other[i].Floats(5)[4] {
			differ++
		}
	}
	require.Greater(t, differ, len(a)/2)
}

func TestTheFleetIsAsLargeAsAskedAndNoSeriesIsTwice(t *testing.T) {
	t.Parallel()
	all := series(t, Fleet{Seed: 1, Series: 30_000})
	require.GreaterOrEqual(t, len(all), 30_000)
	require.Less(t, len(all), 33_000)
	seen := map[string]bool{}
	for _, s := range all {
		require.False(t, seen[s.Labels.String()], s.Labels)
		seen[s.Labels.String()] = true
	}
}

func TestHistogramsAreCumulative(t *testing.T) {
	t.Parallel()
	natives := 0
	last := map[string][]float64{}
	for _, s := range series(t, Fleet{Seed: 1, Series: 2000}) {
		if s.Native() {
			natives++
			for _, h := range s.Histograms(10) {
				require.NoError(t, h.Validate())
			}
			continue
		}
		if !strings.HasSuffix(s.Labels.Get("__name__"), "_bucket") {
			continue
		}
		pod := s.Labels.Get("cluster") + s.Labels.Get("pod")
		now := s.Floats(10)
		for i, narrower := range last[pod] {
			require.LessOrEqual(t, narrower, now[i], s.Labels)
		}
		last[pod] = now
	}
	require.Positive(t, natives)
}

func TestRulesStayInTheirScope(t *testing.T) {
	t.Parallel()
	for _, n := range []int{50, 200, 2000, 10_000} {
		rules, err := Fleet{Seed: 1, Series: 100_000}.Rules(n)
		require.NoError(t, err)
		require.Len(t, rules, n)
		names := map[string]bool{}
		for _, r := range rules {
			require.False(t, names[r.Name()], r.Name())
			names[r.Name()] = true
			checkScope(t, r)
		}
	}
}

// checkScope demands that every selector has the matchers that the name of the
// group speaks of.
func checkScope(t *testing.T, r Rule) {
	t.Helper()
	expr, err := parser.ParseExpr(r.Expr)
	require.NoError(t, err)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok && !strings.HasPrefix(r.Group, "globalrules/") {
			require.Contains(t, s.String(), `cluster="`+strings.Split(r.Group, "/")[1]+`"`, r.Name())
			require.Equal(t, strings.HasPrefix(r.Group, "rules/"), strings.Contains(s.String(), `namespace="team`), r.Name())
		}
		return nil
	})
}

func TestSelectorsAreCountedWithoutWindows(t *testing.T) {
	t.Parallel()
	used, different, err := Selectors([]Rule{{Expr: `rate(x{a="1"}[5m]) / rate(x{a="1"}[1m] offset 1m)`}, {Expr: `x`}})
	require.NoError(t, err)
	require.Equal(t, 3, used)
	require.Equal(t, 2, different)
	_, _, err = Selectors([]Rule{{Group: "g", Alert: "Odd", Expr: `(`}})
	require.ErrorContains(t, err, "g/Odd")
}

func TestMoreRulesOverTheSameSelectors(t *testing.T) {
	t.Parallel()
	rules, err := Fleet{Seed: 1, Series: 30_000}.Rules(100)
	require.NoError(t, err)
	more := Repeated(rules, 10)
	require.Len(t, more, 1000)
	_, few, err := Selectors(rules)
	require.NoError(t, err)
	used, many, err := Selectors(more)
	require.NoError(t, err)
	require.Equal(t, few, many)
	require.Greater(t, used, 10*few)
}

func TestAPackIsInstalledForTenants(t *testing.T) {
	t.Parallel()
	f := Fleet{Seed: 1, Series: 2000, Namespaces: 13}
	one, err := f.Packs(1)
	require.NoError(t, err)
	many, err := f.Packs(50)
	require.NoError(t, err)
	require.Len(t, many, 50*len(one))
	for _, r := range many {
		checkScope(t, r)
	}
}

func TestRulesWithoutRawSelectorsAggregate(t *testing.T) {
	t.Parallel()
	some, err := Aggregating([]Rule{{Record: "a", Expr: "sum(x) / count(x) > 1"}, {Record: "b", Expr: "sum(x) > x"}, {Record: "c", Expr: "x"}})
	require.NoError(t, err)
	require.Len(t, some, 1)
	require.Equal(t, "a", some[0].Record)
	_, err = Aggregating([]Rule{{Group: "g", Alert: "Odd", Expr: "("}})
	require.ErrorContains(t, err, "g/Odd")
}
