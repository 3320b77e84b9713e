package alert

import (
	"math"
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
//
// The series may be those of other rules too: nothing in ALERTS tells which of
// several rules of one name wrote it.
type Evidence struct {
	// ForState are samples of the rule's ALERTS_FOR_STATE.
	ForState []promql.Sample
	// Firing are samples of its ALERTS that were firing.
	Firing []promql.Sample
	// LastSlot is the newest slot that the rule is known to have been evaluated
	// for; zero if nobody knows.
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
// What is restored counts only for alerts whose condition holds in the next
// step, for the series may be another rule's. Alerts that were firing go on
// firing; those with a sample of the rule's own last slot also without the
// condition, for as long as the rule keeps alerts firing. If no slot was lost, pending alerts go on where they were; otherwise
// they are treated as in Prometheus: the outage does not count as time spent
// pending, and the grace period applies.
func Restore(rule Rule, slot time.Time, found Evidence, tolerance Tolerance) State {
	r := restorer{rule: rule, slot: slot, tolerance: tolerance, firing: firingSeries(found)}
	r.findLastSlot(found)
	var alerts []Alert
	for _, sample := range found.ForState {
		if a, ok := r.restore(sample); ok {
			alerts = append(alerts, a)
		}
	}
	sortAlerts(alerts)
	return State{restored: slices.CompactFunc(alerts, func(a, b Alert) bool { return labels.Equal(a.Labels, b.Labels) })}
}

// maxSkew, in milliseconds, is how much later than its sample the value of
// ALERTS_FOR_STATE may be: no more than any query offset.
const maxSkew = 24 * 60 * 60 * 1000

type restorer struct {
	rule      Rule
	slot      time.Time
	tolerance Tolerance
	firing    map[sampleKey]bool
	// last is the newest slot of the rule of which there is any trace, zero if
	// there is none.
	last time.Time
}

// findLastSlot looks for samples of the rule's own slots. Others were written by
// other groups, or by the same before its interval was changed.
func (r *restorer) findLastSlot(found Evidence) {
	r.last = found.LastSlot.Truncate(time.Millisecond)
	for _, s := range slices.Concat(found.ForState, found.Firing) {
		if at := r.slotOf(s); r.own(at) && at.After(r.last) {
			r.last = at
		}
	}
}

// own says whether a time is a slot of the rule, in whole milliseconds as
// samples have them.
func (r *restorer) own(at time.Time) bool {
	return r.rule.Interval > 0 && r.slot.Truncate(time.Millisecond).Sub(at)%r.rule.Interval == 0
}

func (r *restorer) slotOf(sample promql.Sample) time.Time {
	return timestamp.Time(sample.T).Add(r.rule.QueryOffset).UTC()
}

// restore makes an alert of a sample of ALERTS_FOR_STATE, if it has not ended.
// An alert without a sample of the last slot had ended, whether the backend
// shows staleness markers or not.
func (r *restorer) restore(sample promql.Sample) (Alert, bool) {
	downAt := r.slotOf(sample)
	missedLast := !r.last.IsZero() && !downAt.Equal(r.last)
	if ended(sample) || missedLast || r.slot.Sub(downAt) > r.tolerance.Outage {
		return Alert{}, false
	}
	a := Alert{
		Labels:   alertLabels(r.rule, sample.Metric),
		Status:   Firing,
		ActiveAt: time.Unix(int64(sample.F), 0).UTC(),
	}
	if r.firing[seriesKey(statusSeries(r.rule, a), sample.T)] {
		a.FiredAt = earliest(a.ActiveAt.Add(r.rule.For), downAt)
		if r.rule.KeepFiringFor > 0 && r.own(downAt) {
			// Whether the condition held then, nothing tells; nor the value.
			a.KeepFiringSince, a.Value = downAt, math.NaN()
		}
		return a, true
	}
	a.Status = Pending
	var ok bool
	a.ActiveAt, ok = r.pendingSince(a.ActiveAt, downAt)
	return a, ok
}

// pendingSince returns the time from which a pending alert counts, or false if
// it has to start anew.
func (r *restorer) pendingSince(activeAt, downAt time.Time) (time.Time, bool) {
	// The outage ended one interval before the slot: had it been shorter, there
	// would have been a slot then.
	resumed := r.slot.Truncate(time.Millisecond).Add(-r.rule.Interval)
	lost := resumed.Sub(downAt)
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
		return resumed.Add(r.tolerance.ForGracePeriod - r.rule.For), true
	}
	return activeAt.Add(lost), true
}

// ended says whether a sample of ALERTS_FOR_STATE is the end of its series, or
// no time at which an alert can have become active.
func ended(s promql.Sample) bool {
	return value.IsStaleNaN(s.F) || !(s.F >= 0 && s.F*1000 <= float64(s.T)+maxSkew)
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
