package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Virtualize returns the expression to ask a server whose stored series lack
// the partition labels, so that it answers as if they had them. Matchers on
// partition labels are evaluated and removed; labels are put back with
// label_replace, as late as PromQL's semantics permit and not at all where an
// aggregation or a join drops them. The input is left as it is.
//
// It assumes that no stored series carries a partition label of its own. An
// error says which part has no exact form.
func Virtualize(expr parser.Expr, partition labels.Labels) (parser.Expr, error) {
	v := &virtualizer{partition: partition.WithoutEmpty()}
	v.names = labelNames(v.partition)
	virtual, err := v.rewrite(expr)
	if err != nil {
		return nil, err
	}
	if t := expr.Type(); t == parser.ValueTypeMatrix && virtual.bare && len(v.names) > 0 {
		return nil, fmt.Errorf("the range vector %s cannot be given partition labels", expr)
	}
	return v.exact(virtual), nil
}

// rewritten is an expression for the server. If bare, its series lack exactly
// the partition labels that the true ones have; else they are the true ones.
type rewritten struct {
	parser.Expr
	bare bool
}

type virtualizer struct {
	partition labels.Labels
	names     []string
}

func (v *virtualizer) rewrite(expr parser.Expr) (rewritten, error) {
	switch e := expr.(type) {
	case *parser.VectorSelector:
		return rewritten{v.selector(e), true}, nil
	case *parser.AggregateExpr:
		return v.aggregate(e)
	case *parser.BinaryExpr:
		return v.binary(e)
	case *parser.Call:
		return v.call(e)
	}
	return v.through(expr)
}

// through rewrites a node whose result has the labels of its one operand that
// has any.
func (v *virtualizer) through(expr parser.Expr) (rewritten, error) {
	bare := false
	c, err := mapChildren(expr, func(child parser.Expr) (parser.Expr, error) {
		r, err := v.rewrite(child)
		bare = bare || r.bare
		return r.Expr, err
	})
	return rewritten{c, bare}, err
}

// selector takes off the matchers that the partition satisfies. If it does
// not satisfy one then the true selector is empty, and so is one that demands
// the impossible of that label.
func (v *virtualizer) selector(vs *parser.VectorSelector) *parser.VectorSelector {
	c := copySelector(vs)
	c.LabelMatchers = c.LabelMatchers[:0]
	for _, m := range vs.LabelMatchers {
		switch {
		case !v.partition.Has(m.Name):
			c.LabelMatchers = append(c.LabelMatchers, m)
		case !m.Matches(v.partition.Get(m.Name)):
			c.LabelMatchers = append(c.LabelMatchers, labels.MustNewMatcher(labels.MatchNotRegexp, m.Name, ".*"))
		}
	}
	if onlyEmptyMatchers(c.LabelMatchers) {
		// The parser wants a matcher that is not satisfied by nothing.
		c.LabelMatchers = append(c.LabelMatchers, labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, ""))
	}
	return c
}

func onlyEmptyMatchers(ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") })
}

// exact puts the partition labels on.
func (v *virtualizer) exact(r rewritten) parser.Expr {
	if !r.bare {
		return r.Expr
	}
	return relabel(r.Expr, v.partition)
}

// relabel sets labels on every series of a vector.
func relabel(expr parser.Expr, set labels.Labels) parser.Expr {
	set.Range(func(l labels.Label) {
		expr = &parser.Call{Func: parser.Functions["label_replace"], Args: parser.Expressions{
			expr, str(l.Name), str(strings.ReplaceAll(l.Value, "$", "$$")), str(""), str(""),
		}}
	})
	return expr
}

func str(s string) *parser.StringLiteral { return &parser.StringLiteral{Val: s} }

func (v *virtualizer) call(e *parser.Call) (rewritten, error) {
	switch e.Func.Name {
	case "info":
		return rewritten{}, fmt.Errorf("%s: info() chooses its series while it runs", e)
	case "absent", "absent_over_time":
		return v.absent(e)
	case "scalar", "vector":
		r, err := v.through(e)
		return rewritten{r.Expr, false}, err
	case "label_replace", "label_join":
		if v.usesPartition(e) {
			return v.forced(e)
		}
	}
	return v.through(e)
}

// usesPartition tells whether a label function reads or writes a partition
// label.
func (v *virtualizer) usesPartition(e *parser.Call) bool {
	return slices.ContainsFunc(e.Args[1:], func(arg parser.Expr) bool {
		return slices.Contains(v.names, stringArg(arg))
	})
}

// forced rewrites a node with exact operands, which makes it exact as it is.
func (v *virtualizer) forced(expr parser.Expr) (rewritten, error) {
	c, err := mapChildren(expr, func(child parser.Expr) (parser.Expr, error) {
		r, err := v.rewrite(child)
		if err != nil {
			return nil, err
		}
		return v.exact(r), nil
	})
	return rewritten{c, false}, err
}

// absent gets the labels that its selector's matchers on partition labels
// would have given it.
func (v *virtualizer) absent(e *parser.Call) (rewritten, error) {
	r, err := v.through(e)
	if err != nil {
		return rewritten{}, err
	}
	implied := absentLabels(e.Args[0]).MatchLabels(true, v.names...)
	return rewritten{relabel(r.Expr, implied), false}, nil
}

// absentLabels are the labels that absent() derives from its argument: of a
// bare selector, the values of labels whose only matcher is an equality. With
// several matchers on a label Prometheus goes by their order, which its storage
// changes; it puts equality first, after which any other one counts.
func absentLabels(arg parser.Expr) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	arg = unwrap(arg)
	if ms, ok := arg.(*parser.MatrixSelector); ok {
		arg = ms.VectorSelector
	}
	vs, ok := arg.(*parser.VectorSelector)
	if !ok {
		return labels.EmptyLabels()
	}
	seen := map[string]bool{labels.MetricName: true}
	for _, m := range vs.LabelMatchers {
		if m.Type == labels.MatchEqual && !seen[m.Name] {
			b.Set(m.Name, m.Value)
		} else {
			b.Del(m.Name)
		}
		seen[m.Name] = true
	}
	return b.Labels()
}

func (v *virtualizer) aggregate(e *parser.AggregateExpr) (rewritten, error) {
	r, err := v.through(e)
	if err != nil || !r.bare {
		return r, err
	}
	all, none := containsAll(e.Grouping, v.names), containsNone(e.Grouping, v.names)
	agg := r.Expr.(*parser.AggregateExpr)
	switch {
	case e.Op == parser.COUNT_VALUES && slices.Contains(v.names, stringArg(e.Param)):
		return rewritten{}, fmt.Errorf("%s: count_values() over a partition label", e)
	case e.Op == parser.TOPK, e.Op == parser.BOTTOMK, e.Op == parser.LIMITK:
		// They return series of the argument; the partition labels, being
		// the same everywhere, make no difference to the groups.
		return r, nil
	case e.Op == parser.LIMIT_RATIO, !all && !none:
		return v.forced(e)
	case e.Without:
		return rewritten{agg, none}, nil
	}
	agg.Grouping = without(e.Grouping, v.names)
	return rewritten{agg, all}, nil
}
