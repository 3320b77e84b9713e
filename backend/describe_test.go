package backend_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

func mustLabels(series string) labels.Labels {
	ls, err := parser.ParseMetric(series)
	if err != nil {
		panic(err)
	}
	return ls
}

// describe renders series with their samples; a NaN is shown by its bits.
func describe(tb testing.TB, set storage.SeriesSet) []string {
	tb.Helper()
	var lines []string
	for set.Next() {
		s := set.At()
		lines = append(lines, s.Labels().String()+describeSamples(tb, s.Iterator(nil)))
	}
	require.NoError(tb, set.Err())
	return lines
}

func describeSamples(tb testing.TB, it chunkenc.Iterator) string {
	tb.Helper()
	var b strings.Builder
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if kind == chunkenc.ValFloat {
			t, f := it.At()
			if math.IsNaN(f) {
				fmt.Fprintf(&b, " NaN(%x)@%d", math.Float64bits(f), t)
			} else {
				fmt.Fprintf(&b, " %g@%d", f, t)
			}
			continue
		}
		t, h := it.AtFloatHistogram(nil)
		fmt.Fprintf(&b, " %s@%d", h, t)
	}
	require.NoError(tb, it.Err())
	return b.String()
}
