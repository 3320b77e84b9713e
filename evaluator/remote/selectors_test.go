package remote

import (
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
)

// TestRangeSelectorsFetchWhatRemoteReadDoes compares them at one server.
func TestRangeSelectorsFetchWhatRemoteReadDoes(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(promserver.Start(t, testData(t), labels.EmptyLabels()))
	require.NoError(t, err)
	cfg := HTTPConfig{Name: "b", URL: u, Client: config.DefaultHTTPClientConfig, MaxConcurrent: 1, MaxResponseBytes: 1 << 20}
	api, err := NewHTTP(cfg)
	require.NoError(t, err)
	read, err := NewChunkedRead(cfg, time.Minute)
	require.NoError(t, err)
	matching := func(name string) []*labels.Matcher {
		return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name)}
	}
	for _, hints := range []storage.SelectHints{{Start: 1000, End: 3000}, {Start: 1001, End: 2999}, {Start: 2000, End: 2000}} {
		want, err := read.Series(t.Context(), hints, matching("x"))
		require.NoError(t, err)
		got, err := NewRangeSelectors(api).Series(t.Context(), hints, matching("x"))
		require.NoError(t, err)
		require.Equal(t, timesOf(want), timesOf(got), "%v", hints)
	}
	_, err = NewRangeSelectors(api).Series(t.Context(), storage.SelectHints{Start: 0, End: 3000}, matching("h"))
	require.ErrorIs(t, err, ErrHistogram)
}

func timesOf(list []storage.Series) map[string][]int64 {
	times := map[string][]int64{}
	for _, s := range list {
		for it := s.Iterator(nil); it.Next() != chunkenc.ValNone; {
			times[s.Labels().String()] = append(times[s.Labels().String()], it.AtT())
		}
	}
	return times
}
