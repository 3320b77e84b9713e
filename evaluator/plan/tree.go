package plan

import (
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// mapChildren returns a copy of expr in which every direct child is replaced
// by fn of it. Leaves are copied as well, so that nothing of the result that
// a later step may change is shared with the input.
func mapChildren(expr parser.Expr, fn func(parser.Expr) (parser.Expr, error)) (parser.Expr, error) {
	switch e := expr.(type) {
	case *parser.AggregateExpr:
		return mapAggregate(e, fn)
	case *parser.BinaryExpr:
		return mapBinary(e, fn)
	case *parser.Call:
		return mapCall(e, fn)
	case *parser.MatrixSelector:
		c := *e
		return &c, mapInto(&c.VectorSelector, fn)
	case *parser.SubqueryExpr:
		c := *e
		return &c, mapInto(&c.Expr, fn)
	case *parser.ParenExpr:
		c := *e
		return &c, mapInto(&c.Expr, fn)
	case *parser.UnaryExpr:
		c := *e
		return &c, mapInto(&c.Expr, fn)
	case *parser.StepInvariantExpr:
		c := *e
		return &c, mapInto(&c.Expr, fn)
	case *parser.VectorSelector:
		return copySelector(e), nil
	case *parser.NumberLiteral:
		c := *e
		return &c, nil
	case *parser.StringLiteral:
		c := *e
		return &c, nil
	}
	return expr, nil
}

func mapInto(child *parser.Expr, fn func(parser.Expr) (parser.Expr, error)) error {
	mapped, err := fn(*child)
	if err != nil {
		return err
	}
	*child = mapped
	return nil
}

func mapAggregate(e *parser.AggregateExpr, fn func(parser.Expr) (parser.Expr, error)) (parser.Expr, error) {
	c := *e
	c.Grouping = slices.Clone(e.Grouping)
	if c.Param != nil {
		if err := mapInto(&c.Param, fn); err != nil {
			return nil, err
		}
	}
	return &c, mapInto(&c.Expr, fn)
}

func mapBinary(e *parser.BinaryExpr, fn func(parser.Expr) (parser.Expr, error)) (parser.Expr, error) {
	c := *e
	c.VectorMatching = copyMatching(e.VectorMatching)
	if err := mapInto(&c.LHS, fn); err != nil {
		return nil, err
	}
	return &c, mapInto(&c.RHS, fn)
}

func mapCall(e *parser.Call, fn func(parser.Expr) (parser.Expr, error)) (parser.Expr, error) {
	c := *e
	c.Args = slices.Clone(e.Args)
	for i := range c.Args {
		if err := mapInto(&c.Args[i], fn); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func copyMatching(vm *parser.VectorMatching) *parser.VectorMatching {
	if vm == nil {
		return nil
	}
	c := *vm
	c.MatchingLabels = slices.Clone(vm.MatchingLabels)
	c.Include = slices.Clone(vm.Include)
	return &c
}

func copySelector(e *parser.VectorSelector) *parser.VectorSelector {
	c := *e
	c.LabelMatchers = slices.Clone(e.LabelMatchers)
	c.UnexpandedSeriesSet, c.Series = nil, nil
	return &c
}

// unwrap takes the parentheses off an expression.
func unwrap(expr parser.Expr) parser.Expr {
	for {
		p, ok := expr.(*parser.ParenExpr)
		if !ok {
			return expr
		}
		expr = p.Expr
	}
}
