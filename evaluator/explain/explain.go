// Package explain shows what becomes of rules: which part of an expression
// runs at which backend, what stays local and why, which rules share a
// fragment, and on demand what each part costs.
//
// It shows the plan that package plan makes and decides nothing about it. A
// Report is a plain value with one shape in JSON and one as text; both are in
// testdata. Explain does no I/O; Analyze evaluates the rules, once.
package explain

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// Rule is an expression to explain.
type Rule struct {
	// Group is the key of the rule's group, empty if there is none.
	Group string
	// Name is that of the recorded series or of the alert.
	Name string
	// Type is recording, alerting or expression.
	Type string
	Expr parser.Expr
	// Scope are the labels that every selector of Expr is restricted to.
	Scope labels.Labels
	// Reads are the names of the rules of its group, which it may be one of,
	// whose samples it may read.
	Reads []string
	// Batch tells who is evaluated together: rules for which it is equal.
	Batch Batch
}

// Batch is what rules that are evaluated together have in common.
type Batch struct {
	// Slots names the slots; groups with other slots are evaluated at other
	// times.
	Slots string
	// Offset is how long before the slot the data is looked at.
	Offset time.Duration
	// Stage counts from 0: a stage is evaluated when all samples of the one
	// before it are written.
	Stage int
}

// Planner says how a batch is evaluated at ts.
type Planner interface {
	// Plan is about each query alone.
	Plan(ts time.Time, queries []plan.Query) *plan.Plan
	// Folding says which queries are evaluated as one.
	Folding(queries []plan.Query) *plan.Folding
}

// Report is what becomes of rules at one slot.
type Report struct {
	// Slot is the time that rules are evaluated for.
	Slot     time.Time `json:"slot"`
	Backends []Backend `json:"backends"`
	// Rules are in the order in which they were given.
	Rules []RuleReport `json:"rules"`
	// Fragments are what backends are asked, each once.
	Fragments []Fragment `json:"fragments"`
	// Unplanned is what an analysis did beyond the plan: answers that could
	// not be used are got in another way.
	Unplanned []Unplanned `json:"unplanned,omitempty"`
}

// Backend is one place where fragments run.
type Backend struct {
	Name            string            `json:"name"`
	PartitionLabels map[string]string `json:"partitionLabels"`
	Virtual         bool              `json:"virtual,omitempty"`
	// ReadDelaySeconds is the longest time after which a write is visible.
	ReadDelaySeconds float64 `json:"readDelaySeconds,omitempty"`
	// Cost sums up what an analysis asked of the backend.
	Cost *BackendCost `json:"cost,omitempty"`
}

// RuleReport is what becomes of one rule.
type RuleReport struct {
	Group string `json:"group,omitempty"`
	Name  string `json:"name"`
	Type  string `json:"type"`
	// Expr is the expression with the scope of the group enforced.
	Expr string `json:"expr"`
	// Stage counts from 1 within the group.
	Stage int `json:"stage"`
	// Error says why the rule cannot be planned; Tree is nil then.
	Error string `json:"error,omitempty"`
	Tree  *Node  `json:"tree,omitempty"`
	// Scalars are asked for before what they are written into.
	Scalars []Scalar `json:"scalars,omitempty"`
	Notes   []Note   `json:"notes,omitempty"`
	// Fold is set if the rule is evaluated as one with others, Apart if it
	// could be but for a reason.
	Fold  *Fold `json:"fold,omitempty"`
	Apart *Note `json:"apart,omitempty"`
	// Overlay is set if what the rule reads may not be visible yet.
	Overlay *Overlay `json:"overlay,omitempty"`
	// Result is there after an analysis.
	Result *Result `json:"result,omitempty"`
}

// Scalar is a part of an expression that is one number at the slot. Where it
// is needed its value stands for {__tocsin_scalar__="its expression"}.
type Scalar struct {
	Expr string `json:"expr"`
	Tree *Node  `json:"tree"`
}

// Note says why a part of an expression is not pushed down.
type Note struct {
	Reason  plan.Reason `json:"reason"`
	Meaning string      `json:"meaning"`
	Expr    string      `json:"expr"`
}

// The kinds of nodes.
const (
	// KindLocal is an operation of the rule-evaluator on its children. The
	// places of the children are marked "…" in its expression.
	KindLocal = "local"
	// KindUnion puts the answers of several backends together.
	KindUnion = "union"
	// KindFragment is what one backend evaluates.
	KindFragment = "fragment"
	// KindRaw is a selector whose series are fetched one by one.
	KindRaw = "raw"
)

// Node is a part of an expression.
type Node struct {
	Kind string `json:"kind"`
	// Expr is that of a local operation or of a raw selector.
	Expr string `json:"expr,omitempty"`
	// Fragment is an index into the report's Fragments.
	Fragment *int `json:"fragment,omitempty"`
	// Backends are those that raw series are fetched from.
	Backends []string `json:"backends,omitempty"`
	Children []*Node  `json:"children,omitempty"`
	// Cost is there after an analysis, for raw series.
	Cost *Cost `json:"cost,omitempty"`

	matchers string
}

// Fragment is what a backend is asked for one or more rules.
type Fragment struct {
	Backend string `json:"backend"`
	Expr    string `json:"expr"`
	// Grid is set if the fragment is evaluated at several times, for a
	// subquery.
	Grid *Grid `json:"grid,omitempty"`
	// Rules are indexes into the report's Rules.
	Rules []int `json:"rules"`
	// Others are the names of rules that need the fragment and are not in the
	// report.
	Others []string `json:"others,omitempty"`
	// Cost is there after an analysis.
	Cost *Cost `json:"cost,omitempty"`

	key fragmentKey
}

// Grid is a range of evaluation times.
type Grid struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	StepSeconds float64   `json:"stepSeconds"`
}

type fragmentKey struct {
	backend int
	expr    string
	window  plan.Window
}

// Explain plans rules for a slot, batch by batch as they are evaluated.
func Explain(planner Planner, slot time.Time, rules []Rule) *Report {
	b := builder{report: &Report{Slot: slot, Rules: make([]RuleReport, len(rules)), Fragments: []Fragment{}}}
	for _, members := range batches(rules) {
		b.batch(planner, slot, rules, members)
	}
	return b.report
}

// batches are the indexes of rules that are evaluated together, in the order
// of the first of each.
func batches(rules []Rule) [][]int {
	var lists [][]int
	known := map[Batch]int{}
	for i, r := range rules {
		n, ok := known[r.Batch]
		if !ok {
			n = len(lists)
			known[r.Batch] = n
			lists = append(lists, nil)
		}
		lists[n] = append(lists[n], i)
	}
	return lists
}

// queries are the rules of a batch as the evaluator takes them.
func queries(rules []Rule, members []int) []plan.Query {
	list := make([]plan.Query, len(members))
	for n, i := range members {
		list[n] = plan.Query{Name: rules[i].fullName(), Expr: rules[i].Expr, Scope: rules[i].Scope}
	}
	return list
}

func (r Rule) fullName() string {
	if r.Group == "" {
		return r.Name
	}
	return r.Group + "/" + r.Name
}

// builder fills a report, batch by batch.
type builder struct {
	report *Report

	// Of the batch in work: its plan, its rules as indexes into the report,
	// and the number of fragments before it.
	plan    *plan.Plan
	members []int
	first   int
}

func (b *builder) batch(planner Planner, slot time.Time, rules []Rule, members []int) {
	asked := queries(rules, members)
	b.plan = planner.Plan(slot.Add(-rules[members[0]].Batch.Offset), asked)
	b.members, b.first = members, len(b.report.Fragments)
	if b.report.Backends == nil {
		b.report.Backends = describe(b.plan.Backends)
	}
	for _, f := range b.plan.Fragments {
		b.report.Fragments = append(b.report.Fragments, b.fragment(f))
	}
	for n, i := range members {
		b.report.Rules[i] = b.rule(rules[i], b.plan.Queries[n])
	}
	b.folding(planner.Folding(asked))
}

func describe(backends []plan.Backend) []Backend {
	list := make([]Backend, len(backends))
	for i, p := range backends {
		list[i] = Backend{
			Name: p.Name, PartitionLabels: p.Partition.Map(), Virtual: p.Virtual, ReadDelaySeconds: p.ReadDelay.Seconds(),
		}
	}
	return list
}

func (b *builder) fragment(f plan.Fragment) Fragment {
	shown := Fragment{
		Backend: b.plan.Backends[f.Backend].Name,
		Expr:    f.Expr,
		key:     fragmentKey{f.Backend, f.Expr, f.Window},
	}
	if f.Window.Step != 0 {
		shown.Grid = &Grid{
			Start:       time.UnixMilli(f.Window.Start).UTC(),
			End:         time.UnixMilli(f.Window.End).UTC(),
			StepSeconds: float64(f.Window.Step) / 1000,
		}
	}
	for _, n := range f.Consumers {
		shown.Rules = append(shown.Rules, b.members[n])
	}
	slices.Sort(shown.Rules)
	return shown
}

func (b *builder) rule(r Rule, q plan.QueryPlan) RuleReport {
	shown := RuleReport{Group: r.Group, Name: r.Name, Type: r.Type, Expr: r.Expr.String(), Stage: r.Batch.Stage + 1}
	for _, n := range q.Notes {
		shown.Notes = append(shown.Notes, Note{Reason: n.Reason, Meaning: meanings[n.Reason], Expr: n.Expr})
	}
	switch {
	case q.Err != nil:
		shown.Error = q.Err.Error()
	default:
		shown.Tree = b.node(q.Local)
		shown.Overlay = b.overlay(r)
		for _, i := range q.Scalars {
			s := b.plan.Scalars[i]
			shown.Scalars = append(shown.Scalars, Scalar{Expr: s.Name, Tree: b.node(s.Local)})
		}
	}
	return shown
}

// site is the node of a place that fragments fill.
func (b *builder) site(site int) *Node {
	union := &Node{Kind: KindUnion}
	for _, f := range b.plan.Sites[site].Fragments {
		i := b.first + f
		union.Children = append(union.Children, &Node{Kind: KindFragment, Fragment: &i})
	}
	if len(union.Children) == 1 {
		return union.Children[0]
	}
	return union
}

// raw is the node of a selector that is left in a local expression.
func (b *builder) raw(vs *parser.VectorSelector, text string) *Node {
	n := &Node{Kind: KindRaw, Expr: text, matchers: matchersText(vs.LabelMatchers)}
	for _, i := range b.plan.Raw(vs) {
		n.Backends = append(n.Backends, b.plan.Backends[i].Name)
	}
	return n
}

// matchersText identifies a selector by what it selects.
func matchersText(matchers []*labels.Matcher) string {
	texts := make([]string, len(matchers))
	for i, m := range matchers {
		texts[i] = m.String()
	}
	slices.Sort(texts)
	return "{" + joined(texts) + "}"
}
