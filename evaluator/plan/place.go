package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

type fragmentKey struct {
	backend     int
	expr        string
	window      Window
	partitioned bool
}

// placer builds a plan, query by query.
type placer struct {
	*scanner
	plan      *Plan
	fragments map[fragmentKey]int
	sites     map[string]int

	// Of the query in work.
	index   int
	current *QueryPlan
	partial bool
	// inlining is set below a scalar that is asked for first.
	inlining bool

	// others is what the queries ask for each by itself; asked, if set,
	// collects that.
	others *asks
	asked  *asks
	// composing is set below an expression that is made of what others ask for.
	composing bool
}

func newPlacer(backends []Backend, opts Options) *placer {
	return &placer{
		scanner:   newScanner(backends),
		plan:      &Plan{Backends: backends, Options: opts},
		fragments: map[fragmentKey]int{},
		sites:     map[string]int{},
	}
}

func (p *placer) batch(queries []Query) {
	for i, q := range queries {
		p.plan.Queries = append(p.plan.Queries, p.query(i, q))
	}
}

func (p *placer) query(index int, q Query) QueryPlan {
	p.index, p.current, p.partial = index, &QueryPlan{Name: q.Name, Direct: -1}, q.Partial
	p.plan.timed = p.plan.timed || NamesWindow(q.Expr)
	clear(p.known)
	expr, err := normalise(q.Expr, p.plan.Options)
	if err := errors.Join(err, checkText(q.Expr)); err != nil {
		p.current.Err = err
		return *p.current
	}
	if why := p.plan.Options.Raw; why != "" {
		p.current.Local = expr
		p.note(why, expr)
		return *p.current
	}
	p.root(expr)
	slices.Sort(p.current.Scalars)
	slices.Sort(p.current.Sites)
	p.current.Sites = slices.Compact(p.current.Sites)
	slices.Sort(p.current.Fragments)
	p.current.Fragments = slices.Compact(p.current.Fragments)
	return *p.current
}

func (p *placer) root(expr parser.Expr) {
	w := p.plan.Options.Window
	local, ok := p.pushed(expr, w)
	if !ok {
		local = p.place(expr, w)
	}
	p.current.Local = local
	if vs, ok := local.(*parser.VectorSelector); ok {
		if site, ok := SiteOf(vs.LabelMatchers); ok {
			p.current.Direct, _ = strconv.Atoi(site) // siteSelector wrote it.
		}
	}
}

// pushed is the answer to expr if all of it can be left to the backends.
func (p *placer) pushed(expr parser.Expr, w Window) (parser.Expr, bool) {
	f := p.facts(expr)
	if len(f.backends) == 0 || (len(f.backends) > 1 && !f.separable) {
		return nil, false
	}
	if composed, ok := p.compose(expr, w); ok {
		return composed, true
	}
	return p.answer(expr, f.backends, cut{window: w})
}

// place returns the local part of expr over w: expr with everything that the
// backends answer replaced by selectors of sites.
func (p *placer) place(expr parser.Expr, w Window) parser.Expr {
	if len(p.facts(expr).backends) == 0 {
		return expr
	}
	if t := expr.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeScalar {
		if local, ok := p.pushed(expr, w); ok {
			return ofType(local, t)
		}
	}
	return p.descend(expr, w)
}

// ofType turns the one label-less sample of a scalar's site back into a
// scalar.
func ofType(local parser.Expr, t parser.ValueType) parser.Expr {
	if t == parser.ValueTypeScalar && local.Type() == parser.ValueTypeVector {
		return &parser.Call{Func: parser.Functions["scalar"], Args: parser.Expressions{local}}
	}
	return local
}

// descend keeps the topmost operation local and places its operands.
func (p *placer) descend(expr parser.Expr, w Window) parser.Expr {
	if inlined, ok := p.inline(expr, w); ok {
		return inlined
	}
	switch e := expr.(type) {
	case *parser.VectorSelector, *parser.MatrixSelector:
		p.note(ReasonRawSelector, expr)
		return expr
	case *parser.SubqueryExpr:
		return p.children(expr, subqueryWindow(w, e))
	case *parser.AggregateExpr:
		if split, ok := p.split(e, w); ok {
			return split
		}
	case *parser.Call:
		if e.Func.Name == "info" {
			p.note(ReasonInfo, expr)
			return expr
		}
		if absent, ok := p.absent(e, w); ok {
			return absent
		}
	}
	p.explain(expr)
	return p.children(expr, w)
}

func (p *placer) children(expr parser.Expr, w Window) parser.Expr {
	placed, _ := mapChildren(expr, func(child parser.Expr) (parser.Expr, error) { return p.place(child, w), nil })
	return placed
}

// absent splits absent() over the backends: the union lacks series if every
// backend does. All parts have the labels that the selector implies.
func (p *placer) absent(e *parser.Call, w Window) (parser.Expr, bool) {
	if e.Func.Name != "absent" && e.Func.Name != "absent_over_time" {
		return nil, false
	}
	arg := p.facts(e.Args[0])
	if !arg.separable {
		return nil, false
	}
	var all parser.Expr
	for _, b := range arg.backends {
		site, ok := p.site(e, []int{b}, cut{window: w})
		if !ok {
			return nil, false
		}
		all = both(all, siteSelector(site))
	}
	return &parser.ParenExpr{Expr: all}, true
}

func both(l, r parser.Expr) parser.Expr {
	if l == nil {
		return r
	}
	return &parser.BinaryExpr{
		Op: parser.LAND, LHS: l, RHS: r,
		VectorMatching: &parser.VectorMatching{Card: parser.CardManyToMany},
	}
}

func siteSelector(site int) *parser.VectorSelector {
	m := labels.MustNewMatcher(labels.MatchEqual, SiteLabel, strconv.Itoa(site))
	return &parser.VectorSelector{LabelMatchers: []*labels.Matcher{m}}
}

// cut is how an expression is cut out of its query.
type cut struct {
	window Window
	// summed and averaged: see Fragment.
	summed, averaged bool
}

// site makes expr a fragment of each of the backends. It is not ok if one of
// them cannot run it; a note says why.
func (p *placer) site(expr parser.Expr, backends []int, c cut) (site int, ok bool) {
	expr = unwrap(expr)
	asked := make([]parser.Expr, len(backends))
	for i, b := range backends {
		var err error
		if asked[i], err = question(expr, p.backends[b]); err != nil {
			p.note(ReasonUnsupported, expr)
			return 0, false
		}
	}
	if c.window.Step > 0 && c.window.Start > c.window.End {
		backends = nil
	}
	partitioned := p.facts(expr).separable
	fragments := make([]int, len(backends))
	for i, b := range backends {
		fragments[i] = p.fragment(fragmentKey{b, asked[i].String(), c.window, partitioned}, asked[i], c)
	}
	return p.register(fragments, c.window), true
}

// question is what the backend is asked in order to answer expr.
func question(expr parser.Expr, b Backend) (parser.Expr, error) {
	if b.Virtual {
		return Virtualize(expr, b.Partition)
	}
	return expr, nil
}

func (p *placer) fragment(key fragmentKey, asked parser.Expr, c cut) int {
	i, known := p.fragments[key]
	if !known {
		i = len(p.plan.Fragments)
		p.fragments[key] = i
		p.plan.Fragments = append(p.plan.Fragments, Fragment{
			Backend: key.backend, Expr: key.expr, Window: key.window, Partitioned: key.partitioned,
		})
		if scalars := p.plan.scalarsIn(asked); len(scalars) > 0 {
			p.plan.Fragments[i].Scalars, p.plan.Fragments[i].tree = scalars, asked
		}
	}
	f := &p.plan.Fragments[i]
	f.Summed, f.Averaged = f.Summed || c.summed, f.Averaged || c.averaged
	if n := len(f.Consumers); n == 0 || f.Consumers[n-1] != p.index {
		f.Consumers = append(f.Consumers, p.index)
	}
	p.current.Fragments = append(p.current.Fragments, i)
	return i
}

func (p *placer) register(fragments []int, w Window) int {
	p.plan.timed = p.plan.timed || w != p.plan.Options.Window
	key := fmt.Sprint(fragments, w)
	i, known := p.sites[key]
	if !known {
		i = len(p.plan.Sites)
		p.sites[key] = i
		p.plan.Sites = append(p.plan.Sites, Site{Fragments: fragments, Window: w})
	}
	p.current.Sites = append(p.current.Sites, i)
	return i
}
