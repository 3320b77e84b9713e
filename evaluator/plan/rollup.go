package plan

import (
	"github.com/prometheus/prometheus/promql/parser"
)

// rollup is what aggregations by different labels have in common.
type rollup struct {
	op     parser.ItemType
	inner  string
	window Window
}

// groupings are the aggregations that a batch asks backends for. One by more
// labels answers those by fewer, exactly as a sum of several backends: the
// groups are aggregated further here instead of reading the series again.
type groupings map[rollup][]*parser.AggregateExpr

func (g groupings) add(e *parser.AggregateExpr, w Window) {
	if e.Without || further(e) == 0 {
		return
	}
	r := rollup{e.Op, unwrap(e.Expr).String(), w}
	g[r] = append(g[r], e)
}

// further is the operator that makes an aggregation of the values of finer
// groups, 0 if there is none.
func further(e *parser.AggregateExpr) parser.ItemType {
	switch e.Op {
	case parser.SUM, parser.COUNT:
		return parser.SUM
	case parser.MIN, parser.MAX, parser.GROUP:
		return e.Op
	}
	return 0
}

// useful tells whether one of the aggregations answers another one.
func (g groupings) useful() bool {
	for _, list := range g {
		for _, e := range list {
			if finest(list, e) != nil {
				return true
			}
		}
	}
	return false
}

// finer is the aggregation that e can be made of, nil if there is none.
func (g groupings) finer(e *parser.AggregateExpr, w Window) *parser.AggregateExpr {
	if e.Without || further(e) == 0 || len(g) == 0 {
		return nil
	}
	return finest(g[rollup{e.Op, unwrap(e.Expr).String(), w}], e)
}

// finest is the aggregation by the most labels of those by more than e's. It
// is not made of another one itself.
func finest(list []*parser.AggregateExpr, e *parser.AggregateExpr) (best *parser.AggregateExpr) {
	for _, f := range list {
		if containsAll(f.Grouping, e.Grouping) && !containsAll(e.Grouping, f.Grouping) &&
			(best == nil || len(f.Grouping) > len(best.Grouping)) {
			best = f
		}
	}
	return best
}

func (p *placer) finer(expr parser.Expr, w Window) *parser.AggregateExpr {
	e, ok := expr.(*parser.AggregateExpr)
	if !ok || p.others == nil {
		return nil
	}
	return p.others.groupings.finer(e, w)
}

// answer is what stands locally for expr, which the backends can answer: a
// site of its own, or a finer grouping's aggregated further. It is not ok if a
// backend cannot be asked.
func (p *placer) answer(expr parser.Expr, backends []int, c cut) (parser.Expr, bool) {
	expr = unwrap(expr)
	if f := p.finer(expr, c.window); f != nil {
		e := expr.(*parser.AggregateExpr)
		if site, ok := p.site(f, backends, cut{c.window, e.Op == parser.SUM, c.averaged}); ok {
			p.current.RolledUp = true
			local := *e
			local.Op, local.Expr = further(e), siteSelector(site)
			return &local, true
		}
	}
	site, ok := p.site(expr, backends, c)
	if !ok {
		return nil, false
	}
	if p.asked != nil {
		p.asked.add(expr, c.window)
	}
	return siteSelector(site), true
}
