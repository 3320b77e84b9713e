package plan

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// The reasons not to fold, besides those of placing an expression.
const (
	// ReasonFailed: the last fold of these queries failed.
	ReasonFailed Reason = "failed"
	// ReasonSelector: a selector is not pinned to the tenant.
	ReasonSelector Reason = "selector"
	// ReasonMetricName: a selector names no single metric, so that remarks
	// about its series would tell one tenant the names of another's.
	ReasonMetricName Reason = "metric_name"
	// ReasonScalar: a scalar carries no labels.
	ReasonScalar Reason = "scalar"
	// ReasonConstant: the expression reads no series, or so many of its parts
	// read none that their values for all tenants would be too much text.
	ReasonConstant Reason = "constant"
	// ReasonScopeLabel: the expression sets, reads or compares the label where
	// the result of an operation lacks it.
	ReasonScopeLabel Reason = "scope_label"
)

// FoldReasons are the reasons of fold notes, for metrics.
func FoldReasons() []Reason {
	return []Reason{
		ReasonFailed, ReasonSelector, ReasonMetricName, ReasonScalar, ReasonConstant,
		ReasonScopeLabel, ReasonInfo, ReasonAggregation, ReasonParameter,
	}
}

// carried says how the elements of a folded sub-expression relate to those of
// the original ones, of which each is about one value of the label.
type carried int

const (
	// constant: the value is the same for all, without the label.
	constant carried = iota
	// kept: the elements are the original ones, which carry the label.
	kept
	// added: the elements carry the label, which the original ones lack.
	added
)

// refusal is the error for what cannot be folded exactly.
type refusal struct{ Note }

// Error implements error.
func (r *refusal) Error() string { return fmt.Sprintf("%s: %s", r.Reason, r.Expr) }

func refuse(r Reason, expr parser.Expr) (parser.Expr, carried, error) {
	return nil, constant, &refusal{Note{r, expr.String()}}
}

// folder rewrites an expression that is pinned to one value of a label into
// one whose value is the disjoint union over many. Elements of different
// values never meet, and every element carries its value, also where the
// original ones would not.
type folder struct {
	label, value string
	// values are all that the label may have, matcher accepts them.
	values  []string
	matcher *labels.Matcher
	// constants is the number of elements written out so far.
	constants int
}

func (f *folder) rewrite(expr parser.Expr) (parser.Expr, carried, error) {
	switch e := expr.(type) {
	case *parser.VectorSelector:
		return f.selector(e)
	case *parser.AggregateExpr:
		return f.aggregate(e)
	case *parser.BinaryExpr:
		return f.binary(e)
	case *parser.Call:
		return f.call(e)
	}
	return f.through(expr)
}

// through rewrites a node whose elements have the labels of its one operand
// that has any.
func (f *folder) through(expr parser.Expr) (parser.Expr, carried, error) {
	c := constant
	rewritten, err := mapChildren(expr, func(child parser.Expr) (parser.Expr, error) {
		r, of, err := f.rewrite(child)
		c = max(c, of)
		return r, err
	})
	return rewritten, c, err
}

func (f *folder) selector(vs *parser.VectorSelector) (parser.Expr, carried, error) {
	pinned := slices.ContainsFunc(vs.LabelMatchers, func(m *labels.Matcher) bool { return pins(m, f.label, f.value) })
	named := slices.ContainsFunc(vs.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == labels.MetricName && m.Type == labels.MatchEqual
	})
	switch {
	case !pinned:
		return refuse(ReasonSelector, vs)
	case !named:
		return refuse(ReasonMetricName, vs)
	}
	return repin(vs, f.label, f.value, f.matcher), kept, nil
}

func (f *folder) aggregate(e *parser.AggregateExpr) (parser.Expr, carried, error) {
	c := *e
	arg, of, err := f.rewrite(e.Expr)
	if err != nil || of == constant {
		return e, of, err
	}
	c.Expr = arg
	if e.Param != nil {
		param, reads, err := f.rewrite(e.Param)
		if err != nil || reads != constant {
			return refuse(ReasonParameter, e)
		}
		c.Param = param
	}
	switch {
	case e.Op == parser.LIMITK, e.Op == parser.LIMIT_RATIO && of == added:
		// They choose by the order or the hash of the series.
		return refuse(ReasonAggregation, e)
	case e.Op == parser.COUNT_VALUES && stringArg(e.Param) == f.label:
		return refuse(ReasonScopeLabel, e)
	}
	named := slices.Contains(e.Grouping, f.label)
	c.Grouping = without(e.Grouping, []string{f.label})
	if !e.Without {
		c.Grouping = append(c.Grouping, f.label)
	}
	return &c, f.grouped(e, named, of), nil
}

// grouped tells what the elements of an aggregation carry. Those that are
// elements of the argument are not changed by it.
func (f *folder) grouped(e *parser.AggregateExpr, named bool, of carried) carried {
	switch {
	case e.Op == parser.TOPK, e.Op == parser.BOTTOMK, e.Op == parser.LIMIT_RATIO:
		return of
	case named == e.Without:
		return added
	}
	return of
}

func (f *folder) call(e *parser.Call) (parser.Expr, carried, error) {
	rewritten, of, err := f.through(e)
	if err != nil || of == constant && e.Func.Name != "info" {
		return rewritten, of, err
	}
	switch e.Func.Name {
	case "absent", "absent_over_time":
		return f.absent(e, rewritten.(*parser.Call).Args[0])
	case "scalar":
		return refuse(ReasonScalar, e)
	case "info":
		return refuse(ReasonInfo, e)
	case "label_replace":
		if f.touches(e, e.Args[3:4], of) {
			return refuse(ReasonScopeLabel, e)
		}
	case "label_join":
		if f.touches(e, e.Args[3:], of) {
			return refuse(ReasonScopeLabel, e)
		}
	}
	return rewritten, of, nil
}

// touches tells whether a label function sets the label, or reads it where the
// original elements lack it.
func (f *folder) touches(e *parser.Call, sources parser.Expressions, of carried) bool {
	reads := slices.ContainsFunc(sources, func(s parser.Expr) bool { return stringArg(s) == f.label })
	return stringArg(e.Args[1]) == f.label || reads && of == added
}

func (f *folder) binary(e *parser.BinaryExpr) (parser.Expr, carried, error) {
	l, ofL, err := f.rewrite(e.LHS)
	if err != nil {
		return nil, constant, err
	}
	r, ofR, err := f.rewrite(e.RHS)
	if err != nil {
		return nil, constant, err
	}
	c := *e
	c.LHS, c.RHS, c.VectorMatching = l, r, copyMatching(e.VectorMatching)
	switch {
	case e.VectorMatching == nil, ofL == constant && ofR == constant:
		return &c, max(ofL, ofR), nil
	case ofR == constant && (e.Op == parser.LAND || e.Op == parser.LUNLESS):
		return f.chosen(&c, ofL)
	case ofL == constant:
		if c.LHS, err = f.every(l, labels.EmptyLabels()); err != nil {
			return nil, constant, err
		}
		ofL = added
	case ofR == constant:
		if c.RHS, err = f.every(r, labels.EmptyLabels()); err != nil {
			return nil, constant, err
		}
		ofR = added
	}
	inKey := keyHasAll(e.VectorMatching, []string{f.label})
	if ofL != ofR && (inKey || e.Op == parser.LOR) {
		return refuse(ReasonScopeLabel, e)
	}
	matchOn(c.VectorMatching, f.label, true)
	c.VectorMatching.Include = without(c.VectorMatching.Include, []string{f.label})
	return &c, f.joined(e, ofL, ofR), nil
}

// matchOn puts a label into the match key, or takes it out.
func matchOn(vm *parser.VectorMatching, label string, in bool) {
	vm.MatchingLabels = without(vm.MatchingLabels, []string{label})
	if vm.On == in {
		vm.MatchingLabels = append(vm.MatchingLabels, label)
	}
}

// joined tells what the elements of an operator between two vectors carry.
func (f *folder) joined(e *parser.BinaryExpr, ofL, ofR carried) carried {
	vm := e.VectorMatching
	many, one := ofL, ofR
	if vm.Card == parser.CardOneToMany {
		many, one = ofR, ofL
	}
	switch {
	case vm.Card == parser.CardOneToOne && !keyHasAll(vm, []string{f.label}):
		return added
	case slices.Contains(vm.Include, f.label):
		return one
	}
	return many
}

// chosen handles a choice among the elements of the left operand by a right
// one that reads nothing, which has its elements once, not for every value.
func (f *folder) chosen(c *parser.BinaryExpr, of carried) (parser.Expr, carried, error) {
	if of == added {
		matchOn(c.VectorMatching, f.label, false)
	}
	return c, of, nil
}

// every gives each value its own copy of the elements of what reads nothing,
// with the given labels.
func (f *folder) every(expr parser.Expr, set labels.Labels) (parser.Expr, error) {
	if f.constants += len(f.values); f.constants > maxFoldConstants {
		return nil, &refusal{Note{ReasonConstant, expr.String()}}
	}
	copies := make([]parser.Expr, len(f.values))
	for i, v := range f.values {
		copies[i] = relabel(expr, labels.NewBuilder(set).Set(f.label, v).Labels())
	}
	return anyOf(copies), nil
}

// anyOf is a balanced tree of or, whose cost is less than that of a chain.
func anyOf(list []parser.Expr) parser.Expr {
	if len(list) == 1 {
		return list[0]
	}
	half := len(list) / 2
	return &parser.ParenExpr{Expr: &parser.BinaryExpr{
		Op: parser.LOR, LHS: anyOf(list[:half]), RHS: anyOf(list[half:]),
		VectorMatching: &parser.VectorMatching{Card: parser.CardManyToMany},
	}}
}

// absent has an element for every value that its argument has none for.
func (f *folder) absent(e *parser.Call, arg parser.Expr) (parser.Expr, carried, error) {
	implied := absentLabels(e.Args[0])
	one := &parser.Call{Func: parser.Functions["vector"], Args: parser.Expressions{&parser.NumberLiteral{Val: 1}}}
	all, err := f.every(one, implied)
	if err != nil {
		return nil, constant, err
	}
	if arg.Type() == parser.ValueTypeMatrix {
		arg = &parser.Call{Func: parser.Functions["last_over_time"], Args: parser.Expressions{arg}}
	}
	by := []string{f.label}
	of := added
	if implied.Has(f.label) {
		of = kept
	}
	return &parser.ParenExpr{Expr: &parser.BinaryExpr{
		Op: parser.LUNLESS, LHS: all, RHS: &parser.AggregateExpr{Op: parser.GROUP, Expr: arg, Grouping: by},
		VectorMatching: &parser.VectorMatching{Card: parser.CardManyToMany, On: true, MatchingLabels: by},
	}}, of, nil
}
