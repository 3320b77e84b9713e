package ruler

import (
	"context"
	"fmt"
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
	history   storage.Queryable
	home      labels.Labels
	backfill  time.Duration
	tolerance alert.Tolerance
	resend    time.Duration
}

// traces are the newest samples that groups of one scope left.
type traces struct {
	committed map[string]time.Time // by group key
	forState  []promql.Sample
	firing    []promql.Sample
}

// recover fills in the alerts of the groups and returns how far each had come,
// parallel to groups. Groups of one scope are read together.
func (r *recoverer) recover(ctx context.Context, groups []*group, now time.Time) ([]schedule.Progress, error) {
	progress := make([]schedule.Progress, len(groups))
	known := map[string]traces{}
	for i, g := range groups {
		scope := g.def.Scope
		t, ok := known[scope.String()]
		if !ok {
			var err error
			if t, err = r.read(ctx, scope, now); err != nil {
				return nil, fmt.Errorf("recover groups of scope %s: %w", scope, err)
			}
			known[scope.String()] = t
		}
		committed, ok := t.committed[g.def.Key]
		if !ok {
			committed = t.lastSlot(g.def, now)
		}
		progress[i] = schedule.Progress{Committed: committed}
		r.alerts(g, t, progress[i].Committed, now)
	}
	return progress, nil
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
		state := alert.Restore(ar, next, alert.Evidence{
			ForState: matching(t.forState, forState.LabelMatchers),
			Firing:   matching(t.firing, firing.LabelMatchers),
			LastSlot: committed,
		}, r.tolerance)
		g.update(i, func(s *ruleState) { s.setAlerts(state) })
	}
}

func (r *recoverer) read(ctx context.Context, scope labels.Labels, now time.Time) (traces, error) {
	t := traces{committed: map[string]time.Time{}}
	span := max(r.backfill, r.tolerance.Outage)
	q, err := r.history.Querier(now.Add(-span).UnixMilli(), now.UnixMilli())
	if err != nil {
		return t, err
	}
	defer q.Close()
	b := labels.NewBuilder(r.home)
	scope.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	markers, err := newest(ctx, q, b.Set(labels.MetricName, committedMetric).Labels())
	if err != nil {
		return t, err
	}
	for _, s := range markers {
		t.committed[s.Metric.Get(groupLabel)] = time.Unix(int64(s.F), 0).UTC()
	}
	b.Reset(scope)
	if t.forState, err = newest(ctx, q, b.Set(labels.MetricName, "ALERTS_FOR_STATE").Labels()); err != nil {
		return t, err
	}
	b.Set(labels.MetricName, "ALERTS").Set("alertstate", alert.Firing.String())
	t.firing, err = newest(ctx, q, b.Labels())
	return t, err
}

// newest reads the newest raw sample of each series that carries the labels,
// a staleness marker if that is it.
func newest(ctx context.Context, q storage.Querier, match labels.Labels) ([]promql.Sample, error) {
	var matchers []*labels.Matcher
	match.Range(func(l labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
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
