package sim_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/tocsin-rules/tocsin/sharding"
)

const (
	// stayers are members that may own groups.
	stayers = sharding.Ready
	// spareTime is how long a member has to be there, or another to be gone,
	// until every group has a successor with a checkpoint again: noticing,
	// handing over, and one slot.
	spareTime = 15*time.Second + 2*interval
	// orphanBound is how long a group may run nowhere while a member could
	// run it: noticing a death, and claims that several dead members do not
	// answer.
	orphanBound = 30 * time.Second
	// agreeBound is how long two members may run one group after all see the
	// same members and messages flow.
	agreeBound = 30 * time.Second
	// catchUp is how long repeating everything may take in the end.
	catchUp = 4 * time.Minute
)

func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }

// watch spreads gossip and checks all the time who runs what.
func (w *world) watch() {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			return
		}
		w.gossip()
		if n%4 == 0 {
			w.checkOwners(w.runners())
		}
	}
}

// runners are the names of the members that run each group.
func (w *world) runners() map[string][]string {
	w.mu.Lock()
	alive := w.alive()
	w.mu.Unlock()
	all := map[string][]string{}
	for _, m := range alive {
		for _, s := range m.Status() {
			all[s.Group.Key] = append(all[s.Group.Key], m.name)
		}
	}
	return all
}

func (w *world) checkOwners(runners map[string][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	able := w.able(now)
	settled := now.Sub(w.calm) > agreeBound && w.loss == 0 && len(w.cut) == 0 && w.agree()
	for _, g := range w.groups {
		n := len(runners[g.Key])
		switch {
		case n > 0 || !able || w.backends[backendIndex(g.Scope)].down:
			delete(w.unowned, g.Key)
		case w.unowned[g.Key].IsZero():
			w.unowned[g.Key] = now
		case now.Sub(w.unowned[g.Key]) > orphanBound && w.loss == 0:
			w.broken("group %s has run nowhere since %s", g.Key, w.unowned[g.Key].UTC().Format("15:04:05"))
		}
		if settled && n != 1 {
			w.broken("group %s runs on %v though all agree", g.Key, runners[g.Key])
		}
	}
}

// able tells whether a member has been ready for long enough to run groups.
func (w *world) able(now time.Time) bool {
	for _, m := range w.alive() {
		if m.state == stayers && now.Sub(m.readySince) > orphanBound {
			return true
		}
	}
	return false
}

// agree tells whether every member has been told the truth.
func (w *world) agree() bool {
	for _, m := range w.alive() {
		if m.state != stayers || m.told != w.viewOf(m).Fingerprint() {
			return false
		}
	}
	return len(w.alive()) > 0
}

// judge waits until everything has caught up, and checks what was written and
// sent.
func (w *world) judge() {
	end := time.Now().Add(agreeBound)
	w.sleepUntil(end)
	missing := w.missing(end)
	for tick := 0; len(missing) > 0 && tick < int(catchUp/interval); tick++ {
		w.sleepUntil(time.Now().Add(interval))
		missing = w.missing(end)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range missing {
		w.broken("%s", m)
	}
	if w.careful {
		w.checkAlerts()
	}
	w.checkNotifications()
}

// missing compares what was recorded with what the expressions say, at every
// slot.
func (w *world) missing(to time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var faults []string
	var first [backends]map[string]time.Time
	for i := range w.backends {
		first[i] = w.backends[i].firstCommitted()
	}
	for i, g := range w.groups {
		b := &w.backends[i%backends]
		slot, began := first[i%backends][g.Key]
		for ; began && slot.Before(to); slot = slot.Add(interval) {
			for _, kind := range []string{"walk", "chained", "churn"} {
				record := fmt.Sprintf("%s_%02d", kind, i)
				faults = append(faults, b.compareValues(record, backendOf(i), slot)...)
				if kind == "churn" {
					faults = append(faults, b.compareEnd(record, backendOf(i), slot)...)
				}
			}
		}
	}
	return faults
}

// firstCommitted has for each group the first slot that anybody could know of
// after all members died.
func (b *backend) firstCommitted() map[string]time.Time {
	first := map[string]time.Time{}
	for _, s := range b.data {
		if s.metric.Get(labels.MetricName) == "TOCSIN_COMMITTED_SLOT" {
			first[s.metric.Get("rule_group")] = time.UnixMilli(slices.Min(slices.Collect(maps.Keys(s.points)))).UTC()
		}
	}
	return first
}

// compareValues checks what one rule recorded for a slot.
func (b *backend) compareValues(record, backend string, slot time.Time) (faults []string) {
	source, factor := record, 1.0
	if kind(record) == "chained" {
		source, factor = "walk"+record[len("chained"):], 2
	}
	for _, s := range answer(source, slot) {
		name := seriesName(s.Metric, record, backend)
		got, ok := b.at(name, slot)
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("missing %s at %s", name, slot.Format("15:04:05")))
		case got != s.F*factor:
			faults = append(faults, fmt.Sprintf("%s at %s is %v, not %v", name, slot.Format("15:04:05"), got, s.F*factor))
		}
	}
	return faults
}

func seriesName(metric labels.Labels, record, backend string) string {
	return labels.NewBuilder(metric).Set(labels.MetricName, record).Set("backend", backend).Labels().String()
}

// compareEnd checks that a series which was there for the slot before, and is
// not for this one, is marked as ended.
func (b *backend) compareEnd(record, backend string, slot time.Time) (faults []string) {
	for _, s := range answer(record, slot) {
		earlier := labels.NewBuilder(s.Metric).Set("id", previousID(s.Metric.Get("id"))).Labels()
		name := seriesName(earlier, record, backend)
		before, was := b.at(name, slot.Add(-interval))
		marker, is := b.at(name, slot)
		if was && !value.IsStaleNaN(before) && (!is || !value.IsStaleNaN(marker)) {
			faults = append(faults, fmt.Sprintf("%s does not end at %s", name, slot.Format("15:04:05")))
		}
	}
	return faults
}

func previousID(id string) string {
	var n int
	if _, err := fmt.Sscan(id, &n); err != nil {
		return ""
	}
	return fmt.Sprint((n + 99) % 100)
}

// checkAlerts: while a condition holds, an alert is active since one time.
func (w *world) checkAlerts() {
	for i := range w.backends {
		for _, text := range slices.Sorted(maps.Keys(w.backends[i].data)) {
			s := w.backends[i].data[text]
			name := s.metric.Get(labels.AlertName)
			if s.metric.Get(labels.MetricName) == "ALERTS_FOR_STATE" && kind(name) == "Wave" {
				w.checkEpisodes(text, "wave"+name[len("Wave"):], s.points)
			}
		}
	}
}

func (w *world) checkEpisodes(series, expr string, points map[int64]float64) {
	var since float64 // what the samples of an episode say
	episode := int64(-1)
	for _, t := range slices.Sorted(maps.Keys(points)) {
		v := points[t]
		if value.IsStaleNaN(v) || !holds(expr, time.UnixMilli(t)) {
			continue // It is kept firing, or over.
		}
		if e := begins(expr, t); e != episode {
			episode, since = e, v
		}
		if v != since {
			w.broken("%s at %s started over: active since %s, before that since %s", series, clock(t), clock(int64(v)*1000), clock(int64(since)*1000))
			since = v
		}
	}
}

// begins is the first slot, in milliseconds, of the time in which the
// condition holds that t is in.
func begins(expr string, t int64) int64 {
	for holds(expr, time.UnixMilli(t-interval.Milliseconds())) {
		t -= interval.Milliseconds()
	}
	return t
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("15:04:05") }

// checkNotifications: nobody is told that an alert is over while it is not.
func (w *world) checkNotifications() {
	for _, n := range w.sent {
		name := n.Labels.Get(labels.AlertName)
		if kind(name) == "Wave" && n.Resolved && holds("wave"+name[len("Wave"):], n.EndsAt) {
			w.broken("%s was reported as over at %s", n.Labels, n.EndsAt.UTC().Format("15:04:05"))
		}
	}
}
