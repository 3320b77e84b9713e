package ruler

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
)

// recoverer rebuilds what nobody hands over out of what the backends hold:
// how far a group had come, and its alerts.
type recoverer struct {
	history storage.Queryable
	// partitions are those of the backends; each is read for itself, so that
	// one that does not answer concerns only groups that it holds traces of.
	partitions []labels.Labels
	backfill   time.Duration
	tolerance  alert.Tolerance
	resend     time.Duration
}

// traces are the newest samples that groups of one scope left.
type traces struct {
	committed map[string]time.Time // by group key
	forState  []promql.Sample
	firing    []promql.Sample
	// err is of the partitions that could not be read, which are all or some.
	err error
	all bool
}

// recover fills in the alerts of the groups and returns how far each had come,
// and the traces that say so, parallel to groups. Groups of one scope are read
// together.
func (r *recoverer) recover(ctx context.Context, groups []*group, now time.Time) ([]schedule.Progress, []traces) {
	progress, found := make([]schedule.Progress, len(groups)), make([]traces, len(groups))
	known := map[string]traces{}
	for i, g := range groups {
		scope := g.def.Scope.String()
		t, ok := known[scope]
		if !ok {
			t = r.read(ctx, g.def.Scope, now)
			known[scope] = t
		}
		committed, ok := t.committed[g.def.Key]
		if !ok {
			committed = t.lastSlot(g.def, now)
		}
		found[i], progress[i] = t, schedule.Progress{Committed: committed}
		r.alerts(g, t, progress[i].Committed, now)
	}
	return progress, found
}

// moving is how many slots ago the alerts of a group may have been recorded
// under another key to be taken for its own.
const moving = 3

// lastSlot is the newest slot that the group's alerts were recorded for just
// now: its rules were in a group with another key. Zero if they were in none.
func (t traces) lastSlot(def rule.Group, now time.Time) (last time.Time) {
	offset := schedule.Offset(def.Phase(), def.Interval)
	oldest := now.Add(-moving * def.Interval)
	for _, r := range def.Rules {
		if r.Alert == "" {
			continue
		}
		forState, _ := alertRule(def, r, 0).EvidenceSelectors()
		for _, s := range matching(t.forState, forState.LabelMatchers) {
			slot := time.UnixMilli(s.T).Add(def.QueryOffset).UTC()
			if slot.After(oldest) && slot.After(last) && schedule.Slot(slot, def.Interval, offset).Equal(slot) {
				last = slot
			}
		}
	}
	return last
}

// alerts restores the alerts of a group for its next slot.
func (r *recoverer) alerts(g *group, t traces, committed, now time.Time) {
	next := committed.Add(g.def.Interval)
	if committed.IsZero() {
		next = schedule.Slot(now, g.def.Interval, schedule.Offset(g.def.Phase(), g.def.Interval))
	}
	for i, def := range g.def.Rules {
		if def.Alert == "" {
			continue
		}
		ar := alertRule(g.def, def, r.resend)
		forState, firing := ar.EvidenceSelectors()
		found := alert.Evidence{
			ForState: matching(t.forState, forState.LabelMatchers),
			Firing:   matching(t.firing, firing.LabelMatchers),
			LastSlot: committed,
		}
		at := committed.Add(-g.def.QueryOffset).UnixMilli()
		g.update(i, func(s *ruleState) {
			s.setAlerts(alert.Restore(ar, next, found, r.tolerance))
			s.setSeries(previousAlerts(found.ForState, found.Firing, at))
		})
	}
}

// read gathers the traces from all partitions that may hold series of the scope.
func (r *recoverer) read(ctx context.Context, scope labels.Labels, now time.Time) traces {
	t := traces{committed: map[string]time.Time{}}
	var errs []error
	places := within(r.partitions, scope)
	for _, place := range places {
		if err := r.readFrom(ctx, place, now, &t); err != nil {
			errs = append(errs, err)
		}
	}
	t.err, t.all = errors.Join(errs...), len(errs) > 0 && len(errs) == len(places)
	return t
}

// within returns the scope narrowed to each partition that may hold series of
// it. Labels that the series of a partition lack have an empty value.
func within(partitions []labels.Labels, scope labels.Labels) []labels.Labels {
	if len(partitions) == 0 {
		return []labels.Labels{scope}
	}
	var places []labels.Labels
	for _, p := range partitions {
		b, fits := labels.NewScratchBuilder(0), true
		p.Range(func(l labels.Label) {
			fits = fits && (!scope.Has(l.Name) || scope.Get(l.Name) == l.Value)
			if !scope.Has(l.Name) {
				b.Add(l.Name, l.Value)
			}
		})
		if fits {
			scope.Range(func(l labels.Label) { b.Add(l.Name, l.Value) })
			places = append(places, b.Labels())
		}
	}
	return places
}

// readFrom adds the traces that are in one place.
func (r *recoverer) readFrom(ctx context.Context, place labels.Labels, now time.Time, t *traces) error {
	span := max(r.backfill, r.tolerance.Outage)
	q, err := r.history.Querier(now.Add(-span).UnixMilli(), now.UnixMilli())
	if err != nil {
		return err
	}
	defer q.Close()
	markers, err := newest(ctx, q, place, labels.MetricName, committedMetric)
	if err != nil {
		return err
	}
	forState, err := newest(ctx, q, place, labels.MetricName, "ALERTS_FOR_STATE")
	if err != nil {
		return err
	}
	firing, err := newest(ctx, q, place, labels.MetricName, "ALERTS", "alertstate", alert.Firing.String())
	if err != nil {
		return err
	}
	for _, s := range markers {
		t.committed[s.Metric.Get(groupLabel)] = time.Unix(int64(s.F), 0).UTC()
	}
	t.forState, t.firing = append(t.forState, forState...), append(t.firing, firing...)
	return nil
}

// newest reads the newest raw sample of each series that carries the labels of a
// place and those given as pairs, a staleness marker if that is it.
func newest(ctx context.Context, q storage.Querier, place labels.Labels, pairs ...string) ([]promql.Sample, error) {
	var matchers []*labels.Matcher
	match := func(l labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	}
	place.Range(match)
	for i := 0; i < len(pairs); i += 2 {
		match(labels.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	var samples []promql.Sample
	var it chunkenc.Iterator
	set := q.Select(ctx, false, nil, matchers...)
	for set.Next() {
		series := set.At()
		it = series.Iterator(it)
		last := promql.Sample{Metric: series.Labels()}
		found := false
		for it.Next() == chunkenc.ValFloat {
			last.T, last.F = it.At()
			found = true
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		if found {
			samples = append(samples, last)
		}
	}
	return samples, set.Err()
}

func matching(samples []promql.Sample, matchers []*labels.Matcher) []promql.Sample {
	var found []promql.Sample
	for _, s := range samples {
		if matchesAll(s.Metric, matchers) {
			found = append(found, s)
		}
	}
	return found
}

func matchesAll(lset labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}
