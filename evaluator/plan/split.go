package plan

import (
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// split cuts an aggregation over several backends in two: each backend
// aggregates its own series with the partition labels kept, and the local
// half puts the parts together. It is not ok for aggregations that do not
// come apart exactly.
//
// What is exact, also where a backend's series lack the partition labels: each
// part's groups are those of the whole restricted to one backend, so min, max,
// group and count are exact, sum and avg up to the order of summation, topk
// and bottomk up to the choice among equal values, limitk up to its choice,
// which PromQL leaves open. quantile needs every value: its argument is moved
// instead.
func (p *placer) split(e *parser.AggregateExpr, w Window) (parser.Expr, bool) {
	if !p.splittable(e) {
		return nil, false
	}
	s := splitter{placer: p, backends: p.facts(e.Expr).backends, window: w}
	switch e.Op {
	case parser.SUM:
		return s.halves(e, parser.SUM)
	case parser.COUNT:
		return s.halves(e, parser.SUM)
	case parser.MIN, parser.MAX, parser.GROUP, parser.TOPK, parser.BOTTOMK, parser.LIMITK:
		return s.halves(e, e.Op)
	case parser.AVG:
		return s.mean(e)
	case parser.STDDEV, parser.STDVAR:
		return s.variance(e)
	case parser.COUNT_VALUES:
		return s.countValues(e)
	}
	return nil, false
}

// splittable tells whether split is ok if backends can be asked for the parts.
func (p *placer) splittable(e *parser.AggregateExpr) bool {
	if !p.facts(e.Expr).separable || p.param(e).reads {
		return false
	}
	switch e.Op {
	case parser.SUM, parser.COUNT, parser.MIN, parser.MAX, parser.GROUP, parser.TOPK, parser.BOTTOMK, parser.LIMITK,
		parser.AVG, parser.STDDEV, parser.STDVAR:
		return true
	case parser.COUNT_VALUES:
		label := stringArg(e.Param)
		return !slices.Contains(e.Grouping, label) && !slices.Contains(p.partition, label)
	}
	return false
}

type splitter struct {
	*placer
	backends []int
	window   Window
	// averaged: see Fragment.Averaged.
	averaged bool
}

// halves makes the local half of e by op out of remote halves by e's own.
func (s *splitter) halves(e *parser.AggregateExpr, op parser.ItemType) (parser.Expr, bool) {
	remote := *e
	remote.Grouping = s.remoteGrouping(e)
	parts, ok := s.answer(&remote, s.backends, cut{window: s.window, summed: e.Op == parser.SUM, averaged: s.averaged})
	if !ok {
		return nil, false
	}
	local := *e
	local.Op, local.Expr = op, parts
	if rolled, ok := parts.(*parser.AggregateExpr); ok {
		// In two steps, a group of the first one that mixes floats and native
		// histograms would be left out, not the whole group.
		local.Expr = rolled.Expr
	}
	return &local, true
}

// mean divides the sum of sums by the sum of counts. Both sides have the same
// groups.
func (s *splitter) mean(e *parser.AggregateExpr) (parser.Expr, bool) {
	sum, count := *e, *e
	sum.Op, count.Op = parser.SUM, parser.COUNT
	s.averaged = true
	sums, ok := s.halves(&sum, parser.SUM)
	if !ok {
		return nil, false
	}
	counts, ok := s.halves(&count, parser.SUM)
	if !ok {
		return nil, false
	}
	return &parser.ParenExpr{Expr: &parser.BinaryExpr{
		Op: parser.DIV, LHS: sums, RHS: counts,
		VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
	}}, true
}

// countValues adds up the backends' counts of each value, which they name in
// a label alike.
func (s *splitter) countValues(e *parser.AggregateExpr) (parser.Expr, bool) {
	local, ok := s.halves(e, parser.SUM)
	if !ok {
		return nil, false
	}
	sum := local.(*parser.AggregateExpr)
	sum.Param = nil
	if !sum.Without {
		sum.Grouping = append(slices.Clone(e.Grouping), stringArg(e.Param))
	}
	return sum, true
}

func (s *splitter) remoteGrouping(e *parser.AggregateExpr) []string {
	if e.Without {
		return without(e.Grouping, s.partition)
	}
	return append(slices.Clone(e.Grouping), without(s.partition, e.Grouping)...)
}
