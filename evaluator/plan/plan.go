// Package plan decides what of a batch of PromQL expressions runs where.
//
// It scopes expressions to a tenant, finds for every sub-expression the
// backends that hold its data, cuts out the fragments that a backend can
// answer exactly on its own, shares equal fragments over the whole batch, and
// keeps the rest for the local merge. The text form of a plan is stable.
//
// The rule behind every decision: the merged result has the same series, and
// the same values up to the order of float summation, as one Prometheus that
// holds the data of all backends. What cannot be pushed down under that rule
// stays local, with a reason code. One difference is known, and
// it is between an error and no result: Prometheus refuses a whole query when
// the elements of one operand of a join clash with each other, be it that no
// element of the other operand could match them. A backend where the other
// operand is empty, or which the planner therefore does not ask, lacks the
// error, and would have had no result.
//
// It is pure: it never reads a clock, does I/O, starts a goroutine or executes
// anything; package evaluator does. Inputs are never changed, and a finished
// Plan is immutable and safe for concurrent use. Its scripts are in testdata.
package plan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// SiteLabel is the label by which a local expression selects the merged
// result of a site: {__tocsin_site__="3"}. No expression may use it itself.
const SiteLabel = "__tocsin_site__"

// Query is one expression of a batch.
type Query struct {
	// Name says in texts and errors whose expression it is.
	Name string
	Expr parser.Expr
	// Scope are the labels that Scope put into every selector of Expr, if it
	// did. Queries that differ in the value of one of them may be folded.
	Scope labels.Labels
	// Folded means that the query is asked in place of those of several tenants.
	Folded bool
	// Limits bound what the query may cost.
	Limits Limits
	// Partial means that the answer may lack the data of backends that are
	// away, if others are there.
	Partial bool
}

// Options apply to a whole batch.
type Options struct {
	Window Window
	// SubqueryStep is the resolution of subqueries that name none.
	SubqueryStep time.Duration
	// Raw, if set, is the reason for which pushdown is turned off: every
	// selector is fetched and all is evaluated locally.
	Raw Reason
	// Alone makes every query ask for its own groupings, so that it does not
	// fail with what another one asks for.
	Alone bool
}

// Window is a range of evaluation times, in milliseconds since the epoch. It
// is an instant, at Start, if Step is 0.
type Window struct {
	Start, End, Step int64
}

// Fragment is what one backend is asked once.
type Fragment struct {
	// Backend is an index into the plan's Backends.
	Backend int
	// Expr is the PromQL text that the backend runs over Window, once the values
	// of Scalars, if it has any, are written into it: see With.
	Expr   string
	Window Window
	// Scalars are indexes into the plan's Scalars, ascending.
	Scalars []int
	// Summed marks one part of a sum over several backends. Such a part does
	// not show what a backend leaves out of a group that mixes floats and
	// native histograms; if its warnings speak of that, the query has to be
	// evaluated from raw series.
	Summed bool
	// Averaged marks a sum that is divided by a count. If it overflows, the
	// query has to be evaluated from raw series, where Prometheus does not sum.
	Averaged bool
	// Partitioned means that every series of the answer carries the partition
	// labels of the backend. If one does not, the backend is not what its
	// configuration says.
	Partitioned bool
	// Consumers are indexes of the queries that need the answer.
	Consumers []int
	// Limits bound what the fragment may cost.
	Limits Limits
	// tree is Expr, if it has scalars.
	tree parser.Expr
}

// Site is a place in local expressions that is filled with the union of the
// answers to some fragments, one a backend.
type Site struct {
	// Fragments are indexes into the plan's Fragments. A site without any is
	// empty.
	Fragments []int
	Window    Window
}

// QueryPlan says how one query of the batch is answered.
type QueryPlan struct {
	Name string
	// Local is what remains to be evaluated over sites and raw selectors.
	Local parser.Expr
	// Direct is the site whose content is the answer without evaluation, -1
	// if there is none.
	Direct int
	// Scalars that the query needs, Sites that Local or a scalar refers to, and the
	// fragments behind all of them, ascending.
	Scalars   []int
	Sites     []int
	Fragments []int
	// RolledUp means that part of the answer is made of what another query asks
	// for, a finer grouping or a part, which may fail where the query itself would
	// not.
	RolledUp bool
	// Notes say what is not pushed down and why.
	Notes []Note
	// Err says why the query cannot be planned at all.
	Err error
}

// Plan is the plan of a batch.
type Plan struct {
	Backends  []Backend
	Options   Options
	Queries   []QueryPlan
	Fragments []Fragment
	Sites     []Site
	Scalars   []Scalar
	// timed means that there are times in the plan that depend on the window.
	timed bool
}

// New plans a batch over backends that Validate accepts. Expressions are not
// changed. Faults of an expression are in the Err of its QueryPlan.
//
// If a query then asks a backend for a finer grouping of what another one asks
// for, or for a part of it, the batch is planned again with the coarser made of
// the finer and the whole of its parts.
func New(queries []Query, backends []Backend, opts Options) *Plan {
	p := newPlacer(backends, opts)
	p.asked = newAsks()
	p.batch(queries)
	if len(queries) == 1 || opts.Alone || !p.useful(p.asked) {
		return p.plan.limit(queries)
	}
	again := newPlacer(backends, opts)
	again.others = p.asked
	again.batch(queries)
	return again.plan.limit(queries)
}

// At returns the plan for the same batch at another instant. It is not ok if
// the batch has to be planned anew, since more than the instant would change.
func (p *Plan) At(w Window) (*Plan, bool) {
	if p.timed || p.Options.Window.Step != 0 || w.Step != 0 {
		return nil, false
	}
	c := *p
	c.Options.Window = w
	c.Fragments, c.Sites = slices.Clone(p.Fragments), slices.Clone(p.Sites)
	for i := range c.Fragments {
		c.Fragments[i].Window = w
	}
	for i := range c.Sites {
		c.Sites[i].Window = w
	}
	return &c, true
}

// Raw lists the backends that a selector left in a local expression has to be
// fetched from.
func (p *Plan) Raw(vs *parser.VectorSelector) []int { return holders(p.Backends, vs) }

// SiteOf tells which site a selector's matchers refer to.
func SiteOf(matchers []*labels.Matcher) (string, bool) { return valueOf(matchers, SiteLabel) }

func valueOf(matchers []*labels.Matcher, name string) (string, bool) {
	for _, m := range matchers {
		if m.Name == name {
			return m.Value, true
		}
	}
	return "", false
}

// Requests are the plan's fragments as they can be asked for: those of a list
// are at one backend and need, for their scalars, answers of the same others.
func (p *Plan) Requests() [][]int {
	type request struct {
		backend int
		after   string
	}
	var lists [][]int
	known := map[request]int{}
	for i, f := range p.Fragments {
		r := request{backend: f.Backend}
		if len(f.Scalars) > 0 {
			r.after = fmt.Sprint(p.before(f))
		}
		n, ok := known[r]
		if !ok {
			n = len(lists)
			known[r] = n
			lists = append(lists, nil)
		}
		lists[n] = append(lists[n], i)
	}
	return lists
}

// before are the backends that have to answer before a fragment can be asked
// for.
func (p *Plan) before(f Fragment) []int {
	var backends []int
	for _, s := range f.Scalars {
		for _, n := range p.Scalars[s].Fragments {
			backends = append(backends, p.Fragments[n].Backend)
		}
	}
	slices.Sort(backends)
	return slices.Compact(backends)
}

// NamesWindow tells whether an expression refers, by start() or end(), to the
// window that it is evaluated over.
func NamesWindow(expr parser.Expr) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch e := n.(type) {
		case *parser.VectorSelector:
			found = found || e.StartOrEnd != 0
		case *parser.SubqueryExpr:
			found = found || e.StartOrEnd != 0
		}
		return nil
	})
	return found
}

// normalise returns a copy of expr that means the same wherever it is
// evaluated: start() and end() and the default step of subqueries are filled
// in, which would differ between a fragment and the whole.
func normalise(expr parser.Expr, opts Options) (parser.Expr, error) {
	var walk func(parser.Expr) (parser.Expr, error)
	walk = func(e parser.Expr) (parser.Expr, error) {
		c, err := mapChildren(e, walk)
		if err != nil {
			return nil, err
		}
		switch n := c.(type) {
		case *parser.VectorSelector:
			for _, name := range []string{SiteLabel, ScalarLabel} {
				if _, reserved := valueOf(n.LabelMatchers, name); reserved {
					return nil, fmt.Errorf("selector %s: the label name %s is reserved", n, name)
				}
			}
			n.Timestamp, n.StartOrEnd = fixTime(n.Timestamp, n.StartOrEnd, opts.Window), 0
		case *parser.SubqueryExpr:
			n.Timestamp, n.StartOrEnd = fixTime(n.Timestamp, n.StartOrEnd, opts.Window), 0
			if n.StepExpr != nil || n.RangeExpr != nil || n.OriginalOffsetExpr != nil {
				return nil, errors.New("duration expressions are not supported")
			}
			if n.Step == 0 {
				n.Step = opts.SubqueryStep
			}
		}
		return c, nil
	}
	return walk(expr)
}

func fixTime(at *int64, startOrEnd parser.ItemType, w Window) *int64 {
	switch startOrEnd {
	case parser.START:
		return &w.Start
	case parser.END:
		return &w.End
	}
	return at
}

// subqueryWindow is the grid of times at which a subquery evaluates its
// expression when it is itself evaluated over w: multiples of the step, none
// if Start is after End.
func subqueryWindow(w Window, e *parser.SubqueryExpr) Window {
	start, end := w.Start, w.End
	if e.Timestamp != nil {
		start, end = *e.Timestamp, *e.Timestamp
	}
	offset, step := e.OriginalOffset.Milliseconds(), e.Step.Milliseconds()
	after := start - offset - e.Range.Milliseconds()
	first := step * (after / step)
	if first <= after {
		first += step
	}
	last := end - offset
	if last >= first {
		last -= (last - first) % step
	}
	return Window{Start: first, End: last, Step: step}
}
