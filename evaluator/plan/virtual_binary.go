package plan

import (
	"github.com/prometheus/prometheus/promql/parser"
)

// operands are the rewritten sides of an operator between two vectors.
type operands struct {
	op   *parser.BinaryExpr
	l, r rewritten
}

func (v *virtualizer) binary(e *parser.BinaryExpr) (rewritten, error) {
	if e.VectorMatching == nil {
		return v.through(e)
	}
	l, err := v.rewrite(e.LHS)
	if err != nil {
		return rewritten{}, err
	}
	r, err := v.rewrite(e.RHS)
	if err != nil {
		return rewritten{}, err
	}
	o := operands{e, l, r}
	switch {
	case !l.bare && !r.bare:
		return o.join(e.VectorMatching, false), nil
	case keyHasNone(e.VectorMatching, v.names):
		return v.joinAcross(o), nil
	case l.bare && r.bare:
		return v.joinWithin(o), nil
	}
	return v.joinExact(o), nil
}

func (o operands) join(vm *parser.VectorMatching, bare bool) rewritten {
	c := *o.op
	c.LHS, c.RHS, c.VectorMatching = o.l.Expr, o.r.Expr, copyMatching(vm)
	return rewritten{&c, bare}
}

// joinExact gives both sides their partition labels first.
func (v *virtualizer) joinExact(o operands) rewritten {
	o.l, o.r = rewritten{v.exact(o.l), false}, rewritten{v.exact(o.r), false}
	return o.join(o.op.VectorMatching, false)
}

// joinAcross handles a match key without partition labels: the sides match
// alike with and without them, and the result has the labels of one side.
func (v *virtualizer) joinAcross(o operands) rewritten {
	vm := o.op.VectorMatching
	switch {
	case !containsNone(vm.Include, v.names), o.op.Op == parser.LOR && o.l.bare != o.r.bare:
		return v.joinExact(o)
	case vm.Card == parser.CardOneToOne:
		return o.join(vm, false)
	case vm.Card == parser.CardOneToMany:
		return o.join(vm, o.r.bare)
	}
	return o.join(vm, o.l.bare)
}

// joinWithin handles a match key with partition labels between two sides that
// lack them: being equal on all series they can be left out of the key.
func (v *virtualizer) joinWithin(o operands) rewritten {
	vm := copyMatching(o.op.VectorMatching)
	if vm.Card == parser.CardOneToOne && !keyHasAll(vm, v.names) {
		return v.joinExact(o)
	}
	if vm.On {
		vm.MatchingLabels = without(vm.MatchingLabels, v.names)
	}
	vm.Include = without(vm.Include, v.names)
	return o.join(vm, true)
}
