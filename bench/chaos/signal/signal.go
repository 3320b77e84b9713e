// Package signal is the data of a chaos run and the rules over it: raw series
// whose every sample follows from its timestamp, so that it can be written ahead
// of time and again after a fault, and rules of every kind whose results over
// it are exact.
//
// It is pure: it writes nothing and reads no clock.
package signal

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

const (
	// Step is the time between two samples of a raw series.
	Step = 5 * time.Second
	// Interval is that of all rule groups.
	Interval = 2 * time.Second
	// Period is how long a unit takes from one fault to the next; for half of
	// it the unit is at fault.
	Period = 3 * time.Minute

	jobs, instances, units = 4, 5, 12
	// generation is how long each of the short-lived series lives.
	generation = time.Minute
)

// Clusters are the values of the partition label.
func Clusters() []string { return []string{"east", "west"} }

// Samples returns the raw samples of a cluster at a time, which is rounded
// down to a multiple of Step. Staleness markers end the series that live for a
// while only. In peace no unit is at fault.
func Samples(cluster string, at time.Time, peace bool) []remotewrite.Sample {
	at = at.Truncate(Step)
	var all []remotewrite.Sample
	add := func(v float64, name string, pairs ...string) {
		lset := labels.FromStrings(append([]string{labels.MetricName, name, "cluster", cluster}, pairs...)...)
		all = append(all, remotewrite.Sample{Labels: lset, T: at.UnixMilli(), F: v})
	}
	n := at.UnixMilli() / Step.Milliseconds()
	for j := range int64(jobs) {
		for i := range int64(instances) {
			// Whole numbers: sums do not depend on their order.
			add(float64((n*(7+2*j)+13*i)%101), "demand", "job", fmt.Sprintf("j%d", j), "instance", fmt.Sprintf("i%d", i))
		}
	}
	for u := range units {
		add(bit(!peace && AtFault(cluster, u, at)), "fault", "unit", unit(u))
	}
	g := at.Truncate(generation)
	if at.Equal(g) {
		add(math.Float64frombits(value.StaleNaN), "session", "id", id(g.Add(-generation)))
	}
	add(1, "session", "id", id(g))
	return all
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unit(u int) string { return fmt.Sprintf("u%d", u) }

func id(born time.Time) string { return fmt.Sprint(born.Unix() / int64(generation.Seconds()) % 1000) }

// AtFault tells whether a unit is at fault.
func AtFault(cluster string, u int, at time.Time) bool {
	return at.Add(phase(cluster, u)).UnixMilli()%Period.Milliseconds() >= Period.Milliseconds()/2
}

// Cycle numbers the faults of a unit: the cycle at t is that of the fault
// that began last. The lag of detection and resolution is less than a quarter
// of the period.
func Cycle(cluster, name string, t time.Time) int64 {
	for u := range units {
		if unit(u) == name {
			return t.Add(phase(cluster, u)).Add(-Period/2).UnixMilli() / Period.Milliseconds()
		}
	}
	return -1
}

// phase spreads the faults of units over the period.
func phase(cluster string, u int) time.Duration {
	p := Period / units * time.Duration(u)
	if cluster == Clusters()[0] {
		p += (Period / units / 2).Truncate(Step)
	}
	return p
}

// Rules returns the manifests of groups a cluster, and some over all of them.
// Every group has a recording rule that reads raw series, one that reads the
// first, one whose series come and go, and alerts that begin and end.
func Rules(groups int) string {
	var b strings.Builder
	b.WriteString("apiVersion: monitoring.googleapis.com/v1\nkind: ClusterRules\nmetadata: {name: chaos}\nspec:\n  groups:\n")
	for g := range groups {
		fmt.Fprintf(&b, `  - name: g%02[1]d
    interval: %[2]s
    rules:
    - record: chaos:demand:sum
      expr: sum by (job) (demand{job!="j%[3]d"})
      labels: {group: g%02[1]d}
    - record: chaos:demand:share
      expr: chaos:demand:sum{group="g%02[1]d"} / on (group) group_left () sum by (group) (chaos:demand:sum{group="g%02[1]d"})
      labels: {group: g%02[1]d}
    - record: chaos:session:count
      expr: count by (id) (session)
      labels: {group: g%02[1]d}
    - alert: UnitAtFault
      expr: fault{unit="u%[4]d"} == 1
      for: 10s
      labels: {group: g%02[1]d}
      annotations: {summary: '{{ $labels.unit }} of {{ $labels.cluster }} since {{ with query "fault{unit=\"u%[4]d\"}" }}{{ . | first | value }}{{ end }}'}
    - alert: UnitWasAtFault
      expr: fault{unit="u%[4]d"} == 1
      for: 6s
      keep_firing_for: 8s
      labels: {group: g%02[1]d}
`, g, Interval, g%jobs, g%units)
	}
	b.WriteString("---\napiVersion: monitoring.googleapis.com/v1\nkind: GlobalRules\nmetadata: {name: chaos-fleet}\nspec:\n  groups:\n")
	for g := range max(1, groups/6) {
		fmt.Fprintf(&b, `  - name: f%02[1]d
    interval: %[2]s
    rules:
    - record: chaos:fleet:sum
      expr: sum by (job) (demand{instance!="i%[3]d"})
      labels: {group: f%02[1]d}
    - record: chaos:fleet:faults
      expr: count by (cluster) (fault == 1)
      labels: {group: f%02[1]d}
`, g, Interval, g%instances)
	}
	return b.String()
}
