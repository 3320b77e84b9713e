package dataset

import (
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// codes are the answers of a service and how often it gives them.
var codes = [...]struct {
	code      string
	perSecond float64
}{{"200", 50}, {"404", 2}, {"500", 0.5}, {"503", 0.2}}

// bounds are the buckets of a classic histogram and the share of observations
// that is in them or below.
var bounds = [...]struct {
	le    string
	share float64
}{
	{"0.005", 0.1},
	{"0.01", 0.25},
	{"0.025", 0.4},
	{"0.05", 0.55},
	{"0.1", 0.7},
	{"0.25", 0.82},
	{"0.5", 0.9},
	{"1", 0.95},
	{"2.5", 0.98},
	{"+Inf", 1},
}

// Series is one series of the fleet.
type Series struct {
	Labels labels.Labels
	seed   uint64
	values values
}

type kind int

const (
	kindCounter kind = iota
	kindGauge
	kindFlag
	kindConstant
	kindBucket
	kindNative
)

// values says how a series goes on. What is of one family has the same chance
// events, so that the buckets of a histogram fit each other.
type values struct {
	kind   kind
	scale  float64
	family string
}

func counter(perSecond float64) values  { return values{kind: kindCounter, scale: perSecond} }
func gauge(about float64) values        { return values{kind: kindGauge, scale: about} }
func flag(shareOfOnes float64) values   { return values{kind: kindFlag, scale: shareOfOnes} }
func constant(v float64) values         { return values{kind: kindConstant, scale: v} }
func native() values                    { return values{kind: kindNative} }
func bucket(f string, s float64) values { return values{kind: kindBucket, scale: s, family: f} }

// Native tells whether the samples are native histograms.
func (s Series) Native() bool { return s.values.kind == kindNative }

func (s Series) rand() *rand.Rand { return rand.New(rand.NewPCG(s.seed, hash(s.values.family))) }

// Floats are the first n samples of a series that is not native.
func (s Series) Floats(n int) []float64 {
	rng, out := s.rand(), make([]float64, n)
	state := rng.Float64()
	for i := range out {
		switch s.values.kind {
		case kindCounter:
			state = step(rng, state, s.values.scale)
			out[i] = state
		case kindBucket:
			state = math.Floor(step(rng, state, 20))
			out[i] = math.Floor(state * s.values.scale)
		case kindFlag:
			out[i] = 0
			if state < s.values.scale {
				out[i] = 1
			}
		case kindGauge:
			out[i] = s.values.scale * (0.5 + 0.4*state + 0.1*rng.Float64())
		case kindConstant:
			out[i] = s.values.scale
		}
	}
	return out
}

// step advances a counter by one interval; now and then it starts anew.
func step(rng *rand.Rand, v, perSecond float64) float64 {
	if rng.IntN(1000) == 0 {
		v = 0
	}
	return v + perSecond*Interval/1000*(0.5+rng.Float64())
}

// nativeBuckets is the number of buckets of a native histogram.
const nativeBuckets = 8

// Histograms are the first n samples of a native series.
func (s Series) Histograms(n int) []*histogram.Histogram {
	rng, out := s.rand(), make([]*histogram.Histogram, n)
	var counts [nativeBuckets]int64
	var sum float64
	for i := range out {
		for b := range counts {
			added := rng.Int64N(40)
			counts[b] += added
			sum += float64(added) * 0.01 * float64(b+1)
		}
		out[i] = cumulative(counts, sum)
	}
	return out
}

func cumulative(counts [nativeBuckets]int64, sum float64) *histogram.Histogram {
	h := &histogram.Histogram{
		Schema:          1,
		ZeroThreshold:   1e-6,
		Sum:             sum,
		PositiveSpans:   []histogram.Span{{Offset: -6, Length: nativeBuckets}},
		PositiveBuckets: make([]int64, nativeBuckets),
	}
	var last int64
	for b, c := range counts {
		h.PositiveBuckets[b] = c - last
		h.Count += uint64(c)
		last = c
	}
	return h
}
