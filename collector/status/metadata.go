package status

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/scrape"
)

// metadataOf is what one target says of one metric.
type metadataOf struct {
	Target labels.Labels    `json:"target"`
	Metric string           `json:"metric,omitempty"`
	Type   model.MetricType `json:"type"`
	Help   string           `json:"help"`
	Unit   string           `json:"unit"`
}

// targetMetadata has the parameters match_target, metric and limit.
func targetMetadata(s Scraper, r *http.Request) (any, error) {
	limit, err := limitOf(r, "limit")
	if err != nil {
		return nil, err
	}
	var matchers []*labels.Matcher
	if text := r.FormValue("match_target"); text != "" {
		if matchers, err = parser.ParseMetricSelector(text); err != nil {
			return nil, fmt.Errorf("invalid parameter \"match_target\": %w", err)
		}
	}
	lb, metric := labels.NewBuilder(labels.EmptyLabels()), r.FormValue("metric")
	found := []metadataOf{}
	for _, targets := range s.TargetsActive() {
		for _, t := range targets {
			lset := t.Labels(lb)
			if limit >= 0 && len(found) >= limit || !matches(lset, matchers) {
				continue
			}
			for _, md := range metadataIn(t, metric) {
				if metric != "" {
					md.MetricFamily = "" // It was asked for by name.
				}
				found = append(found, metadataOf{Target: lset, Metric: md.MetricFamily, Type: md.Type, Help: md.Help, Unit: md.Unit})
			}
		}
	}
	return found, nil
}

func metadataIn(t *scrape.Target, metric string) []scrape.MetricMetadata {
	if metric == "" {
		return t.ListMetadata()
	}
	if md, known := t.GetMetadata(metric); known {
		return []scrape.MetricMetadata{md}
	}
	return nil
}

func matches(lset labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
}

// metricMetadata has what all targets say of metrics, each thing once, with the
// parameters metric, limit and limit_per_metric.
func metricMetadata(s Scraper, r *http.Request) (any, error) {
	limit, err := limitOf(r, "limit")
	if err != nil {
		return nil, err
	}
	perMetric, err := limitOf(r, "limit_per_metric")
	if err != nil {
		return nil, err
	}
	found := map[string][]metadata.Metadata{}
	for _, targets := range s.TargetsActive() {
		for _, t := range targets {
			for _, md := range metadataIn(t, r.FormValue("metric")) {
				known := found[md.MetricFamily]
				said := metadata.Metadata{Type: md.Type, Help: md.Help, Unit: md.Unit}
				isNew := known == nil && limit >= 0 && len(found) >= limit
				if isNew || slices.Contains(known, said) || perMetric > 0 && len(known) >= perMetric {
					continue
				}
				found[md.MetricFamily] = append(known, said)
			}
		}
	}
	return found, nil
}

// limitOf is negative if the request has none.
func limitOf(r *http.Request, name string) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s must be a number", name)
	}
	return n, nil
}
