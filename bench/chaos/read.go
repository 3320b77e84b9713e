package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/tocsin-rules/tocsin/bench/chaos/fleet"
	"github.com/tocsin-rules/tocsin/bench/chaos/verdict"
)

// written is what a fleet wrote: recorded series, and those of alerts.
type written struct{ recorded, alerts []promql.Series }

// read gets the raw samples, staleness markers included, of all backends.
func read(ctx context.Context, f *fleet.Fleet, w verdict.Window) (written, error) {
	var all written
	for _, b := range f.Backends {
		for pattern, list := range map[string]*[]promql.Series{"chaos:.+": &all.recorded, "ALERTS|ALERTS_FOR_STATE": &all.alerts} {
			found, err := readRaw(ctx, b.URL, labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, pattern), w)
			if err != nil {
				return all, fmt.Errorf("read from %s: %w", b.Name, err)
			}
			*list = append(*list, found...)
		}
	}
	return all, nil
}

func readRaw(ctx context.Context, base string, m *labels.Matcher, w verdict.Window) ([]promql.Series, error) {
	u, err := url.Parse(base + "/api/v1/read")
	if err != nil {
		return nil, err
	}
	client, err := remote.NewReadClient("chaos", &remote.ClientConfig{
		URL: &config.URL{URL: u}, Timeout: model.Duration(time.Minute), ChunkedReadLimit: 64 << 20,
	})
	if err != nil {
		return nil, err
	}
	query, err := remote.ToQuery(w.From.UnixMilli(), w.Until.UnixMilli()-1, []*labels.Matcher{m}, nil)
	if err != nil {
		return nil, err
	}
	set, err := client.Read(ctx, query, false)
	if err != nil {
		return nil, err
	}
	var list []promql.Series
	var it chunkenc.Iterator
	for set.Next() {
		s := promql.Series{Metric: set.At().Labels()}
		it = set.At().Iterator(it)
		for it.Next() == chunkenc.ValFloat {
			t, v := it.At()
			s.Floats = append(s.Floats, promql.FPoint{T: t, F: v})
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		list = append(list, s)
	}
	return list, set.Err()
}
