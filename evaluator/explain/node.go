package explain

import (
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// place marks in the text of an operation where a child stands.
const place = "…"

// node is the tree of a local expression.
func (b *builder) node(expr parser.Expr) *Node {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return b.node(e.Expr)
	case *parser.VectorSelector:
		if site, ok := plan.SiteOf(e.LabelMatchers); ok {
			// The planner wrote the number itself.
			i, err := strconv.Atoi(site)
			if err == nil && i < len(b.plan.Sites) {
				return b.site(i)
			}
		}
		return b.raw(e, e.String())
	case *parser.MatrixSelector:
		return b.raw(e.VectorSelector.(*parser.VectorSelector), e.String())
	}
	op := operation{}
	n := &Node{Kind: KindLocal, Expr: op.text(expr)}
	for _, operand := range op.operands {
		n.Children = append(n.Children, b.node(operand))
	}
	return n
}

// operation is the topmost operation of an expression and what it works on.
type operation struct {
	operands []parser.Expr
}

// text is the expression with a mark in place of every operand that reads
// series; constants stay.
func (o *operation) text(expr parser.Expr) string {
	switch e := expr.(type) {
	case *parser.AggregateExpr:
		c := *e
		if c.Param != nil {
			c.Param = o.mark(c.Param)
		}
		c.Expr = o.mark(c.Expr)
		return c.String()
	case *parser.BinaryExpr:
		c := *e
		c.LHS, c.RHS = o.mark(c.LHS), o.mark(c.RHS)
		return c.String()
	case *parser.Call:
		c := *e
		c.Args = make(parser.Expressions, len(e.Args))
		for i, arg := range e.Args {
			c.Args[i] = o.mark(arg)
		}
		return c.String()
	case *parser.UnaryExpr:
		c := *e
		c.Expr = o.mark(c.Expr)
		return c.String()
	case *parser.SubqueryExpr:
		c := *e
		c.Expr = o.mark(c.Expr)
		return c.String()
	}
	return expr.String()
}

func (o *operation) mark(operand parser.Expr) parser.Expr {
	if !readsSeries(operand) {
		return operand
	}
	o.operands = append(o.operands, operand)
	return &parser.VectorSelector{Name: place}
}

func readsSeries(expr parser.Expr) bool {
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if vs, ok := n.(*parser.VectorSelector); ok {
			_, scalar := plan.ScalarOf(vs.LabelMatchers)
			found = found || !scalar
		}
		return nil
	})
	return found
}

func joined(texts []string) string { return strings.Join(texts, ",") }
