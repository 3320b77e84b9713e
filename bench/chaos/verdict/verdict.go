// Package verdict compares what a fleet with faults left behind with what the
// same rules over the same data left in one without: recorded samples, the
// series of alerts, and notifications.
//
// It is pure: it fetches nothing.
package verdict

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
)

// Samples says how the samples of one fleet differ from those of another.
type Samples struct {
	// Expected are those of the fleet without faults; of these Missing are not
	// there and Different have another value. Unexpected are there only.
	Expected, Missing, Different, Unexpected int
	// Examples are some of the differences.
	Examples []string
}

const maxExamples = 10

// CompareSamples compares series sample by sample, staleness markers included,
// values by their bits.
func CompareSamples(want, got []promql.Series) Samples {
	var v Samples
	there := index(got)
	for _, s := range want {
		name := s.Metric.String()
		points := there[name]
		for _, p := range s.Floats {
			v.Expected++
			f, ok := points[p.T]
			switch {
			case !ok:
				v.Missing++
				v.example("missing %s at %s", name, clock(p.T))
			case math.Float64bits(f) != math.Float64bits(p.F):
				v.Different++
				v.example("%s at %s is %v, not %v", name, clock(p.T), f, p.F)
			}
			delete(points, p.T)
		}
	}
	for _, name := range sortedKeys(there) {
		for t := range there[name] {
			v.Unexpected++
			v.example("unexpected %s at %s", name, clock(t))
		}
	}
	return v
}

func index(list []promql.Series) map[string]map[int64]float64 {
	all := make(map[string]map[int64]float64, len(list))
	for _, s := range list {
		points := make(map[int64]float64, len(s.Floats))
		for _, p := range s.Floats {
			points[p.T] = p.F
		}
		all[s.Metric.String()] = points
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("15:04:05") }

func (v *Samples) example(format string, args ...any) {
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

// Slots counts the slots of rule groups that recorded something, and those of
// which the other fleet has nothing. Groups are told apart by the labels that
// their recordings carry.
func Slots(want, got []promql.Series) (expected, missing int) {
	there := slots(got)
	for s := range slots(want) {
		expected++
		if !there[s] {
			missing++
		}
	}
	return expected, missing
}

type slot struct {
	group, cluster string
	at             int64
}

func slots(list []promql.Series) map[slot]bool {
	all := map[slot]bool{}
	for _, s := range list {
		g := slot{group: s.Metric.Get("group"), cluster: s.Metric.Get("cluster")}
		if g.group[:1] == "f" {
			g.cluster = "" // Groups over all clusters may record series of one.
		}
		for _, p := range s.Floats {
			if !value.IsStaleNaN(p.F) {
				g.at = p.T
				all[g] = true
			}
		}
	}
	return all
}

// Resets counts how often an alert started over: the value of ALERTS_FOR_STATE,
// which is when the alert became active, was that of the other fleet, and then
// is a later one. An alert that began late, since its condition could not be
// evaluated, has not started over.
func Resets(want, got []promql.Series) int {
	n := 0
	there := index(got)
	for _, s := range want {
		if s.Metric.Get("__name__") != "ALERTS_FOR_STATE" {
			continue
		}
		points := there[s.Metric.String()]
		agreed := math.Inf(-1) // the last value that both had
		for _, p := range s.Floats {
			f, ok := points[p.T]
			switch {
			case ok && f == p.F:
				agreed = f
			case ok && f > p.F && agreed == p.F:
				n++
				agreed = math.Inf(-1)
			}
		}
	}
	return n
}

// Notification is what a receiver was told of one alert.
type Notification struct {
	At       time.Time
	Status   string
	Labels   map[string]string
	StartsAt time.Time
}

// key says what a notification tells, but not when the alert started exactly:
// that the alert of this cycle of its unit fires, or is over.
func (n Notification) key() string {
	pairs := make([]string, 0, len(n.Labels))
	for _, k := range sortedKeys(n.Labels) {
		pairs = append(pairs, k+"="+n.Labels[k])
	}
	return fmt.Sprintf("%s %s cycle %d", n.Status, strings.Join(pairs, ","), signal.Cycle(n.Labels["cluster"], n.Labels["unit"], n.StartsAt))
}

// Notifications says how the notifications of one fleet differ from those of
// another, as sets of (alert, cycle, status).
type Notifications struct {
	Expected, Missing, Unexpected int
	// Later are alerts whose start differs from that of the other fleet.
	Later int
	// Repeated are notifications that said the same again.
	Repeated int
	Examples []string
}

// Window is a time that is looked at, its end excluded.
type Window struct{ From, Until time.Time }

// CompareNotifications compares what was told of alerts that started within a
// window, which both fleets have had the time to tell of.
func CompareNotifications(want, got []Notification, w Window) Notifications {
	var v Notifications
	expected, _ := byKey(want, w)
	told, again := byKey(got, w)
	v.Expected, v.Repeated = len(expected), again
	for _, k := range sortedKeys(expected) {
		n, ok := told[k]
		switch {
		case !ok:
			v.Missing++
			v.example("missing: " + k)
		case !n.StartsAt.Equal(expected[k].StartsAt):
			v.Later++
		}
	}
	for _, k := range sortedKeys(told) {
		if _, ok := expected[k]; !ok {
			v.Unexpected++
			v.example("unexpected: " + k)
		}
	}
	return v
}

func byKey(list []Notification, w Window) (told map[string]Notification, repeated int) {
	told = map[string]Notification{}
	for _, n := range list {
		if n.StartsAt.Before(w.From) || !n.StartsAt.Before(w.Until) {
			continue
		}
		k := n.key()
		if _, ok := told[k]; ok {
			repeated++
			continue
		}
		told[k] = n
	}
	return told, repeated
}

func (v *Notifications) example(text string) {
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, text)
	}
}
