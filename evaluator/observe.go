package evaluator

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// Observer is told what an evaluation costs while it runs. Its methods are
// called concurrently and must not change what they are given.
type Observer interface {
	// Answered: one backend has answered one request. The results are parallel
	// to the fragments; took is the time of the whole request.
	Answered(fragments []plan.Fragment, results []remote.Result, took time.Duration)
	// Fetched: raw series of a selector have been read, or could not be.
	Fetched(f Fetch)
}

// Fetch is what one selector that was left local has cost.
type Fetch struct {
	Matchers []*labels.Matcher
	Series   int
	Samples  uint64
	// Took is the time until all series were there and read.
	Took time.Duration
	Err  error
}

type observerKey struct{}

// Observed returns a context whose evaluations o is told of. Queries that could
// be folded are evaluated one by one, so that the costs are those of each.
// Counting raw samples reads them once more, so this is for looking at single
// evaluations.
func Observed(ctx context.Context, o Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

func isObserved(ctx context.Context) bool { return ctx.Value(observerKey{}) != nil }

func observeAnswer(ctx context.Context, fragments []plan.Fragment, results []remote.Result, took time.Duration) {
	if o, ok := ctx.Value(observerKey{}).(Observer); ok {
		o.Answered(fragments, results, took)
	}
}

// observeFetch returns the set, which counts what is read from it if anybody
// wants to know.
func observeFetch(ctx context.Context, set storage.SeriesSet, matchers []*labels.Matcher, began time.Time) storage.SeriesSet {
	o, ok := ctx.Value(observerKey{}).(Observer)
	if !ok {
		return set
	}
	return &countedSet{SeriesSet: set, observer: o, began: began, fetch: Fetch{Matchers: matchers}}
}

type countedSet struct {
	storage.SeriesSet

	observer Observer
	began    time.Time
	fetch    Fetch
}

// Next implements storage.SeriesSet. At its end the observer is told.
func (s *countedSet) Next() bool {
	if !s.SeriesSet.Next() {
		s.fetch.Took, s.fetch.Err = time.Since(s.began), s.Err()
		s.observer.Fetched(s.fetch)
		return false
	}
	s.fetch.Series++
	for it := s.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
		s.fetch.Samples++
	}
	return true
}
