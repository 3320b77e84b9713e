package evaluator

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// covered are those of the recorded samples that an expression may read and
// that their backend may not show yet.
func (e *Evaluator) covered(expr parser.Expr, recorded []promql.Sample) []promql.Sample {
	if len(recorded) == 0 {
		return nil
	}
	selectors := plan.Selectors(expr)
	return slices.DeleteFunc(slices.Clone(recorded), func(s promql.Sample) bool {
		return !e.delayed(s.Metric) || !slices.ContainsFunc(selectors, func(ms []*labels.Matcher) bool { return selects(ms, s.Metric) })
	})
}

// delayed tells whether a series is at a backend with a read delay.
func (e *Evaluator) delayed(metric labels.Labels) bool {
	return slices.ContainsFunc(e.backends, func(b plan.Backend) bool {
		return b.ReadDelay > 0 && strayLabel(b.Partition, metric) == ""
	})
}

func selects(ms []*labels.Matcher, metric labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(metric.Get(m.Name)) {
			return false
		}
	}
	return true
}

// overlaid evaluates a batch of which some queries read samples that may not be
// visible: those from raw series with the samples laid over, all others as
// ever.
func (e *Evaluator) overlaid(ctx context.Context, b batch) []outcome {
	var plain, over []int
	for i, recorded := range b.recorded {
		if len(recorded) > 0 {
			over = append(over, i)
		} else {
			plain = append(plain, i)
		}
	}
	if len(over) == 0 {
		return e.folded(ctx, b)
	}
	outcomes := make([]outcome, len(b.queries))
	var both sync.WaitGroup
	both.Go(func() {
		part := b.only(over)
		part.options.Raw = plan.ReasonOverlay
		place(outcomes, over, e.run(ctx, part))
	})
	place(outcomes, plain, e.folded(ctx, b.only(plain)))
	both.Wait()
	return outcomes
}

// place puts the outcomes of a part of a batch where they belong.
func place(outcomes []outcome, indexes []int, of []outcome) {
	for n, o := range of {
		outcomes[indexes[n]] = o
	}
}

// matching are the samples of series that all matchers accept.
func matching(samples []promql.Sample, matchers []*labels.Matcher) []promql.Sample {
	var found []promql.Sample
	for _, s := range samples {
		if selects(matchers, s.Metric) {
			found = append(found, s)
		}
	}
	return found
}

// overlay lays samples over a sorted set of series. Where a series has a sample
// of the same time already, it is the same sample.
func overlay(set storage.SeriesSet, samples []promql.Sample) storage.SeriesSet {
	if len(samples) == 0 {
		return set
	}
	return storage.NewMergeSeriesSet([]storage.SeriesSet{set, &seriesSet{list: asSeries(samples)}}, 0, storage.ChainedSeriesMerge)
}

// asSeries groups samples by their labels, sorted by these and by time.
func asSeries(samples []promql.Sample) []promql.Series {
	sorted := slices.Clone(samples)
	slices.SortStableFunc(sorted, func(a, b promql.Sample) int {
		if c := labels.Compare(a.Metric, b.Metric); c != 0 {
			return c
		}
		return int(a.T - b.T)
	})
	var list []promql.Series
	for i, s := range sorted {
		if i == 0 || !labels.Equal(s.Metric, sorted[i-1].Metric) {
			list = append(list, promql.Series{Metric: s.Metric})
		} else if s.T == sorted[i-1].T {
			continue
		}
		last := &list[len(list)-1]
		if s.H != nil {
			last.Histograms = append(last.Histograms, promql.HPoint{T: s.T, H: s.H})
		} else {
			last.Floats = append(last.Floats, promql.FPoint{T: s.T, F: s.F})
		}
	}
	return list
}
