package remote

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"
)

// LabelSource knows the label names and values of the series stored in one
// backend. Errors are *Errors.
type LabelSource interface {
	LabelNames(ctx context.Context, s Span) ([]string, error)
	LabelValues(ctx context.Context, name string, s Span) ([]string, error)
}

// Span restricts a call about labels to a time range, in milliseconds, both
// ends included, and to series.
type Span struct {
	Start, End int64
	Matchers   []*labels.Matcher
}

func (s Span) form() url.Values {
	form := url.Values{"start": {seconds(s.Start)}, "end": {seconds(s.End)}}
	if len(s.Matchers) > 0 {
		form.Set("match[]", (&parser.VectorSelector{LabelMatchers: s.Matchers}).String())
	}
	return form
}

// LabelNames implements LabelSource.
func (h *HTTP) LabelNames(ctx context.Context, s Span) ([]string, error) {
	return h.strings(ctx, "/api/v1/labels", s)
}

// LabelValues implements LabelSource.
func (h *HTTP) LabelValues(ctx context.Context, name string, s Span) ([]string, error) {
	return h.strings(ctx, "/api/v1/label/"+url.PathEscape(name)+"/values", s)
}

func (h *HTTP) strings(ctx context.Context, path string, s Span) ([]string, error) {
	body, err := h.call(ctx, http.MethodGet, path, s.form())
	if err != nil {
		return nil, err
	}
	var a struct {
		Status string   `json:"status"`
		Data   []string `json:"data"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Status != "success" {
		return nil, errorf(KindBackend, "the answer of %s is not JSON of the Prometheus API: %s", path, excerpt(body))
	}
	return a.Data, nil
}

// LabelNames implements storage.LabelQuerier.
func (q *rawQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.gather(ctx, hints, matchers, func(ctx context.Context, r *Reader) ([]string, error) {
		return r.labelNames(ctx, q.span(matchers, r))
	})
}

// LabelValues implements storage.LabelQuerier.
func (q *rawQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.gather(ctx, hints, matchers, func(ctx context.Context, r *Reader) ([]string, error) {
		return r.labelValues(ctx, name, q.span(matchers, r))
	})
}

// gather is the sorted union of what the backends that can match say.
func (q *rawQuerier) gather(ctx context.Context, hints *storage.LabelHints, matchers []*labels.Matcher, ask func(context.Context, *Reader) ([]string, error)) ([]string, annotations.Annotations, error) {
	lists := make([][]string, len(q.raw.readers))
	group, ctx := errgroup.WithContext(ctx)
	for i, r := range q.raw.readers {
		if r.backend.Holds(matchers) {
			group.Go(func() (err error) {
				lists[i], err = ask(ctx, r)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	all := slices.Concat(lists...)
	slices.Sort(all)
	all = slices.Compact(all)
	if hints != nil && hints.Limit > 0 && len(all) > hints.Limit {
		all = all[:hints.Limit]
	}
	return all, nil, nil
}

func (q *rawQuerier) span(matchers []*labels.Matcher, r *Reader) Span {
	return Span{Start: q.mint, End: q.maxt, Matchers: r.stored(matchers)}
}

func (r *Reader) labelNames(ctx context.Context, s Span) ([]string, error) {
	names, err := r.source.LabelNames(ctx, s)
	if len(names) > 0 {
		r.partition.Range(func(l labels.Label) { names = append(names, l.Name) })
	}
	return names, r.named(err)
}

func (r *Reader) labelValues(ctx context.Context, name string, s Span) ([]string, error) {
	if !r.partition.Has(name) {
		values, err := r.source.LabelValues(ctx, name, s)
		return values, r.named(err)
	}
	// Every series has the one value, if there are any.
	names, err := r.source.LabelNames(ctx, s)
	if err != nil || len(names) == 0 {
		return nil, r.named(err)
	}
	return []string{r.partition.Get(name)}, nil
}
