package ruler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

const (
	// namesPerRead is how many recorded names one read asks for.
	namesPerRead = 100
	// maxPrevious bounds the series that are looked for at one slot of one scope.
	maxPrevious = 1_000_000
)

// previous are the rules of one scope whose last slot was at one time: what
// they recorded then is read together.
type previous struct {
	scope labels.Labels
	at    int64               // milliseconds
	rules map[string][]ruleOf // by what they record
}

// ruleOf is a rule of a group.
type ruleOf struct {
	*group
	rule int
}

// previous fills in the series that recording rules recorded at the last slot of
// their groups, parallel to committed, so that the ends of those which are not
// there any more are marked. A series that several rules may have recorded is
// left out: it is marked by none rather than by the wrong one.
func (r *recoverer) previous(ctx context.Context, groups []*group, committed []time.Time) error {
	var errs []error
	for _, p := range lastSlots(groups, committed) {
		if err := r.readPrevious(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("scope %s: %w", p.scope, err))
		}
	}
	return errors.Join(errs...)
}

func lastSlots(groups []*group, committed []time.Time) []*previous {
	var all []*previous
	known := map[string]*previous{}
	for i, g := range groups {
		if committed[i].IsZero() {
			continue
		}
		at := committed[i].Add(-g.def.QueryOffset).UnixMilli()
		key := fmt.Sprint(at, g.def.Scope)
		p, ok := known[key]
		if !ok {
			p = &previous{scope: g.def.Scope, at: at, rules: map[string][]ruleOf{}}
			known[key] = p
			all = append(all, p)
		}
		for n, def := range g.def.Rules {
			if def.Record != "" {
				p.rules[def.Record] = append(p.rules[def.Record], ruleOf{g, n})
			}
		}
	}
	return all
}

func (r *recoverer) readPrevious(ctx context.Context, p *previous) error {
	q, err := r.history.Querier(p.at, p.at)
	if err != nil {
		return err
	}
	defer q.Close()
	found := map[ruleOf][]labels.Labels{}
	left := maxPrevious
	for _, place := range within(r.partitions, p.scope) {
		for names := range slices.Chunk(slices.Sorted(maps.Keys(p.rules)), namesPerRead) {
			series, err := seriesAt(ctx, q, p.at, left, place, names)
			if err != nil {
				return err
			}
			left -= len(series)
			for _, lset := range series {
				if by, ok := p.recordedBy(lset); ok {
					found[by] = append(found[by], lset)
				}
			}
		}
	}
	for by, series := range found {
		by.update(by.rule, func(s *ruleState) { s.setSeries(series) })
	}
	return nil
}

// recordedBy is the only rule that can have recorded the series.
func (p *previous) recordedBy(series labels.Labels) (by ruleOf, ok bool) {
	for _, r := range p.rules[series.Get(labels.MetricName)] {
		if !carries(series, r.group.def.Rules[r.rule].Labels) {
			continue
		}
		if ok {
			return ruleOf{}, false
		}
		by, ok = r, true
	}
	return by, ok
}

func carries(series, lset labels.Labels) bool {
	all := true
	lset.Range(func(l labels.Label) { all = all && series.Get(l.Name) == l.Value })
	return all
}

// seriesAt reads which series of some names have a sample at a time, in
// milliseconds, that is no staleness marker; at most limit of them.
func seriesAt(ctx context.Context, q storage.Querier, at int64, limit int, place labels.Labels, names []string) ([]labels.Labels, error) {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, strings.Join(quoted, "|"))}
	place.Range(func(l labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	var found []labels.Labels
	var it chunkenc.Iterator
	set := q.Select(ctx, false, nil, matchers...)
	for set.Next() {
		it = set.At().Iterator(it)
		kind := it.Seek(at)
		if kind == chunkenc.ValNone || it.AtT() != at {
			continue
		}
		if kind == chunkenc.ValFloat {
			if _, v := it.At(); value.IsStaleNaN(v) {
				continue
			}
		}
		if len(found) == limit {
			return nil, fmt.Errorf("there are more than %d series at the last slot", maxPrevious)
		}
		found = append(found, set.At().Labels())
	}
	return found, set.Err()
}

// previousAlerts are the series that an alerting rule recorded at a slot, of
// whose alerts forState and firing are the newest samples.
func previousAlerts(forState, firing []promql.Sample, at int64) []labels.Labels {
	fired := map[string]bool{}
	for _, s := range firing {
		if s.T == at && !value.IsStaleNaN(s.F) {
			fired[string(s.Metric.Bytes(nil))] = true
		}
	}
	var series []labels.Labels
	for _, s := range forState {
		if s.T != at || value.IsStaleNaN(s.F) {
			continue
		}
		b := labels.NewBuilder(s.Metric).Set(labels.MetricName, "ALERTS").Set("alertstate", alert.Firing.String())
		if !fired[string(b.Labels().Bytes(nil))] {
			b.Set("alertstate", alert.Pending.String())
		}
		series = append(series, s.Metric, b.Labels())
	}
	return series
}
