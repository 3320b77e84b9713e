package ruler

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// errDuplicate is said of a recording rule that makes one series of two.
var errDuplicate = errors.New("vector contains metrics with the same labelset after applying rule labels")

// record makes the samples of a recording rule out of what its expression
// returned. The labels of the group's scope are set last, so that neither
// data nor the rule can leave the tenant.
func record(g rule.Group, r rule.Rule, vector promql.Vector) ([]promql.Sample, error) {
	if g.Limit > 0 && len(vector) > g.Limit {
		return nil, fmt.Errorf("exceeded limit of %d with %d series", g.Limit, len(vector))
	}
	samples := make([]promql.Sample, len(vector))
	seen := make(map[uint64][]int, len(vector))
	b := labels.NewBuilder(labels.EmptyLabels())
	for i, s := range vector {
		b.Reset(s.Metric)
		b.Set(labels.MetricName, r.Record)
		r.Labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		g.Scope.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		s.Metric = b.Labels()
		samples[i] = s
		hash := s.Metric.Hash()
		for _, j := range seen[hash] {
			if labels.Equal(samples[j].Metric, s.Metric) {
				return nil, fmt.Errorf("%w: %s", errDuplicate, s.Metric)
			}
		}
		seen[hash] = append(seen[hash], i)
	}
	return samples, nil
}

// ended returns a staleness marker at t (milliseconds) for every series that
// is not among the samples.
func ended(series []labels.Labels, samples []promql.Sample, t int64) []promql.Sample {
	if len(series) == 0 {
		return nil
	}
	current := make(map[string]struct{}, len(samples))
	for _, s := range samples {
		current[string(s.Metric.Bytes(nil))] = struct{}{}
	}
	var markers []promql.Sample
	for _, lset := range series {
		if _, ok := current[string(lset.Bytes(nil))]; !ok {
			markers = append(markers, promql.Sample{Metric: lset, T: t, F: math.Float64frombits(value.StaleNaN)})
		}
	}
	return markers
}

// seriesOf are the labels of the samples.
func seriesOf(samples []promql.Sample) []labels.Labels {
	series := make([]labels.Labels, len(samples))
	for i, s := range samples {
		series[i] = s.Metric
	}
	return series
}

// merge is the union of two sets of series.
func merge(a, b []labels.Labels) []labels.Labels {
	known := make(map[string]struct{}, len(a)+len(b))
	var union []labels.Labels
	for _, set := range [][]labels.Labels{a, b} {
		for _, lset := range set {
			k := string(lset.Bytes(nil))
			if _, ok := known[k]; ok {
				continue
			}
			known[k] = struct{}{}
			union = append(union, lset)
		}
	}
	return union
}
