package alert

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
)

// Evidence is what a backend still knows of a rule's alerts. Both lists hold the
// newest raw sample of each series, with its own time; where the backend shows
// staleness markers, the marker if that is the newest.
type Evidence struct {
	// ForState are samples of the rule's ALERTS_FOR_STATE.
	ForState []promql.Sample
	// Firing are samples of its ALERTS that were firing.
	Firing []promql.Sample
	// LastSlot is the newest slot that the rule is known to have been evaluated
	// for; zero if nobody knows. Alerts that have no sample of the last slot
	// had ended, whether the backend shows staleness markers or not.
	LastSlot time.Time
}

// Tolerance says how Restore treats the time that nobody evaluated the rule.
type Tolerance struct {
	// Outage is how old a sample may be.
	Outage time.Duration
	// ForGracePeriod is how long an alert that was pending before an outage
	// waits at least before it fires. Alerts of rules whose For is shorter
	// start anew.
	ForGracePeriod time.Duration
}

// Restore rebuilds the state of a rule from the backend when nobody has handed
// it over. It is called before the rule is stepped to slot.
//
// Alerts that fired go on firing: if their condition still holds, no for is
// waited out again, and if it does not, their resolution is sent, without
// annotations. If no slot was lost, pending alerts go on where they were.
// Otherwise they are treated as in Prometheus: the outage does not count as
// time spent pending, and the grace period applies.
func Restore(rule Rule, slot time.Time, found Evidence, tolerance Tolerance) State {
	r := restorer{rule: rule, slot: slot, tolerance: tolerance, last: lastSlot(rule, found)}
	firing := firingSeries(found)
	var alerts []Alert
	for _, sample := range found.ForState {
		downAt := r.slotOf(sample)
		if ended(sample) || downAt.Before(r.last) || slot.Sub(downAt) > tolerance.Outage {
			continue
		}
		a := Alert{
			Labels:   alertLabels(rule, sample.Metric),
			Status:   Firing,
			ActiveAt: time.Unix(int64(sample.F), 0).UTC(),
		}
		if firing[seriesKey(statusSeries(rule, a), sample.T)] {
			a.FiredAt = earliest(a.ActiveAt.Add(rule.For), downAt)
			alerts = append(alerts, a)
			continue
		}
		a.Status = Pending
		if activeAt, ok := r.pendingSince(a.ActiveAt, downAt); ok {
			a.ActiveAt = activeAt
			alerts = append(alerts, a)
		}
	}
	sortAlerts(alerts)
	return State{alerts: slices.CompactFunc(alerts, func(a, b Alert) bool { return labels.Equal(a.Labels, b.Labels) })}
}

// maxSkew, in milliseconds, is how much later than its sample the value of
// ALERTS_FOR_STATE may be: no more than any query offset.
const maxSkew = 24 * 60 * 60 * 1000

type restorer struct {
	rule      Rule
	slot      time.Time
	last      time.Time
	tolerance Tolerance
}

func (r restorer) slotOf(sample promql.Sample) time.Time {
	return timestamp.Time(sample.T).Add(r.rule.QueryOffset).UTC()
}

// pendingSince returns the time from which a pending alert counts, or false if
// it has to start anew.
func (r restorer) pendingSince(activeAt, downAt time.Time) (time.Time, bool) {
	// Samples have whole milliseconds, slots need not.
	lost := r.slot.Truncate(time.Millisecond).Sub(downAt) - r.rule.Interval
	if lost <= 0 {
		return activeAt, true
	}
	if r.rule.For < r.tolerance.ForGracePeriod {
		return time.Time{}, false
	}
	remaining := r.rule.For - downAt.Sub(activeAt)
	switch {
	case remaining <= 0:
		return activeAt, true
	case remaining < r.tolerance.ForGracePeriod:
		return r.slot.Add(r.tolerance.ForGracePeriod - r.rule.For), true
	}
	return activeAt.Add(lost), true
}

// ended says whether a sample of ALERTS_FOR_STATE is the end of its series, or
// no time at which an alert can have become active.
func ended(s promql.Sample) bool {
	return value.IsStaleNaN(s.F) || !(s.F >= 0 && s.F*1000 <= float64(s.T)+maxSkew)
}

// lastSlot is the newest slot of which there is any trace.
func lastSlot(rule Rule, found Evidence) time.Time {
	last := found.LastSlot.Truncate(time.Millisecond)
	for _, s := range slices.Concat(found.ForState, found.Firing) {
		if at := timestamp.Time(s.T).Add(rule.QueryOffset); at.After(last) {
			last = at
		}
	}
	return last
}

// alertLabels takes from a series of ALERTS_FOR_STATE what is not the alert's:
// the metric's name, and templates that had come out empty.
func alertLabels(rule Rule, series labels.Labels) labels.Labels {
	b := labels.NewBuilder(series).Del(labels.MetricName)
	rule.Labels.Range(func(l labels.Label) {
		if isTemplate(l.Value) && series.Get(l.Name) == l.Value {
			b.Del(l.Name)
		}
	})
	return b.Labels()
}

// sampleKey is a series at a time.
type sampleKey struct {
	series string
	t      int64
}

func seriesKey(series labels.Labels, t int64) sampleKey {
	return sampleKey{series: string(series.Bytes(nil)), t: t}
}

func firingSeries(found Evidence) map[sampleKey]bool {
	firing := make(map[sampleKey]bool, len(found.Firing))
	for _, s := range found.Firing {
		firing[seriesKey(s.Metric, s.T)] = !value.IsStaleNaN(s.F)
	}
	return firing
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
