package plan

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// ScalarLabel is the label by which an expression names a scalar of its plan:
// scalar({__tocsin_scalar__="scalar(y)"}). The text, which means the same all
// over a batch, is the name. No expression may use it itself.
const ScalarLabel = "__tocsin_scalar__"

// Scalar is a scalar that fragments contain but which comes from elsewhere. It
// is worked out first, and its value is written into them.
type Scalar struct {
	// Name is the scalar's expression.
	Name string
	// Local is what makes it of the answers to Fragments.
	Local     parser.Expr
	Fragments []int
	// Consumers are indexes of the queries that need the value.
	Consumers []int
	// Limits bound what it may cost.
	Limits Limits
}

// ScalarOf tells which scalar a selector's matchers refer to.
func ScalarOf(matchers []*labels.Matcher) (name string, ok bool) {
	return valueOf(matchers, ScalarLabel)
}

// With returns the fragment with the values of its scalars, which are by name.
func (f Fragment) With(values map[string]float64) Fragment {
	var walk func(parser.Expr) (parser.Expr, error)
	walk = func(e parser.Expr) (parser.Expr, error) {
		if name, ok := scalarNamed(e); ok {
			return literal(values[name]), nil
		}
		return mapChildren(e, walk)
	}
	filled, _ := walk(f.tree) // walk has no errors.
	f.Expr = filled.String()
	return f
}

// literal is a number as an expression whose text means it wherever it stands:
// a sign would come apart from its number before ^.
func literal(v float64) parser.Expr {
	n := &parser.NumberLiteral{Val: v}
	if math.Signbit(v) && !math.IsNaN(v) {
		return &parser.ParenExpr{Expr: n}
	}
	return n
}

func scalarSelector(name string) parser.Expr {
	m := labels.MustNewMatcher(labels.MatchEqual, ScalarLabel, name)
	return call("scalar", &parser.VectorSelector{LabelMatchers: []*labels.Matcher{m}})
}

// scalarNamed tells which scalar an expression stands for.
func scalarNamed(expr parser.Expr) (name string, ok bool) {
	if c, isCall := expr.(*parser.Call); isCall && c.Func.Name == "scalar" {
		if vs, isSelector := c.Args[0].(*parser.VectorSelector); isSelector {
			return ScalarOf(vs.LabelMatchers)
		}
	}
	return "", false
}

// inline pushes an expression down that could be if the scalars in it were
// numbers. At one instant each of them is one: it is asked for first. That takes
// a second round of requests, so it is only done if less is moved then. What is
// content with a part of the data, of which scalars of others may not be made,
// stays as it is.
func (p *placer) inline(expr parser.Expr, w Window) (parser.Expr, bool) {
	if w.Step != 0 || p.inlining || p.partial || expr.Type() != parser.ValueTypeVector {
		return nil, false
	}
	var scalars []parser.Expr
	rest := p.replaceScalars(expr, func(s parser.Expr) parser.Expr {
		scalars = append(scalars, s)
		return scalarSelector(s.String())
	})
	if len(scalars) == 0 || !p.answerable(rest) || !p.savesMoving(expr, scalars) {
		return nil, false
	}
	for _, s := range scalars {
		p.note(ReasonInlined, s)
		p.scalar(s, w)
	}
	return p.place(rest, w), true
}

// replaceScalars replaces the widest scalars that depend on stored series. Those
// in a subquery have a value at each of its times.
func (p *placer) replaceScalars(expr parser.Expr, by func(parser.Expr) parser.Expr) parser.Expr {
	if _, ok := expr.(*parser.SubqueryExpr); ok || !p.facts(expr).reads {
		return expr
	}
	if expr.Type() == parser.ValueTypeScalar {
		return by(unwrap(expr))
	}
	replaced, _ := mapChildren(expr, func(child parser.Expr) (parser.Expr, error) {
		return p.replaceScalars(child, by), nil
	})
	return replaced
}

// scalar makes the query in work need a scalar.
func (p *placer) scalar(expr parser.Expr, w Window) {
	p.inlining = true
	defer func() { p.inlining = false }()
	before := len(p.current.Fragments)
	local := p.place(expr, w)
	i := p.plan.scalar(expr.String())
	if i < 0 {
		i = len(p.plan.Scalars)
		p.plan.Scalars = append(p.plan.Scalars, Scalar{
			Name: expr.String(), Local: local, Fragments: slices.Clone(p.current.Fragments[before:]),
		})
	}
	s := &p.plan.Scalars[i]
	if n := len(s.Consumers); n == 0 || s.Consumers[n-1] != p.index {
		s.Consumers = append(s.Consumers, p.index)
		p.current.Scalars = append(p.current.Scalars, i)
	}
}

// scalar is the index of a scalar, -1 if there is none of the name.
func (p *Plan) scalar(name string) int {
	return slices.IndexFunc(p.Scalars, func(s Scalar) bool { return s.Name == name })
}

// scalarsIn are the indexes of the scalars that an expression names, ascending.
func (p *Plan) scalarsIn(expr parser.Expr) (list []int) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if e, ok := n.(parser.Expr); ok {
			if name, ok := scalarNamed(e); ok {
				list = append(list, p.scalar(name))
			}
		}
		return nil
	})
	slices.Sort(list)
	return slices.Compact(list)
}

// answerable tells whether backends can answer an expression between them, be
// it that the parts of an aggregation have to be put together.
func (p *placer) answerable(expr parser.Expr) bool {
	f := p.facts(expr)
	if len(f.backends) == 1 || len(f.backends) > 1 && f.separable {
		return true
	}
	e, ok := unwrap(expr).(*parser.AggregateExpr)
	return ok && len(f.backends) > 0 && p.splittable(e)
}

// savesMoving tells whether it saves moving series one by one to know scalars
// first: something has to be moved for more than the scalars, and there has to
// be less of the answer than of that.
func (p *placer) savesMoving(expr parser.Expr, scalars []parser.Expr) bool {
	needed := map[string]bool{}
	for _, s := range scalars {
		p.moved(s, func(text string) { needed[text] = true })
	}
	saves := false
	p.moved(expr, func(text string) { saves = saves || !needed[text] })
	return saves && p.reduces(expr)
}

// moved visits the texts of what is moved series by series for a local
// expression.
func (p *placer) moved(expr parser.Expr, visit func(text string)) {
	switch expr.(type) {
	case *parser.SubqueryExpr:
	case *parser.VectorSelector, *parser.MatrixSelector:
		visit(expr.String())
		return
	default:
		if !p.answerable(expr) {
			break
		}
		if bySeries(expr) {
			visit(unwrap(expr).String())
		}
		return
	}
	for child := range parser.ChildrenIter(expr) {
		p.moved(child.(parser.Expr), visit)
	}
}

// bySeries tells whether an expression has elements for single series: it is
// not made of aggregations only, of whose answers there are few.
func bySeries(n parser.Node) bool {
	switch e := n.(type) {
	case *parser.VectorSelector:
		return true
	case *parser.AggregateExpr:
		return false
	case *parser.Call:
		if e.Func.ReturnType == parser.ValueTypeScalar {
			return false
		}
	}
	for child := range parser.ChildrenIter(n) {
		if bySeries(child) {
			return true
		}
	}
	return false
}

// reduces tells whether an expression that is not answered as it is has fewer
// elements than its operands, or of single values what they have of ranges.
func (p *placer) reduces(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.AggregateExpr:
		return true
	case *parser.BinaryExpr:
		if e.VectorMatching != nil || e.Op.IsComparisonOperator() && !e.ReturnBool {
			return true
		}
	case *parser.Call:
		if slices.ContainsFunc(e.Args, func(arg parser.Expr) bool { return arg.Type() == parser.ValueTypeMatrix }) {
			return true
		}
	}
	for child := range parser.ChildrenIter(expr) {
		if c := child.(parser.Expr); c.Type() == parser.ValueTypeVector && !p.answerable(c) && p.reduces(c) {
			return true
		}
	}
	return false
}
