package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// Reason is a code for why something is not pushed down.
type Reason string

const (
	// ReasonRaw: pushdown is turned off for the batch.
	ReasonRaw Reason = "raw"
	// ReasonOverlay: the expression may read what its group has just recorded
	// and a backend may not show yet.
	ReasonOverlay Reason = "overlay"
	// ReasonRawSelector: the series of a selector are fetched one by one,
	// since what uses them stays local.
	ReasonRawSelector Reason = "raw_selector"
	// ReasonInfo: info() reads series that it chooses while it runs.
	ReasonInfo Reason = "info"
	// ReasonAggregation: the aggregation does not come apart exactly, so the
	// series of its argument are moved.
	ReasonAggregation Reason = "aggregation"
	// ReasonMatching: elements of different backends may match each other.
	// Partition labels in on() (or out of ignoring()) would help.
	ReasonMatching Reason = "matching"
	// ReasonParameter: a parameter depends on stored series.
	ReasonParameter Reason = "parameter"
	// ReasonPartitionLabel: the expression sets a partition label itself.
	ReasonPartitionLabel Reason = "partition_label"
	// ReasonUnsupported: a backend cannot be asked, because its answer could
	// not be given partition labels exactly.
	ReasonUnsupported Reason = "unsupported"
	// ReasonShared: what the expression reads is asked for by other queries
	// anyway, so it is made of their answers.
	ReasonShared Reason = "shared"
	// ReasonInlined: a scalar is worked out first, to be written as a number into
	// what is pushed down.
	ReasonInlined Reason = "inlined"
)

// Reasons are all reason codes, for metrics.
func Reasons() []Reason {
	return []Reason{
		ReasonRaw, ReasonOverlay, ReasonRawSelector, ReasonInfo, ReasonAggregation, ReasonMatching,
		ReasonParameter, ReasonPartitionLabel, ReasonUnsupported, ReasonShared, ReasonInlined,
	}
}

// Note says that an expression is not pushed down.
type Note struct {
	Reason Reason
	Expr   string
}

func (p *placer) note(r Reason, expr parser.Expr) {
	n := Note{Reason: r, Expr: expr.String()}
	if !slices.Contains(p.current.Notes, n) {
		p.current.Notes = append(p.current.Notes, n)
	}
}

// explain notes why an operation stays local if its operands could have been
// pushed down. Operations on what is merged anyway need no explanation.
func (p *placer) explain(expr parser.Expr) {
	switch e := expr.(type) {
	case *parser.AggregateExpr:
		switch {
		case p.param(e).reads:
			p.note(ReasonParameter, expr)
		case p.overwritesPartition(e):
			p.note(ReasonPartitionLabel, expr)
		case p.facts(e.Expr).separable:
			p.note(ReasonAggregation, expr)
		}
	case *parser.BinaryExpr:
		l, r := p.facts(e.LHS), p.facts(e.RHS)
		if e.VectorMatching != nil && l.separable && r.separable {
			p.note(ReasonMatching, expr)
		}
	case *parser.Call:
		p.explainCall(e)
	}
}

func (p *placer) explainCall(e *parser.Call) {
	f := p.arguments(e)
	switch e.Func.Name {
	case "label_replace", "label_join":
		if f.separable {
			p.note(ReasonPartitionLabel, e)
		}
	default:
		scalar := func(arg parser.Expr) bool {
			return arg.Type() == parser.ValueTypeScalar && p.facts(arg).reads
		}
		if len(e.Args) > 1 && slices.ContainsFunc(e.Args, scalar) {
			p.note(ReasonParameter, e)
		}
	}
}

// checkText makes sure that the text form of expr, which is what is sent and
// evaluated, means expr. The parser's printer does not quote label names in
// on(), ignoring() and group modifiers.
func checkText(expr parser.Expr) error {
	var err error
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		e, ok := n.(*parser.BinaryExpr)
		if !ok || e.VectorMatching == nil {
			return nil
		}
		for _, name := range slices.Concat(e.VectorMatching.MatchingLabels, e.VectorMatching.Include) {
			if !model.LegacyValidation.IsValidLabelName(name) {
				err = fmt.Errorf("label name %q in a matching modifier needs quoting, which PromQL's text form does not keep: use label_replace to rename it", name)
			}
		}
		return err
	})
	return err
}

// String is the stable text form: the queries in order with what is left to
// be evaluated locally and why, then scalars, sites and fragments.
func (p *Plan) String() string {
	var b strings.Builder
	for i, q := range p.Queries {
		q.write(&b, i)
	}
	for i, s := range p.Scalars {
		fmt.Fprintf(&b, "scalar %d: %s: %s\n", i, s.Name, s.Local)
	}
	for i, s := range p.Sites {
		fmt.Fprintf(&b, "site %d: fragments %v\n", i, s.Fragments)
	}
	for i, f := range p.Fragments {
		fmt.Fprintf(&b, "fragment %d: %s%s", i, p.Backends[f.Backend].Name, f.Window.suffix(p.Options.Window))
		if len(f.Scalars) > 0 {
			fmt.Fprintf(&b, " after scalars %v", f.Scalars)
		}
		fmt.Fprintf(&b, ": %s", f.Expr)
		if len(f.Consumers) > 1 {
			fmt.Fprintf(&b, " (shared by queries %v)", f.Consumers)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (q QueryPlan) write(b *strings.Builder, i int) {
	fmt.Fprintf(b, "query %d", i)
	if q.Name != "" {
		fmt.Fprintf(b, " %q", q.Name)
	}
	switch {
	case q.Err != nil:
		fmt.Fprintf(b, ": error: %s\n", q.Err)
	case q.Direct >= 0:
		fmt.Fprintf(b, ": site %d\n", q.Direct)
	default:
		fmt.Fprintf(b, ": %s\n", q.Local)
	}
	for _, n := range q.Notes {
		fmt.Fprintf(b, "  local, %s: %s\n", n.Reason, n.Expr)
	}
}

// suffix shows a window that differs from the batch's.
func (w Window) suffix(batch Window) string {
	if w == batch {
		return ""
	}
	return fmt.Sprintf(" [%d..%d step %d ms]", w.Start, w.End, w.Step)
}
