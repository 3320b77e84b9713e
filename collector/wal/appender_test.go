package wal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

func TestOrderIsThatOfPrometheus(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir(), generous)
	lset := labels.FromStrings("__name__", "a")
	scrape(t, l, 10, "other")
	a := l.Appender(t.Context())
	ref, err := a.Append(0, lset, 10, 1)
	require.NoError(t, err)
	_, err = a.Append(ref, lset, 10, 2)
	require.NoError(t, err)
	require.NoError(t, a.Commit())
	// A new segment knows the last samples still.
	cut(t, l)
	for _, s := range []struct {
		t    int64
		v    float64
		want error
	}{
		{10, 2, nil},
		{10, 3, storage.ErrDuplicateSampleForTimestamp},
		{9, 1, storage.ErrOutOfOrderSample},
		{11, math.Float64frombits(value.StaleNaN), nil},
	} {
		a := l.Appender(t.Context())
		// The same series has the same reference, whoever scrapes it.
		got, err := a.Append(0, lset, s.t, s.v)
		require.Equal(t, ref, got)
		require.ErrorIs(t, err, s.want)
		require.NoError(t, a.Commit())
	}
	require.Equal(t, "other@10=10 a@10=1 a@10=2 a@11=NaN", newCollected(l, Position{}).rest(t))
}

func TestRolledBackSamplesWereNeverThere(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir(), generous)
	lset := labels.FromStrings("__name__", "a")
	a := l.Appender(t.Context())
	ref, err := a.Append(0, lset, 10, 1)
	require.NoError(t, err)
	require.NoError(t, a.Rollback())
	// As a scrape does that failed half-way.
	a = l.Appender(t.Context())
	_, err = a.Append(ref, lset, 10, math.Float64frombits(value.StaleNaN))
	require.NoError(t, err)
	require.NoError(t, a.Commit())
	require.Equal(t, "a@10=NaN", newCollected(l, Position{}).rest(t))
}

func TestEverythingOfAScrapeArrives(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir(), generous)
	lset := func(name string) labels.Labels { return labels.FromStrings("__name__", name, "ü", "\"\n") }
	m := metadata.Metadata{Type: model.MetricTypeCounter, Unit: "seconds", Help: "What."}
	custom := &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 3, Sum: 4, CustomValues: []float64{1, 2},
		PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, 2},
	}
	e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "abc"), Value: 0.5, Ts: 999, HasTs: true}
	for at := int64(1000); at < 3000; at += 1000 {
		a := l.Appender(t.Context())
		ref, err := a.Append(0, lset("c_total"), at, 7)
		require.NoError(t, err)
		_, err = a.AppendExemplar(ref, lset("c_total"), e)
		require.NoError(t, err)
		_, err = a.UpdateMetadata(ref, lset("c_total"), m)
		require.NoError(t, err)
		_, err = a.AppendHistogram(0, lset("h"), at, tsdbutil.GenerateTestHistogram(at), nil)
		require.NoError(t, err)
		_, err = a.AppendHistogram(0, lset("f"), at, nil, custom)
		require.NoError(t, err)
		require.NoError(t, a.Commit())
		cut(t, l)
	}
	r := l.Reader(Position{})
	for at := int64(1000); at < 3000; at += 1000 {
		rec, err := r.Next()
		require.NoError(t, err)
		// Each segment has the whole definitions.
		// Compared as text, because equal labels may be built differently.
		require.Equal(t, fmt.Sprint([]Series{{lset("c_total"), m}, {lset("h"), metadata.Metadata{}}, {lset("f"), metadata.Metadata{}}}), fmt.Sprint(rec.Series))
		require.Equal(t, []Sample{
			{Number: 0, T: at, V: 7},
			{Number: 1, T: at, H: tsdbutil.GenerateTestHistogram(at)},
			{Number: 2, T: at, FH: custom},
		}, rec.Samples)
		if at == 1000 {
			require.Equal(t, fmt.Sprint([]Exemplar{{0, e}}), fmt.Sprint(rec.Exemplars))
		} else {
			require.Empty(t, rec.Exemplars, "it is the one from before")
		}
	}
	_, err := r.Next()
	require.ErrorIs(t, err, ErrEnd)
}

func TestCountersBeginWithZero(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir(), generous)
	l.opened = 5
	lset := labels.FromStrings("__name__", "a")
	for _, s := range []struct {
		at, since int64
		want      error
	}{
		{10, 5, storage.ErrOutOfOrderST}, // It was there before the log.
		{11, 5, storage.ErrOutOfOrderST},
		{20, 20, storage.ErrSTNewerThanSample},
		{30, 25, nil},
		{40, 25, storage.ErrOutOfOrderST},
	} {
		a := l.Appender(t.Context())
		ref, err := a.AppendSTZeroSample(0, lset, s.at, s.since)
		require.ErrorIs(t, err, s.want)
		_, err = a.Append(ref, lset, s.at, 7)
		require.NoError(t, err)
		require.NoError(t, a.Commit())
	}
	require.Equal(t, "a@10=7 a@11=7 a@20=7 a@25=0 a@30=7 a@40=7", newCollected(l, Position{}).rest(t))
}

// TestReadersAgreeWithAList compares the log, which is cut, closed, opened and
// read from any place, with a list of what was committed.
func TestReadersAgreeWithAList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 0))
			dir := t.TempDir()
			l := open(t, dir, generous)
			var list []string
			places := map[int]Position{}
			for at := int64(1); at < 60; at++ {
				var names []string
				for n := range 12 {
					if rnd.IntN(3) == 0 {
						names = append(names, fmt.Sprintf("s%d_%d", n, at/20))
						list = append(list, fmt.Sprintf("s%d_%d@%d=%d", n, at/20, at, at))
					}
				}
				scrape(t, l, at, names...)
				switch rnd.IntN(8) {
				case 0:
					cut(t, l)
				case 1:
					require.NoError(t, l.Close())
					l = open(t, dir, generous)
				case 2:
					places[len(list)] = l.End()
				}
			}
			places[0] = Position{}
			for from, place := range places {
				require.Equal(t, strings.Join(list[from:], " "), newCollected(l, place).rest(t), "go test ./collector/wal -run TestReadersAgreeWithAList/seed=%d", seed)
			}
		})
	}
}
