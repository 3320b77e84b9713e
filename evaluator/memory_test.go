package evaluator

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

func numbers(n int) []Query {
	queries := make([]Query, n)
	for i := range queries {
		queries[i].Expr = &parser.NumberLiteral{Val: float64(i)}
	}
	return queries
}

func TestMemoryKnowsTheSameBatchOnly(t *testing.T) {
	t.Parallel()
	var m memory[int]
	made := 0
	get := func(queries []Query) int {
		return m.get(queries, func() int { made++; return made })
	}
	queries := numbers(3)
	require.Equal(t, 1, get(queries))
	require.Equal(t, 1, get(queries), "the same batch")
	require.Equal(t, 2, get(queries[:2]), "a shorter one that begins alike")
	scoped := append([]Query(nil), queries...)
	scoped[1].Scope = labels.FromStrings("namespace", "a")
	require.Equal(t, 3, get(scoped), "another scope")
	require.Equal(t, 4, get(numbers(3)), "equal but other expressions")
	require.Equal(t, 5, get(queries[:1]), "a single query")
	require.Equal(t, 6, get(queries[:1]), "a single query again")
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	var m memory[int]
	for range 5 {
		m.get(numbers(maxRemembered/2), func() int { return 0 })
		m.get(numbers(2), func() int { return 0 })
		held := 0
		for _, r := range m.byFirst {
			held += len(r.queries)
		}
		require.Equal(t, held, m.queries)
		require.LessOrEqual(t, held, maxRemembered)
	}
}
