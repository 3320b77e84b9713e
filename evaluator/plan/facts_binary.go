package plan

import (
	"github.com/prometheus/prometheus/promql/parser"
)

func (s *scanner) binary(e *parser.BinaryExpr) facts {
	l, r := s.facts(e.LHS), s.facts(e.RHS)
	f := facts{reads: l.reads || r.reads, backends: union(l.backends, r.backends)}
	switch {
	case e.VectorMatching == nil:
		f.separable = withScalar(e, l, r)
	case e.Op.IsSetOperator():
		f.separable = s.setSeparable(e, l, r)
	default:
		f.separable = s.matchSeparable(e, l, r)
	}
	if f.separable {
		f.backends = needed(e.Op, l, r)
	}
	return f
}

// withScalar judges an operator with at least one scalar side: the vector may
// be pushed together with a scalar that is the same everywhere.
func withScalar(e *parser.BinaryExpr, l, r facts) bool {
	switch {
	case e.LHS.Type() == parser.ValueTypeVector:
		return l.separable && !r.reads
	case e.RHS.Type() == parser.ValueTypeVector:
		return r.separable && !l.reads
	}
	return false
}

func (s *scanner) setSeparable(e *parser.BinaryExpr, l, r facts) bool {
	if e.Op != parser.LOR && !r.reads {
		// The result is a part of the left side, chosen by what every
		// backend knows alike.
		return l.separable
	}
	return l.separable && r.separable && keyHasAll(e.VectorMatching, s.partition)
}

// matchSeparable judges arithmetic and comparison between two vectors. With
// the partition labels in the match key, no element can find a partner in, or
// clash with an element of, another backend.
func (s *scanner) matchSeparable(e *parser.BinaryExpr, l, r facts) bool {
	vm := e.VectorMatching
	if !containsNone(vm.Include, s.partition) {
		return false
	}
	switch {
	case l.reads && r.reads:
		return l.separable && r.separable && keyHasAll(vm, s.partition)
	case l.reads:
		return l.separable && (vm.Card == parser.CardManyToOne || keyHasAll(vm, s.partition))
	default:
		return r.separable && (vm.Card == parser.CardOneToMany || keyHasAll(vm, s.partition))
	}
}

// keyHasAll tells whether elements match on all the named labels.
func keyHasAll(vm *parser.VectorMatching, names []string) bool {
	if vm.On {
		return containsAll(vm.MatchingLabels, names)
	}
	return containsNone(vm.MatchingLabels, names)
}

// keyHasNone tells whether elements match on none of the named labels.
func keyHasNone(vm *parser.VectorMatching, names []string) bool {
	if vm.On {
		return containsNone(vm.MatchingLabels, names)
	}
	return containsAll(vm.MatchingLabels, names)
}

// needed narrows the backends of a separable operator to those where it can
// have a result at all.
func needed(op parser.ItemType, l, r facts) []int {
	switch {
	case !l.reads:
		return r.backends
	case !r.reads || op == parser.LUNLESS:
		return l.backends
	case op == parser.LOR:
		return union(l.backends, r.backends)
	}
	if both := intersect(l.backends, r.backends); len(both) > 0 {
		return both
	}
	return l.backends
}
