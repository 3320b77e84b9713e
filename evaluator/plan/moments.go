package plan

import (
	"math"

	"github.com/prometheus/prometheus/promql/parser"
)

// variance makes the variance of each group out of those of the backends'
// parts of it, of which part i has n values with the mean m and the variance v
// (T. F. Chan, G. H. Golub, R. J. LeVeque 1979):
//
//	sum(v*n + n*(d-D)^2) / sum(n)   with d = m - min(m), D = sum(n*d) / sum(n)
//
// Only differences of means are squared, so that the error is of the order of
// that of one pass over all values. If all values are equal then the result is
// exactly 0, as rules expect that compare it with 0: the mean of a part without
// variance is one of its values, not their quotient.
func (s *splitter) variance(e *parser.AggregateExpr) (parser.Expr, bool) {
	// No float equals NaN, NaN included; the comparison leaves out histograms,
	// as stdvar and min do.
	floats := &parser.BinaryExpr{Op: parser.NEQ, LHS: &parser.ParenExpr{Expr: e.Expr}, RHS: &parser.NumberLiteral{Val: math.NaN()}}
	parts := []struct {
		op   parser.ItemType
		expr parser.Expr
	}{
		{parser.COUNT, floats},
		{parser.AVG, floats},
		{parser.MIN, e.Expr},
		{parser.STDVAR, e.Expr},
	}
	answers := make([]parser.Expr, len(parts))
	for i, part := range parts {
		remote := *e
		remote.Op, remote.Expr, remote.Grouping = part.op, part.expr, s.remoteGrouping(e)
		var ok bool
		if answers[i], ok = s.answer(&remote, s.backends, cut{window: s.window}); !ok {
			return nil, false
		}
	}
	return chan79{e}.merged(answers[0], answers[1], answers[2], answers[3]), true
}

// chan79 writes the formula for the groups of an aggregation.
type chan79 struct{ *parser.AggregateExpr }

func (c chan79) merged(n, mean, least, v parser.Expr) parser.Expr {
	constant := c.each(least, parser.LAND, c.each(v, parser.EQLC, &parser.NumberLiteral{}))
	m := c.each(constant, parser.LOR, mean)
	d := c.from(m, c.over(parser.MIN, m))
	total := c.over(parser.SUM, n)
	center := c.each(c.over(parser.SUM, c.each(n, parser.MUL, d)), parser.DIV, total)
	squares := c.each(n, parser.MUL, c.each(c.from(d, center), parser.POW, &parser.NumberLiteral{Val: 2}))
	all := c.over(parser.SUM, c.each(c.each(v, parser.MUL, n), parser.ADD, squares))
	variance := c.each(all, parser.DIV, total)
	if c.Op == parser.STDDEV {
		return call("sqrt", variance)
	}
	return variance
}

// over aggregates parts into the groups.
func (c chan79) over(op parser.ItemType, expr parser.Expr) parser.Expr {
	a := *c.AggregateExpr
	a.Op, a.Expr = op, expr
	return &a
}

// each combines what has the same labels.
func (c chan79) each(l parser.Expr, op parser.ItemType, r parser.Expr) parser.Expr {
	b := &parser.BinaryExpr{Op: op, LHS: l, RHS: r}
	if r.Type() == parser.ValueTypeVector {
		b.VectorMatching = &parser.VectorMatching{Card: parser.CardOneToOne}
	}
	if op.IsSetOperator() {
		b.VectorMatching.Card = parser.CardManyToMany
	}
	return &parser.ParenExpr{Expr: b}
}

// from subtracts its group's value from each part.
func (c chan79) from(parts, group parser.Expr) parser.Expr {
	return &parser.ParenExpr{Expr: &parser.BinaryExpr{
		Op: parser.SUB, LHS: parts, RHS: group,
		VectorMatching: &parser.VectorMatching{Card: parser.CardManyToOne, On: !c.Without, MatchingLabels: c.Grouping},
	}}
}

func call(function string, args ...parser.Expr) *parser.Call {
	return &parser.Call{Func: parser.Functions[function], Args: args}
}
