package ruler

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/ruler/write"
)

// unwritten are samples of an alerting rule that no backend has acknowledged, in
// the order of slots. A recording rule is evaluated again for such slots; the
// states of alerts at them are history, so what was to be written is kept.
//
// Alerts change rarely: samples of successive slots that have one value are one
// run, so the size is that of the changes, however long a backend is away. The
// values are immutable; methods return new ones.
type unwritten []run

// run is a series with one value at N timestamps.
type run struct {
	Series labels.Labels `json:"series"`
	// Bits are those of the value, which may be a staleness marker.
	Bits uint64 `json:"bits"`
	// From is the first timestamp, Every the distance to the next, in
	// milliseconds.
	From  int64 `json:"from"`
	Every int64 `json:"every"`
	N     int64 `json:"n"`
}

func (r run) last() int64 { return r.From + (r.N-1)*r.Every }

// add returns u with the samples of a slot that is later than all others. The
// next is every milliseconds after it.
func (u unwritten) add(samples []promql.Sample, every int64) unwritten {
	next := slices.Clone(u)
	newest := make(map[string]int, len(next))
	for i, r := range next {
		newest[string(r.Series.Bytes(nil))] = i
	}
	for _, s := range samples {
		bits := math.Float64bits(s.F)
		i, known := newest[string(s.Metric.Bytes(nil))]
		if known && next[i].Bits == bits && next[i].Every == every && next[i].last()+every == s.T {
			next[i].N++
			continue
		}
		next = append(next, run{Series: s.Metric, Bits: bits, From: s.T, Every: every, N: 1})
	}
	return next
}

// oldest returns the samples of the oldest slots, as a unit to be written, and
// the timestamp of the last of them: at most limit samples, but two slots at
// least, so that what is behind catches up.
func (u unwritten) oldest(limit int) (write.Unit, int64) {
	counts := map[int64]int{}
	for _, r := range u {
		for t := r.From; t <= r.last(); t += r.Every {
			counts[t]++
		}
	}
	slots := make([]int64, 0, len(counts))
	for t := range counts {
		slots = append(slots, t)
	}
	slices.Sort(slots)
	var until int64
	total := 0
	for i, t := range slots {
		if total += counts[t]; total > limit && i >= 2 {
			break
		}
		until = t
	}
	return u.samples(until), until
}

// samples are those until a timestamp, in order.
func (u unwritten) samples(until int64) write.Unit {
	var unit write.Unit
	for _, r := range u {
		for t := r.From; t <= min(until, r.last()); t += r.Every {
			unit = append(unit, promql.Sample{Metric: r.Series, T: t, F: math.Float64frombits(r.Bits)})
		}
	}
	slices.SortStableFunc(unit, func(a, b promql.Sample) int { return int(a.T - b.T) })
	return unit
}

// after returns u without the samples until a timestamp, and their number.
func (u unwritten) after(until int64) (rest unwritten, dropped int64) {
	for _, r := range u {
		n := int64(0)
		if r.From <= until {
			n = min(r.N, (until-r.From)/r.Every+1)
		}
		dropped += n
		if n < r.N {
			r.From, r.N = r.From+n*r.Every, r.N-n
			rest = append(rest, r)
		}
	}
	return rest, dropped
}

// bounded returns u without what is older than a timestamp, and without the
// oldest slots as long as there are more than limit runs. It tells how many
// samples that gives up.
func (u unwritten) bounded(oldest int64, limit int) (rest unwritten, dropped int64) {
	rest, dropped = u.after(oldest - 1)
	for len(rest) > limit {
		end := slices.MinFunc(rest, func(a, b run) int { return int(a.last() - b.last()) }).last()
		var more int64
		rest, more = rest.after(end)
		dropped += more
	}
	return rest, dropped
}
