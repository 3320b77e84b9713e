package scan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// window is a range of time in milliseconds, both ends included.
type window struct{ mint, maxt int64 }

func (w window) contains(o window) bool { return w.mint <= o.mint && o.maxt <= w.maxt }

// need is a selector of a query.
type need struct {
	query    int
	matchers []*labels.Matcher
	window   window
	columns  bool
}

// plan finds the reads that are shared and who shares them.
func (b *Batch) plan(queries []Query) {
	needs := make(map[string][]need)
	for i, q := range queries {
		w := walk{query: q, add: func(vs *parser.VectorSelector, w window) {
			ms := sortMatchers(vs.LabelMatchers)
			k := keyOf(ms)
			needs[k] = append(needs[k], need{i, ms, w, q.Columns})
		}}
		if q.Expr != nil {
			w.walk(q.Expr, window{q.Start, q.End})
		}
	}
	b.entries = make(map[string][]*entry, len(needs))
	for k, ns := range needs {
		b.entries[k] = b.merge(k, ns)
	}
	b.users = make([][]*entry, len(queries))
	b.share()
}

// merge joins needs of the same matchers, whose key is given, if their windows
// overlap.
func (b *Batch) merge(key string, needs []need) []*entry {
	slices.SortStableFunc(needs, func(a, b need) int { return int(min(max(a.window.mint-b.window.mint, -1), 1)) })
	var entries []*entry
	for _, n := range needs {
		last := len(entries) - 1
		if last < 0 || n.window.mint > entries[last].window.maxt {
			last++
			entries = append(entries, newEntry(b, fmt.Sprintf("%s%d\xfe", key, last), n))
		}
		e := entries[last]
		e.columns = e.columns || n.columns
		e.window.maxt = max(e.window.maxt, n.window.maxt)
		e.queries = append(e.queries, n.query)
	}
	return entries
}

// share finds for every read a wider one that answers it, and drops those that
// have one user only, unless it wants columns.
func (b *Batch) share() {
	uses := make(map[*entry]int, len(b.entries))
	b.nest()
	for _, es := range b.entries {
		for _, e := range es {
			uses[e.root()] += len(e.queries)
			if e.columns {
				uses[e.root()]++
			}
		}
	}
	for k, es := range b.entries {
		es = slices.DeleteFunc(es, func(e *entry) bool { return uses[e.root()] < 2 })
		b.entries[k] = es
		for _, e := range es {
			b.addUsers(e.root(), e.queries)
		}
	}
}

// addUsers notes who shares a read.
func (b *Batch) addUsers(e *entry, queries []int) {
	for _, q := range queries {
		if !slices.Contains(b.users[q], e) {
			b.users[q] = append(b.users[q], e)
			e.refs.Add(1)
		}
	}
}

// find returns the read that covers a window.
func find(entries []*entry, w window) *entry {
	for _, e := range entries {
		if e.window.contains(w) {
			return e
		}
	}
	return nil
}

func sortMatchers(ms []*labels.Matcher) []*labels.Matcher {
	return slices.SortedFunc(slices.Values(ms), func(a, b *labels.Matcher) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if a.Type != b.Type {
			return int(a.Type) - int(b.Type)
		}
		return strings.Compare(a.Value, b.Value)
	})
}

// Key returns a text that equals that of other matchers if and only if they are
// the same in some order.
func Key(ms []*labels.Matcher) string { return keyOf(sortMatchers(ms)) }

// keyOf is Key for sorted matchers. No text inside a matcher is taken for a part
// of the next one, since all say how long they are.
func keyOf(ms []*labels.Matcher) string {
	var b []byte
	for _, m := range ms {
		b = strconv.AppendInt(append(b, byte('0'+m.Type)), int64(len(m.Name)), 10)
		b = strconv.AppendInt(append(b, ','), int64(len(m.Value)), 10)
		b = append(append(append(b, ':'), m.Name...), m.Value...)
	}
	return string(b)
}

// walk finds the selectors of a query and the windows in which they may read.
// Windows may be a little wider than what the engines ask for.
type walk struct {
	query Query
	add   func(*parser.VectorSelector, window)
}

func (w *walk) walk(n parser.Node, at window) {
	switch n := n.(type) {
	case *parser.SubqueryExpr:
		at = w.moved(at, n.Timestamp, n.StartOrEnd)
		at = shifted(at, n.OriginalOffset.Milliseconds(), n.Range.Milliseconds())
	case *parser.MatrixSelector:
		vs := n.VectorSelector.(*parser.VectorSelector)
		w.selector(vs, at, n.Range.Milliseconds())
		return
	case *parser.VectorSelector:
		w.selector(n, at, w.query.Lookback)
		return
	}
	for child := range parser.ChildrenIter(n) {
		w.walk(child, at)
	}
}

func (w *walk) selector(vs *parser.VectorSelector, at window, back int64) {
	at = w.moved(at, vs.Timestamp, vs.StartOrEnd)
	w.add(vs, shifted(at, vs.OriginalOffset.Milliseconds(), back))
}

// moved applies the @ modifier.
func (w *walk) moved(at window, timestamp *int64, startOrEnd parser.ItemType) window {
	switch {
	case timestamp != nil:
		return window{*timestamp, *timestamp}
	case startOrEnd == parser.START:
		return window{w.query.Start, w.query.Start}
	case startOrEnd == parser.END:
		return window{w.query.End, w.query.End}
	}
	return at
}

func shifted(at window, offset, back int64) window {
	return window{at.mint - offset - back, at.maxt - offset}
}
