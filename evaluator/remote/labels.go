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

// span restricts a call about labels to a time range and to series.
func (q *rawQuerier) span(matchers []*labels.Matcher, r *Reader) url.Values {
	form := url.Values{"start": {seconds(q.mint)}, "end": {seconds(q.maxt)}}
	if stored := r.stored(matchers); len(stored) > 0 {
		form.Set("match[]", (&parser.VectorSelector{LabelMatchers: stored}).String())
	}
	return form
}

func (r *Reader) labelNames(ctx context.Context, form url.Values) ([]string, error) {
	names, err := r.strings(ctx, "/api/v1/labels", form)
	if len(names) > 0 {
		r.partition.Range(func(l labels.Label) { names = append(names, l.Name) })
	}
	return names, err
}

func (r *Reader) labelValues(ctx context.Context, name string, form url.Values) ([]string, error) {
	if !r.partition.Has(name) {
		return r.strings(ctx, "/api/v1/label/"+url.PathEscape(name)+"/values", form)
	}
	// Every series has the one value, if there are any.
	names, err := r.strings(ctx, "/api/v1/labels", form)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return []string{r.partition.Get(name)}, nil
}

func (r *Reader) strings(ctx context.Context, path string, form url.Values) ([]string, error) {
	body, err := r.api.call(ctx, http.MethodGet, path, form)
	if err != nil {
		return nil, r.named(err)
	}
	var a struct {
		Status string   `json:"status"`
		Data   []string `json:"data"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Status != "success" {
		return nil, r.named(errorf(KindBackend, "the answer of %s is not JSON of the Prometheus API: %s", path, excerpt(body)))
	}
	return a.Data, nil
}
