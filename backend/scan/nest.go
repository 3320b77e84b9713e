package scan

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// maxWider bounds how many reads of a metric are looked at as the wider one of
// another read.
const maxWider = 8

// seriesCost is what it costs to find a series and begin to read it, as the
// time in milliseconds whose samples cost the same: some 200, at intervals of
// half a minute.
const seriesCost = 200 * 30_000

// nest gives reads that another one holds all series of to that one. Only reads
// with the same matchers of the name are compared: none should be of all
// metrics because a rule somewhere is.
func (b *Batch) nest() {
	metrics := make(map[string][]*entry)
	for _, es := range b.entries {
		for _, e := range es {
			name := keyOf(slices.DeleteFunc(slices.Clone(e.matchers), func(m *labels.Matcher) bool { return m.Name != labels.MetricName }))
			metrics[name] = append(metrics[name], e)
		}
	}
	for _, es := range metrics {
		slices.SortFunc(es, func(x, y *entry) int {
			return cmp.Or(cmp.Compare(len(x.matchers), len(y.matchers)), cmp.Compare(y.size(), x.size()), cmp.Compare(x.key, y.key))
		})
		var wide []*entry
		for _, e := range es {
			if i := slices.IndexFunc(wide, e.joins); i >= 0 {
				e.wider = wide[i]
				e.wider.window = e.wider.window.with(e.window)
			} else if len(wide) < maxWider {
				wide = append(wide, e)
			}
		}
	}
}

// size is how many series a read had the last time, or 0 if that is not known.
func (e *entry) size() int64 {
	if s := e.batch.scanner.shapes.Get(e.key).shape; s != nil {
		return int64(len(s.Labels))
	}
	return 0
}

// joins tells whether a wider read has all series of e and it costs less to
// read them there than once more. To reach further for them must be known to.
func (e *entry) joins(wider *entry) bool {
	for _, m := range wider.matchers {
		if !slices.ContainsFunc(e.matchers, func(own *labels.Matcher) bool { return implies(own, m) }) {
			return false
		}
	}
	if wider.window.contains(e.window) {
		return true
	}
	more := wider.window.with(e.window).length() - wider.window.length()
	size := wider.size()
	return size > 0 && wider.window.overlaps(e.window) && size*more < e.size()*(seriesCost+e.window.length())
}

// implies tells whether all values that m matches are values that other
// matches, as far as that is easy to say.
func implies(m, other *labels.Matcher) bool {
	switch {
	case m.Name != other.Name:
		return false
	case same(m, other):
		return true
	case m.Type == labels.MatchEqual:
		return other.Matches(m.Value)
	case m.Type == labels.MatchRegexp:
		values := m.SetMatches()
		return len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return !other.Matches(v) })
	}
	return false
}

func same(m, other *labels.Matcher) bool {
	return m.Name == other.Name && m.Type == other.Type && m.Value == other.Value
}

func (w window) length() int64          { return w.maxt - w.mint }
func (w window) overlaps(o window) bool { return w.mint <= o.maxt && o.mint <= w.maxt }
func (w window) with(o window) window   { return window{min(w.mint, o.mint), max(w.maxt, o.maxt)} }
