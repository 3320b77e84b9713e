package write

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
)

// receiver is Prometheus' remote-write receiver over Prometheus' storage.
func receiver(t *testing.T, accepts ...remoteapi.WriteMessageType) (*httptest.Server, *teststorage.TestStorage) {
	t.Helper()
	st := teststorage.New(t)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	srv := httptest.NewServer(remote.NewWriteHandler(promslog.NewNopLogger(), prometheus.NewRegistry(), st, accepts, false, false, false))
	t.Cleanup(srv.Close)
	return srv, st
}

var both = []remoteapi.WriteMessageType{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}

func destinationFor(name, url string) Destination {
	d := Destination{Name: name, URLs: []string{url}, Timeout: 10 * time.Second}
	if name == "global" {
		name = ""
	}
	d.Partition = labels.FromStrings("cluster", name)
	return d
}

func newWriter(t *testing.T, ds ...Destination) *Writer {
	t.Helper()
	w, err := New(Config{Destinations: ds, MaxPendingSamples: 1000}, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	return w
}

func sample(ts int64, v float64, lset ...string) promql.Sample {
	return promql.Sample{T: ts, F: v, Metric: labels.FromStrings(lset...)}
}

// stored lists what a storage holds, as "series value@time".
func stored(t *testing.T, st *teststorage.TestStorage) map[string][]promql.FPoint {
	t.Helper()
	q, err := st.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	out := map[string][]promql.FPoint{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+"))
	for set.Next() {
		s := set.At()
		points, err := storage.ExpandSamples(s.Iterator(nil), nil)
		require.NoError(t, err)
		for _, p := range points {
			out[s.Labels().String()] = append(out[s.Labels().String()], promql.FPoint{T: p.T(), F: p.F()})
		}
	}
	require.NoError(t, set.Err())
	return out
}

func TestSamplesGoToTheBackendWhosePartitionTheyCarry(t *testing.T) {
	t.Parallel()
	east, eastData := receiver(t, both...)
	global, globalData := receiver(t, both...)
	w := newWriter(t, destinationFor("east", east.URL), destinationFor("global", global.URL))
	got := w.Write(t.Context(), []Unit{
		{sample(1000, 1, "__name__", "a", "cluster", "east"), sample(1000, 2, "__name__", "b")},
		{sample(1000, 3, "__name__", "c", "cluster", "north")},
		{},
	})
	require.Len(t, got, 3)
	require.Equal(t, Result{}, got[0])
	require.EqualError(t, got[1].Rejected, `no backend holds series with {cluster="north"}: {__name__="c", cluster="north"}`)
	require.NoError(t, got[1].Err)
	require.Equal(t, Result{}, got[2])
	require.Equal(t, map[string][]promql.FPoint{`{__name__="a", cluster="east"}`: {{T: 1000, F: 1}}}, stored(t, eastData))
	require.Equal(t, map[string][]promql.FPoint{`{__name__="b"}`: {{T: 1000, F: 2}}}, stored(t, globalData))
}

func TestVirtualBackendsStoreNoPartitionLabels(t *testing.T) {
	t.Parallel()
	srv, data := receiver(t, both...)
	d := destinationFor("east", srv.URL)
	d.Virtual = true
	require.Equal(t, []Result{{}}, newWriter(t, d).Write(t.Context(), []Unit{{sample(1, 1, "__name__", "a", "cluster", "east", "x", "y")}}))
	require.Equal(t, map[string][]promql.FPoint{`{__name__="a", x="y"}`: {{T: 1, F: 1}}}, stored(t, data))
}

func TestHistogramsAndStaleMarkersArriveExactly(t *testing.T) {
	t.Parallel()
	for _, accepts := range both {
		t.Run(string(accepts), func(t *testing.T) {
			t.Parallel()
			srv, st := receiver(t, accepts)
			w := newWriter(t, Destination{Name: "all", URLs: []string{srv.URL}})
			h, custom := tsdbutil.GenerateTestFloatHistogram(3), tsdbutil.GenerateTestCustomBucketsFloatHistogram(3)
			require.Equal(t, []Result{{}}, w.Write(t.Context(), []Unit{{
				{T: 7, H: h, Metric: labels.FromStrings("__name__", "h")},
				{T: 7, H: custom, Metric: labels.FromStrings("__name__", "custom")},
				{T: 7, F: math.Float64frombits(value.StaleNaN), Metric: labels.FromStrings("__name__", "s")},
			}}))
			q, err := st.Querier(0, 10)
			require.NoError(t, err)
			defer q.Close()
			for name, want := range map[string]*histogram.FloatHistogram{"h": h, "custom": custom} {
				it := selectOne(t, q, name)
				require.Equal(t, chunkenc.ValFloatHistogram, it.Next())
				_, got := it.AtFloatHistogram(nil)
				require.True(t, want.Equals(got), "%s: %s, wrote %s", name, got, want)
			}
			it := selectOne(t, q, "s")
			require.Equal(t, chunkenc.ValFloat, it.Next())
			_, v := it.At()
			require.True(t, value.IsStaleNaN(v))
		})
	}
}

func selectOne(t *testing.T, q storage.Querier, name string) chunkenc.Iterator {
	t.Helper()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name))
	require.True(t, set.Next())
	return set.At().Iterator(nil)
}

// A rejected sample does not hold up the others, whatever the protocol, and is
// nobody else's fault.
func TestRejectedSamplesAreCountedAndDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	for _, accepts := range both {
		t.Run(string(accepts), func(t *testing.T) {
			t.Parallel()
			srv, data := receiver(t, accepts)
			w := newWriter(t, Destination{Name: "all", URLs: []string{srv.URL}})
			require.Equal(t, []Result{{}}, w.Write(t.Context(), []Unit{{sample(1000, 1, "__name__", "a")}}))
			got := w.Write(t.Context(), []Unit{
				{sample(2000, 1, "__name__", "b")},
				{sample(1000, 9, "__name__", "a")}, // another value at the same time
				{sample(2000, 1, "__name__", "c")},
			})
			for i := range got {
				require.NoError(t, got[i].Err)
			}
			require.NoError(t, got[0].Rejected)
			require.Error(t, got[1].Rejected)
			require.NoError(t, got[2].Rejected)
			require.Len(t, stored(t, data), 3)
			require.Equal(t, []promql.FPoint{{T: 1000, F: 1}}, stored(t, data)[`{__name__="a"}`])
			require.InDelta(t, 1, testutil.ToFloat64(w.metrics.rejected.WithLabelValues("all", "duplicate_value")), 0)
		})
	}
}

// Receivers from before 2.0 take its messages for empty ones of 1.0.
func TestAnOldReceiverThatIsContentWithNothingGetsProtocol1(t *testing.T) {
	t.Parallel()
	srv, data := receiver(t, remoteapi.WriteV1MessageType)
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Prometheus-Remote-Write-Version") != "0.1.0" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		srv.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(old.Close)
	w := newWriter(t, Destination{Name: "all", URLs: []string{old.URL}})
	require.Equal(t, []Result{{}}, w.Write(t.Context(), []Unit{{sample(1000, 1, "__name__", "a")}}))
	require.Len(t, stored(t, data), 1)
}

func TestTheSameSampleTwiceIsNoRejection(t *testing.T) {
	t.Parallel()
	srv, _ := receiver(t, both...)
	w := newWriter(t, Destination{Name: "all", URLs: []string{srv.URL}})
	for range 2 {
		require.Equal(t, []Result{{}}, w.Write(t.Context(), []Unit{{sample(1000, 1, "__name__", "a")}}))
	}
}

func TestFailuresThatMayPassAreToBeRepeated(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404, 429, 500, 503} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not now", status)
		}))
		got := newWriter(t, Destination{Name: "all", URLs: []string{srv.URL}}).Write(t.Context(), []Unit{{sample(1, 1, "__name__", "a")}, {}})
		srv.Close()
		require.ErrorContains(t, got[0].Err, `write to backend "all"`, "status %d", status)
		require.NoError(t, got[0].Rejected)
		require.NoError(t, got[1].Err)
	}
}

func TestABackendThatIsAwayFailsOnlyItsOwnUnits(t *testing.T) {
	t.Parallel()
	east, _ := receiver(t, both...)
	west := httptest.NewServer(nil)
	west.Close()
	w := newWriter(t, destinationFor("east", east.URL), destinationFor("west", west.URL))
	got := w.Write(t.Context(), []Unit{
		{sample(1, 1, "__name__", "a", "cluster", "east")},
		{sample(1, 1, "__name__", "a", "cluster", "west")},
	})
	require.NoError(t, got[0].Err)
	require.ErrorContains(t, got[1].Err, `write to backend "west"`)
}

// TestReplicasGetEverySample: one of them may be away, and lacks what is written
// meanwhile; if all are, the write is repeated.
func TestReplicasGetEverySample(t *testing.T) {
	t.Parallel()
	first, firstStore := receiver(t, both...)
	second, secondStore := receiver(t, both...)
	d := destinationFor("east", first.URL)
	d.URLs = append(d.URLs, second.URL)
	w := newWriter(t, d)
	unit := func(ts int64) []Unit { return []Unit{{sample(ts, 1, "__name__", "a", "cluster", "east")}} }
	require.Equal(t, []Result{{}}, w.Write(t.Context(), unit(1)))
	require.Equal(t, stored(t, firstStore), stored(t, secondStore))
	first.Close()
	require.Equal(t, []Result{{}}, w.Write(t.Context(), unit(2)))
	require.InDelta(t, 1, testutil.ToFloat64(w.metrics.lacking.WithLabelValues("east")), 0)
	require.InDelta(t, 2, testutil.ToFloat64(w.metrics.samples.WithLabelValues("east")), 0)
	second.Close()
	require.Error(t, w.Write(t.Context(), unit(3))[0].Err)
}

func TestPartitionsMustDiffer(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Destinations: []Destination{destinationFor("east", "http://localhost"), destinationFor("east", "http://localhost")}}, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.ErrorContains(t, err, "same partition labels")
}

func TestUnitsTellWhereTheyGo(t *testing.T) {
	t.Parallel()
	w := newWriter(t, destinationFor("east", "http://localhost"), destinationFor("west", "http://localhost"))
	east, west := sample(1, 1, "__name__", "a", "cluster", "east"), sample(1, 1, "__name__", "a", "cluster", "west")
	nowhere := sample(1, 1, "__name__", "a", "cluster", "north")
	got := w.Where([]Unit{{east}, {west, east}, {east, nowhere, west, east}, {nowhere}, {}})
	require.Equal(t, got[1], got[2])
	require.Equal(t, got[3], got[4], "what has no backend waits for none")
	require.Len(t, map[string]bool{got[0]: true, got[1]: true, got[3]: true}, 3)
}

// busy is a backend that answers with a status and a Retry-After header, and
// counts requests.
func busy(t *testing.T, status int, retryAfter string) (*httptest.Server, *atomic.Int64) {
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, "busy", status)
	}))
	t.Cleanup(srv.Close)
	return srv, &requests
}

func TestABackendThatAsksForTimeIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 503} {
		srv, requests := busy(t, status, "120")
		w := newWriter(t, Destination{Name: "all", URLs: []string{srv.URL}})
		one := []Unit{{sample(1, 1, "__name__", "a")}}
		require.ErrorContains(t, w.Write(t.Context(), one)[0].Err, "busy")
		got := w.Write(t.Context(), one)[0].Err
		require.ErrorContains(t, got, `write to backend "all": it asked to be left alone for another `)
		require.ErrorContains(t, got, "busy", "the reason is still shown")
		require.EqualValues(t, 1, requests.Load())
		require.EqualValues(t, 1, testutil.ToFloat64(w.metrics.held.WithLabelValues("all", heldRetryAfter)))
	}
}

func TestRetryAfterIsSecondsOrADateAndBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "7": 7 * time.Second, "999999999999": maxRetryAfter,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {text}}, now), text)
	}
}

// TestGate walks through what becomes of a backend that fails.
func TestGate(t *testing.T) {
	t.Parallel()
	var g gate
	now := time.Unix(1000, 0)
	trial, _, err := g.enter(now)
	require.NoError(t, err)
	require.False(t, trial)
	_, _, err = g.enter(now)
	require.NoError(t, err, "any number while all is well")
	g.leave(false, errors.New("away"), now)

	trial, _, err = g.enter(now)
	require.NoError(t, err)
	require.True(t, trial)
	_, reason, err := g.enter(now)
	require.Equal(t, heldUnavailable, reason)
	require.EqualError(t, err, "it failed and is being tried: away")
	g.leave(false, errors.New("still away"), now) // one that began before
	_, reason, _ = g.enter(now)
	require.Equal(t, heldUnavailable, reason)
	g.leave(true, errors.New("wait"), now.Add(time.Minute))

	_, reason, err = g.enter(now.Add(time.Second))
	require.Equal(t, heldRetryAfter, reason)
	require.EqualError(t, err, "it asked to be left alone for another 59s: wait")
	trial, _, err = g.enter(now.Add(time.Minute))
	require.NoError(t, err)
	require.True(t, trial)
	g.leave(trial, nil, now.Add(time.Hour))
	for range 2 {
		trial, _, err = g.enter(now.Add(time.Minute))
		require.NoError(t, err)
		require.False(t, trial)
	}
}

func TestSamplesOnTheirWayAreBounded(t *testing.T) {
	t.Parallel()
	var g gate
	require.NoError(t, g.reserve(20, 10), "a single write may be larger, or it would never be")
	require.EqualError(t, g.reserve(1, 10), "20 samples are on their way, with 1 more they are beyond write_max_pending_samples (10)")
	g.release(20)
	require.NoError(t, g.reserve(5, 10))
	require.NoError(t, g.reserve(5, 10))
}

// Were every refused sample looked for, a backend that refuses everything would
// get two requests a sample.
func TestARefusedRequestIsNotSplitForEver(t *testing.T) {
	t.Parallel()
	srv, requests := busy(t, http.StatusBadRequest, "")
	w := newWriter(t, Destination{Name: "all", URLs: []string{srv.URL}})
	var unit Unit
	for i := range 4000 {
		unit = append(unit, sample(1, 1, "__name__", "a", "i", strconv.Itoa(i)))
	}
	got := w.Write(t.Context(), []Unit{unit})[0]
	require.NoError(t, got.Err)
	require.Error(t, got.Rejected)
	require.LessOrEqual(t, requests.Load(), int64(2*maxSplits+1))
	require.EqualValues(t, 4000, testutil.ToFloat64(w.metrics.rejected.WithLabelValues("all", "other")))
}
