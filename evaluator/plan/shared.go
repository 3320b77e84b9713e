package plan

import (
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// asks is what a batch asks backends for if every query is placed by itself.
type asks struct {
	// groupings answer each other.
	groupings groupings
	// leaves are the aggregations among them.
	leaves map[leaf]bool
	// pushed is all that is asked for, once.
	pushed []pushed
	seen   map[leaf]bool
}

type pushed struct {
	expr   parser.Expr
	window Window
}

// leaf is an expression over a window.
type leaf struct {
	expr   string
	window Window
}

func newAsks() *asks {
	return &asks{groupings: groupings{}, leaves: map[leaf]bool{}, seen: map[leaf]bool{}}
}

func (a *asks) add(expr parser.Expr, w Window) {
	key := leaf{expr.String(), w}
	if a.seen[key] {
		return
	}
	a.seen[key] = true
	a.pushed = append(a.pushed, pushed{expr, w})
	if e, ok := expr.(*parser.AggregateExpr); ok {
		a.leaves[key] = true
		a.groupings.add(e, w)
	}
}

// has tells whether a query asks for an aggregation, or for a finer one that
// answers it.
func (a *asks) has(e *parser.AggregateExpr, w Window) bool {
	return a.leaves[leaf{e.String(), w}] || a.groupings.finer(e, w) != nil
}

// useful tells whether placing the queries together saves a backend an
// evaluation.
func (p *placer) useful(a *asks) bool {
	if a.groupings.useful() {
		return true
	}
	return slices.ContainsFunc(a.pushed, func(e pushed) bool { return p.composable(e.expr, e.window, a) })
}

// composable tells whether a backend is saved an evaluation by composing expr.
func (p *placer) composable(expr parser.Expr, w Window, a *asks) bool {
	saves := func(b int) bool { return !p.backends[b].Shares }
	return a != nil && slices.ContainsFunc(p.facts(expr).backends, saves) && p.composed(expr, w, a)
}

// composed tells whether all that an expression reads is in aggregations below
// its top that other queries ask for anyway. It is then made of their answers
// here, and no backend evaluates them once more for it. Aggregations, because
// their answers are small.
func (p *placer) composed(expr parser.Expr, w Window, a *asks) bool {
	switch e := unwrap(expr).(type) {
	case *parser.VectorSelector, *parser.MatrixSelector:
		return false
	case *parser.SubqueryExpr:
		return p.supplied(e.Expr, subqueryWindow(w, e), a)
	case *parser.AggregateExpr:
		return p.supplied(e.Expr, w, a) && (e.Param == nil || p.supplied(e.Param, w, a))
	case *parser.BinaryExpr:
		return p.supplied(e.LHS, w, a) && p.supplied(e.RHS, w, a)
	case *parser.UnaryExpr:
		return p.supplied(e.Expr, w, a)
	case *parser.Call:
		return p.callComposed(e, w, a)
	}
	return false
}

func (p *placer) callComposed(e *parser.Call, w Window, a *asks) bool {
	switch e.Func.Name {
	case "info", "absent", "absent_over_time":
		// They look at the form of their argument.
		return false
	}
	for _, arg := range e.Args {
		if !p.supplied(arg, w, a) {
			return false
		}
	}
	return len(e.Args) > 0
}

// supplied tells whether expr is, or is made of, what other queries ask for.
func (p *placer) supplied(expr parser.Expr, w Window, a *asks) bool {
	expr = unwrap(expr)
	if !p.facts(expr).reads {
		return true
	}
	if e, ok := expr.(*parser.AggregateExpr); ok && a.has(e, w) {
		return true
	}
	return p.composed(expr, w, a)
}

// compose makes expr out of what other queries ask for, if it can be.
func (p *placer) compose(expr parser.Expr, w Window) (parser.Expr, bool) {
	if !p.composable(expr, w, p.others) {
		return nil, false
	}
	p.current.RolledUp = true
	if !p.composing {
		p.note(ReasonShared, expr)
		p.composing = true
		defer func() { p.composing = false }()
	}
	return p.children(expr, windowBelow(expr, w)), true
}

// windowBelow is the window of an expression's operands.
func windowBelow(expr parser.Expr, w Window) Window {
	if e, ok := expr.(*parser.SubqueryExpr); ok {
		return subqueryWindow(w, e)
	}
	return w
}
