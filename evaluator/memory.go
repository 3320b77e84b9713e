package evaluator

import (
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxRemembered bounds the queries whose plans are kept. One takes some
// kilobytes.
const maxRemembered = 20_000

// memory keeps what was decided about a batch for the next slot, when the same
// rules ask again: the same expressions, not only equal ones, which are never
// changed. It is for several goroutines.
type memory[T any] struct {
	mu      sync.Mutex
	byFirst map[parser.Expr]remembered[T]
	queries int
}

type remembered[T any] struct {
	queries []Query
	value   T
}

// get returns the value for a batch, made if it is not known. Single queries
// are not kept: those of templates come only once.
func (m *memory[T]) get(queries []Query, make func() T) T {
	if len(queries) < 2 {
		return make()
	}
	m.mu.Lock()
	known, ok := m.byFirst[queries[0].Expr]
	m.mu.Unlock()
	if ok && slices.EqualFunc(known.queries, queries, sameQuery) {
		return known.value
	}
	value := make()
	m.put(remembered[T]{slices.Clone(queries), value})
	return value
}

func (m *memory[T]) put(r remembered[T]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := r.queries[0].Expr
	m.queries += len(r.queries) - len(m.byFirst[first].queries)
	if m.byFirst == nil || m.queries > maxRemembered {
		m.byFirst, m.queries = map[parser.Expr]remembered[T]{}, len(r.queries)
	}
	m.byFirst[first] = r
}

func sameQuery(a, b Query) bool {
	return a.Expr == b.Expr && a.Name == b.Name && a.Partial == b.Partial && labels.Equal(a.Scope, b.Scope)
}
