package plan

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Bounds of one fold. With fewer than 256 values Prometheus looks them up in
// its index one by one instead of matching every value of the label.
const (
	MaxFoldValues      = 200
	MaxFoldRegexpBytes = 16 << 10
	// maxFoldConstants bounds the elements that are written out for parts that
	// read nothing.
	maxFoldConstants = 1000
)

// Fold is a set of queries that differ only in the value of one scope label,
// evaluated as one query over all the values. Its answer is the union of
// theirs, each with the label.
type Fold struct {
	// Query stands for all members.
	Query Query
	Label string
	// Added means that the members' own results lack the label.
	Added bool
	// Template is what the members have in common. It identifies the fold from
	// batch to batch.
	Template string
	// Members are in the order of their values.
	Members []Member
}

// Member is a query in a fold.
type Member struct {
	// Query is an index into the batch.
	Query int
	Value string
}

// FoldNote says why queries that differ only in a scope label are not folded.
type FoldNote struct {
	Note
	Queries []int
}

// Folding is a batch after folding.
type Folding struct {
	Folds []Fold
	// Rest are the indexes of the queries in no fold, ascending.
	Rest  []int
	Notes []FoldNote
}

// NewFolding folds what can be folded exactly: what the scanner proves for
// partition labels and backends holds for a scope label and its values, since
// every selector carries it. Partition labels are not folded over: their values
// are at different backends.
func NewFolding(queries []Query, backends []Backend) *Folding {
	f := &batchFolder{queries: queries, folding: &Folding{}, folded: make([]bool, len(queries))}
	for _, label := range foldLabels(queries, labelNames(backends[0].Partition)) {
		for _, group := range f.groups(label) {
			f.fold(group)
		}
	}
	for i, done := range f.folded {
		if !done {
			f.folding.Rest = append(f.folding.Rest, i)
		}
	}
	return f.folding
}

// Without returns a folding that leaves the members of some folds alone.
func (f *Folding) Without(paused func(template string) bool) *Folding {
	if !slices.ContainsFunc(f.Folds, func(fold Fold) bool { return paused(fold.Template) }) {
		return f
	}
	c := &Folding{Rest: slices.Clone(f.Rest), Notes: slices.Clone(f.Notes)}
	for _, fold := range f.Folds {
		if !paused(fold.Template) {
			c.Folds = append(c.Folds, fold)
			continue
		}
		note := newFoldNote(fold.Members, Note{ReasonFailed, fold.Query.Expr.String()})
		c.Notes, c.Rest = append(c.Notes, note), append(c.Rest, note.Queries...)
	}
	slices.Sort(c.Rest)
	return c
}

// foldLabels are the scope labels with more than one value, that with the most
// values first.
func foldLabels(queries []Query, partition []string) []string {
	values := map[string]map[string]bool{}
	for _, q := range queries {
		q.Scope.Range(func(l labels.Label) {
			if values[l.Name] == nil {
				values[l.Name] = map[string]bool{}
			}
			values[l.Name][l.Value] = true
		})
	}
	var names []string
	for name, set := range values {
		if len(set) > 1 && !slices.Contains(partition, name) && name != labels.MetricName && name != labels.BucketLabel {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(len(values[b])-len(values[a]), strings.Compare(a, b))
	})
	return names
}

type batchFolder struct {
	queries []Query
	folding *Folding
	folded  []bool
}

// foldGroup are queries with the same template.
type foldGroup struct {
	label, template string
	members         []Member
}

// groups are the sets of queries, in the order of their first, that differ
// only in the value of label. They have the same limits, since a fold that keeps
// what one of its members has to keep proves that each of them would, and are
// all content with a part of the data or all not.
func (f *batchFolder) groups(label string) []foldGroup {
	var groups []foldGroup
	type key struct {
		template string
		limits   Limits
		partial  bool
	}
	known := map[key]int{}
	for i, q := range f.queries {
		value := q.Scope.Get(label)
		if f.folded[i] || value == "" {
			continue
		}
		k := key{template(q.Expr, label, value), q.Limits, q.Partial}
		g, ok := known[k]
		if !ok {
			g = len(groups)
			known[k] = g
			groups = append(groups, foldGroup{label: label, template: k.template})
		}
		groups[g].members = append(groups[g].members, Member{i, value})
	}
	for _, g := range groups {
		slices.SortStableFunc(g.members, func(a, b Member) int { return strings.Compare(a.Value, b.Value) })
	}
	return slices.DeleteFunc(groups, func(g foldGroup) bool { return len(values(g.members)) < 2 })
}

// template is the text of expr without the value that its selectors are pinned
// to. What stands for it is no text, and so in no expression.
func template(expr parser.Expr, label, value string) string {
	mark := labels.MustNewMatcher(labels.MatchEqual, label, "\xff")
	var walk func(parser.Expr) (parser.Expr, error)
	walk = func(e parser.Expr) (parser.Expr, error) {
		if vs, ok := e.(*parser.VectorSelector); ok {
			return repin(vs, label, value, mark), nil
		}
		return mapChildren(e, walk)
	}
	t, _ := walk(expr) // walk has no errors.
	return t.String()
}

// repin replaces the matchers that pin a selector to the label's value.
func repin(vs *parser.VectorSelector, label, value string, by *labels.Matcher) *parser.VectorSelector {
	c := copySelector(vs)
	for i, m := range c.LabelMatchers {
		if pins(m, label, value) {
			c.LabelMatchers[i] = by
		}
	}
	return c
}

func pins(m *labels.Matcher, label, value string) bool {
	return m.Name == label && m.Type == labels.MatchEqual && m.Value == value
}

// values are the distinct values of members in their order.
func values(members []Member) []string {
	var list []string
	for _, m := range members {
		if len(list) == 0 || list[len(list)-1] != m.Value {
			list = append(list, m.Value)
		}
	}
	return list
}

func (f *batchFolder) fold(g foldGroup) {
	for len(g.members) > 0 {
		n := chunk(g.members)
		part := g.members[:n]
		g.members = g.members[n:]
		if len(values(part)) < 2 {
			continue
		}
		fold, err := f.one(foldGroup{g.label, g.template, part})
		var refused *refusal
		if errors.As(err, &refused) {
			f.folding.Notes = append(f.folding.Notes, newFoldNote(slices.Concat(part, g.members), refused.Note))
			return
		}
		f.folding.Folds = append(f.folding.Folds, fold)
		for _, m := range part {
			f.folded[m.Query] = true
		}
	}
}

// chunk is how many of the members go into the next fold.
func chunk(members []Member) int {
	n, bytes, last := 0, 0, ""
	for i, m := range members {
		if i == 0 || m.Value != last {
			n, bytes, last = n+1, bytes+len(regexp.QuoteMeta(m.Value))+1, m.Value
		}
		if i > 0 && (n > MaxFoldValues || bytes > MaxFoldRegexpBytes) {
			return i
		}
	}
	return len(members)
}

func (f *batchFolder) one(g foldGroup) (Fold, error) {
	first := f.queries[g.members[0].Query]
	list := values(g.members)
	alternatives := make([]string, len(list))
	for i, v := range list {
		alternatives[i] = regexp.QuoteMeta(v)
	}
	matcher, err := labels.NewMatcher(labels.MatchRegexp, g.label, strings.Join(alternatives, "|"))
	if err != nil {
		return Fold{}, &refusal{Note{ReasonSelector, first.Expr.String()}}
	}
	folder := &folder{label: g.label, value: g.members[0].Value, values: list, matcher: matcher}
	expr, carried, err := folder.rewrite(first.Expr)
	if err != nil {
		return Fold{}, err
	}
	if carried == constant {
		return Fold{}, &refusal{Note{ReasonConstant, first.Expr.String()}}
	}
	name := fmt.Sprintf("%s and %d more", first.Name, len(g.members)-1)
	return Fold{
		Query: Query{Name: name, Expr: expr, Folded: true, Limits: first.Limits, Partial: first.Partial}, Label: g.label, Added: carried == added,
		Template: g.template, Members: g.members,
	}, nil
}

func newFoldNote(members []Member, n Note) FoldNote {
	note := FoldNote{Note: n}
	for _, m := range members {
		note.Queries = append(note.Queries, m.Query)
	}
	slices.Sort(note.Queries)
	return note
}

// String is the stable text form.
func (f *Folding) String() string {
	var b strings.Builder
	for i, fold := range f.Folds {
		fmt.Fprintf(&b, "fold %d by %s", i, fold.Label)
		if fold.Added {
			b.WriteString(" (added)")
		}
		fmt.Fprintf(&b, ": %s\n ", fold.Query.Expr)
		for _, m := range fold.Members {
			fmt.Fprintf(&b, " %q: query %d", m.Value, m.Query)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "not folded: queries %v\n", f.Rest)
	for _, n := range f.Notes {
		fmt.Fprintf(&b, "  %s, queries %v: %s\n", n.Reason, n.Queries, n.Expr)
	}
	return b.String()
}
