package backfill

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// partitioned shows stored series with the partition labels that they lack.
type partitioned struct {
	storage.Querier
	partition labels.Labels
}

// Select implements storage.Querier. The result is always sorted: labels that
// are put in change the order.
func (p partitioned) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var stored []*labels.Matcher
	for _, m := range matchers {
		switch {
		case !p.partition.Has(m.Name):
			stored = append(stored, m)
		case !m.Matches(p.partition.Get(m.Name)):
			return storage.EmptySeriesSet()
		}
	}
	set := p.Querier.Select(ctx, true, hints, stored...)
	list := &seriesList{}
	b := labels.NewBuilder(labels.EmptyLabels())
	for set.Next() {
		b.Reset(set.At().Labels())
		p.partition.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		list.series = append(list.series, labelled{set.At(), b.Labels()})
	}
	list.err, list.warnings = set.Err(), set.Warnings()
	slices.SortFunc(list.series, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return list
}

type labelled struct {
	storage.Series
	labels labels.Labels
}

// Labels implements storage.Series.
func (s labelled) Labels() labels.Labels { return s.labels }

type seriesList struct {
	series   []storage.Series
	next     int
	err      error
	warnings annotations.Annotations
}

// Next implements storage.SeriesSet.
func (l *seriesList) Next() bool {
	l.next++
	return l.next <= len(l.series)
}

// At implements storage.SeriesSet.
func (l *seriesList) At() storage.Series { return l.series[l.next-1] }

// Err implements storage.SeriesSet.
func (l *seriesList) Err() error { return l.err }

// Warnings implements storage.SeriesSet.
func (l *seriesList) Warnings() annotations.Annotations { return l.warnings }
