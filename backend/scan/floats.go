package scan

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// ErrNotFloats says that a read can't be handed out as a column, because it
// has native histograms, does not fit into the bound on samples, or came with
// warnings; it may be asked for through the batch's Querier.
var ErrNotFloats = errors.New("not in memory as floats")

// Floats returns what a selector of a query sees between two instants in
// milliseconds, both included; samples outside may be there as well. The query
// is one that has asked for columns and is not done, and its expression has
// the selector.
func (b *Batch) Floats(ctx context.Context, ms []*labels.Matcher, mint, maxt int64) (Column, error) {
	ms = sortMatchers(ms)
	e := find(b.entries[keyOf(ms)], window{mint, maxt})
	if e == nil {
		return Column{}, ErrNotFloats
	}
	root := e.root()
	root.start()
	select {
	case <-root.done:
	case <-ctx.Done():
		return Column{}, ctx.Err()
	}
	switch {
	case root.result == resultError:
		return Column{}, root.err
	case root.result != resultShared || len(root.warnings) > 0:
		return Column{}, ErrNotFloats
	}
	return root.view(ms), nil
}

// Last returns the newest of some points that is no newer than t, or false.
func Last(points []promql.FPoint, t int64) (promql.FPoint, bool) {
	n := search(points, t+1)
	if n == 0 {
		return promql.FPoint{}, false
	}
	return points[n-1], true
}

// Within returns the points after one instant until another one.
func Within(points []promql.FPoint, after, until int64) []promql.FPoint {
	return slices.Clip(cut(points, window{after + 1, until}))
}
