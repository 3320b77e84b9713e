package columns

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

// compile makes a plan of an expression.
func compile(text string) *plan {
	p := &plan{text: text}
	var err error
	if p.expr, err = parser.ParseExpr(text); err != nil {
		p.expr = nil // which the other engine reports
		return p
	}
	// Nothing depends on the time: what does is not covered.
	expr, err := promql.PreprocessExpr(p.expr, time.Time{}, time.Time{}, 0)
	if err != nil {
		return p
	}
	if t := expr.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeScalar {
		p.root = compileNode(expr)
	}
	return p
}

// compileNode returns nil for what is not covered.
func compileNode(expr parser.Expr) *node {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return compileNode(e.Expr)
	case *parser.StepInvariantExpr:
		return compileNode(e.Expr)
	case *parser.NumberLiteral:
		return newNode(number(e.Val), fmt.Sprintf("%x", e.Val))
	case *parser.VectorSelector:
		return compileSelector(e)
	case *parser.UnaryExpr:
		if e.Op == parser.ADD {
			return compileNode(e.Expr)
		}
		return newNode(negation{}, "-", e.Expr)
	case *parser.AggregateExpr:
		return compileAggregation(e)
	case *parser.Call:
		return compileCall(e)
	case *parser.BinaryExpr:
		return compileBinary(e)
	}
	return nil
}

// newNode returns a node whose key is made of what sets the operator apart and
// of the operands, or nil if one of them is not covered.
func newNode(op operator, what string, operands ...parser.Expr) *node {
	n := &node{op: op}
	var key strings.Builder
	fmt.Fprintf(&key, "%d:%s(", len(what), what)
	for _, operand := range operands {
		arg := compileNode(operand)
		if arg == nil {
			return nil
		}
		n.args = append(n.args, arg)
		fmt.Fprintf(&key, "%d:%s", len(arg.key), arg.key)
	}
	n.key = key.String() + ")"
	return n
}

func compileSelector(e *parser.VectorSelector) *node {
	if !plain(e) {
		return nil
	}
	s := selector{matchers: e.LabelMatchers, offset: e.OriginalOffset.Milliseconds()}
	return newNode(s, selectorKey(e))
}

// plain tells whether a selector has neither @ nor one of the experimental
// modifiers.
func plain(e *parser.VectorSelector) bool {
	return e.Timestamp == nil && e.StartOrEnd == 0 && e.OriginalOffsetExpr == nil && !e.Anchored && !e.Smoothed
}

func selectorKey(e *parser.VectorSelector) string {
	return fmt.Sprintf("selector %d %t %s", e.OriginalOffset, e.SkipHistogramBuckets, scan.Key(e.LabelMatchers))
}

// aggregations are those that are covered.
var aggregations = []parser.ItemType{
	parser.SUM, parser.AVG, parser.MIN, parser.MAX, parser.COUNT, parser.GROUP, parser.STDDEV, parser.STDVAR, parser.TOPK, parser.BOTTOMK,
}

func compileAggregation(e *parser.AggregateExpr) *node {
	if !slices.Contains(aggregations, e.Op) {
		return nil
	}
	g := grouping{names: slices.Sorted(slices.Values(e.Grouping)), without: e.Without}
	what := fmt.Sprintf("%s %t %q", e.Op, e.Without, g.names)
	if e.Op == parser.TOPK || e.Op == parser.BOTTOMK {
		return newNode(ranking{g, e.Op == parser.BOTTOMK}, what, e.Expr, e.Param)
	}
	return newNode(aggregation{g, e.Op}, what, e.Expr)
}

// specials are functions that Prometheus' engine does not leave to
// promql.FunctionCalls.
var specials = []string{"label_replace", "label_join", "info", "absent_over_time"}

func compileCall(e *parser.Call) *node {
	function, ok := promql.FunctionCalls[e.Func.Name]
	if !ok || slices.Contains(specials, e.Func.Name) {
		return nil
	}
	c := call{name: e.Func.Name, function: function, args: e.Args, operands: make([]int, len(e.Args))}
	what := "call " + e.Func.Name
	var operands []parser.Expr
	for i, arg := range e.Args {
		c.operands[i] = -1
		switch a := arg.(type) {
		case *parser.MatrixSelector:
			vs := a.VectorSelector.(*parser.VectorSelector)
			if !plain(vs) || a.RangeExpr != nil {
				return nil
			}
			vs.Offset = vs.OriginalOffset // Functions look at it.
			c.matrix = &matrix{selector{vs.LabelMatchers, vs.OriginalOffset.Milliseconds()}, a.Range.Milliseconds(), vs.SkipHistogramBuckets}
			what += fmt.Sprintf(" %d %d %s", i, a.Range, selectorKey(vs))
		case *parser.StringLiteral:
			what += fmt.Sprintf(" %d %q", i, a.Val)
		default:
			c.operands[i] = len(operands)
			operands = append(operands, arg)
		}
	}
	if c.matrix != nil {
		return newNode(overTime{c}, what, operands...)
	}
	if e.Func.Name == "timestamp" && selects(e.Args[0]) {
		return nil
	}
	return newNode(c, what+absentLabels(e), operands...)
}

// selects tells whether an expression is a selector, for which timestamp is not
// a function of the vector.
func selects(e parser.Expr) bool {
	if s, ok := e.(*parser.StepInvariantExpr); ok {
		e = s.Expr
	}
	_, ok := e.(*parser.VectorSelector)
	return ok
}

// absentLabels sets calls of absent apart whose operands mean the same: its
// labels are those of a selector as it is written.
func absentLabels(e *parser.Call) string {
	if e.Func.Name != "absent" {
		return ""
	}
	return " " + e.Args[0].String()
}

func compileBinary(e *parser.BinaryExpr) *node {
	what := fmt.Sprintf("%s %t", e.Op, e.ReturnBool)
	left, right := e.LHS.Type() == parser.ValueTypeScalar, e.RHS.Type() == parser.ValueTypeScalar
	switch {
	case left && right:
		return newNode(scalarOperation{e.Op}, what, e.LHS, e.RHS)
	case right:
		return newNode(vectorScalar{op: e.Op, toBool: e.ReturnBool}, what, e.LHS, e.RHS)
	case left:
		return newNode(vectorScalar{op: e.Op, toBool: e.ReturnBool, swapped: true}, what+" swapped", e.RHS, e.LHS)
	}
	m := e.VectorMatching
	what += fmt.Sprintf(" %s %t %q %q", m.Card, m.On, m.MatchingLabels, m.Include)
	if e.Op.IsSetOperator() {
		return newNode(setOperation{e.Op, m}, what, e.LHS, e.RHS)
	}
	return newNode(join{e.Op, e.ReturnBool, m}, what, e.LHS, e.RHS)
}
