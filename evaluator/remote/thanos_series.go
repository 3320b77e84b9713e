package remote

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	thanosv1 "github.com/tocsin-rules/tocsin/proto/thanos/v1"
)

// Series implements SeriesSource over the Store API, which alone has staleness
// markers and exact histograms. It does not deduplicate replicas as queries
// do; where that would make a difference the call fails.
func (t *Thanos) Series(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]storage.Series, error) {
	list, err := t.stored(ctx, hints, matchers)
	if err != nil {
		return nil, thanosError(ctx, err)
	}
	if err := t.unreplicated(ctx, hints, matchers, list); err != nil {
		return nil, err
	}
	series := make([]storage.Series, len(list))
	for i, s := range list {
		series[i] = promql.NewStorageSeries(s)
	}
	return series, nil
}

func (t *Thanos) stored(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]promql.Series, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := t.stores.Series(ctx, &thanosv1.SeriesRequest{
		MinTime: hints.Start, MaxTime: hints.End, Matchers: wireMatchers(matchers),
		PartialResponseDisabled: true, PartialResponseStrategy: thanosv1.PartialResponseStrategy_ABORT,
		ResponseBatchSize: seriesPerMessage,
	})
	if err != nil {
		return nil, err
	}
	s := thanosSeries{budget: budget{limit: t.cfg.MaxResponseBytes}, start: hints.Start, end: hints.End, maxSamples: t.cfg.MaxSamples}
	err = receive(stream, s.add)
	return s.list, err
}

func wireMatchers(matchers []*labels.Matcher) []*thanosv1.LabelMatcher {
	types := map[labels.MatchType]thanosv1.LabelMatcher_Type{
		labels.MatchEqual: thanosv1.LabelMatcher_EQ, labels.MatchNotEqual: thanosv1.LabelMatcher_NEQ,
		labels.MatchRegexp: thanosv1.LabelMatcher_RE, labels.MatchNotRegexp: thanosv1.LabelMatcher_NRE,
	}
	list := make([]*thanosv1.LabelMatcher, len(matchers))
	for i, m := range matchers {
		list[i] = &thanosv1.LabelMatcher{Type: types[m.Type], Name: m.Name, Value: m.Value}
	}
	return list
}

// thanosSeries decodes the answer to one Series call.
type thanosSeries struct {
	budget
	// start and end are the bounds of what is kept, both included.
	start, end int64
	maxSamples int
	samples    int
	list       []promql.Series
}

func (a *thanosSeries) add(msg *thanosv1.SeriesResponse) error {
	if err := a.spend(msg); err != nil {
		return err
	}
	switch r := msg.GetResult().(type) {
	case *thanosv1.SeriesResponse_Warning:
		return partial(r.Warning)
	case *thanosv1.SeriesResponse_Series:
		return a.take(r.Series)
	case *thanosv1.SeriesResponse_Batch:
		for _, s := range r.Batch.GetSeries() {
			if err := a.take(s); err != nil {
				return err
			}
		}
	}
	return nil // Hints.
}

func (a *thanosSeries) take(wire *thanosv1.Series) error {
	ls, err := decodeLabels(wire.GetLabels())
	if err != nil {
		return errorf(KindBackend, "the answer is malformed: %w", err)
	}
	chunks := make([]chunkenc.Iterable, len(wire.GetChunks()))
	for i, c := range wire.GetChunks() {
		if chunks[i], err = decodeChunk(c); err != nil {
			return errorf(KindBackend, "the answer is malformed: series %s: %w", ls, err)
		}
	}
	s := promql.Series{Metric: ls}
	if err := a.read(&s, storage.ChainSampleIteratorFromIterables(nil, chunks)); err != nil {
		return err
	}
	if len(s.Floats)+len(s.Histograms) > 0 {
		a.list = append(a.list, s)
	}
	return nil
}

func decodeChunk(c *thanosv1.AggrChunk) (chunkenc.Iterable, error) {
	if c.GetRaw() == nil {
		return nil, fmt.Errorf("the samples from %d ms on are downsampled", c.GetMinTime())
	}
	encodings := map[thanosv1.Chunk_Encoding]chunkenc.Encoding{
		thanosv1.Chunk_XOR:             chunkenc.EncXOR,
		thanosv1.Chunk_HISTOGRAM:       chunkenc.EncHistogram,
		thanosv1.Chunk_FLOAT_HISTOGRAM: chunkenc.EncFloatHistogram,
	}
	return chunkenc.FromData(encodings[c.GetRaw().GetType()], c.GetRaw().GetData())
}

// read takes what lies between the bounds.
func (a *thanosSeries) read(s *promql.Series, it chunkenc.Iterator) error {
	for typ := it.Seek(a.start); typ != chunkenc.ValNone && it.AtT() <= a.end; typ = it.Next() {
		if a.samples++; a.samples > a.maxSamples {
			return errorf(KindLimit, "a selector fetches more raw samples than max_samples (%d) permits", a.maxSamples)
		}
		if typ == chunkenc.ValFloat {
			t, v := it.At()
			s.Floats = append(s.Floats, promql.FPoint{T: t, F: v})
			continue
		}
		t, h := it.AtFloatHistogram(nil)
		s.Histograms = append(s.Histograms, promql.HPoint{T: t, H: h})
	}
	if err := it.Err(); err != nil {
		return errorf(KindBackend, "the answer is malformed: series %s: %w", s.Metric, err)
	}
	return nil
}

// unreplicated makes sure that queries see the same series. If the querier
// deduplicates replicas, queries do not see the replica label.
func (t *Thanos) unreplicated(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher, list []promql.Series) error {
	r := t.query(ctx, lastOver(hints, matchers), Options{})
	if r.Err != nil {
		return r.Err
	}
	seen := map[string]bool{}
	for _, s := range r.Value.(promql.Vector) {
		seen[s.Metric.String()] = true
	}
	for _, s := range list {
		if !seen[s.Metric.String()] && lives(s) {
			return errorf(KindBackend, "the querier deduplicates replicas, and raw series, which the expression needs, are not deduplicated: %s", s.Metric)
		}
	}
	return nil
}

// lastOver is an expression that has every series with a sample between the
// bounds of hints, at the next full second.
func lastOver(hints storage.SelectHints, matchers []*labels.Matcher) plan.Fragment {
	at := (hints.End + 999) / 1000 * 1000
	return plan.Fragment{
		Expr:   fmt.Sprintf("last_over_time(%s)", rangeSelector(matchers, hints.Start, at)),
		Window: plan.Window{Start: at, End: at},
	}
}

// lives tells whether a series has anything but staleness markers.
func lives(s promql.Series) bool {
	return slices.ContainsFunc(s.Floats, func(p promql.FPoint) bool { return !value.IsStaleNaN(p.F) }) ||
		slices.ContainsFunc(s.Histograms, func(p promql.HPoint) bool { return !value.IsStaleNaN(p.H.Sum) })
}
