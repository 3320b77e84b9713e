package backlog_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector/backlog"
)

const patience = 60 * time.Second

// backend collects what it is sent as text, one line for each sample.
type backend struct {
	*httptest.Server
	mu       sync.Mutex
	got      []string
	requests int
	// answer decides on a request's lines; nil accepts all.
	answer func(lines []string) int
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines, err := decode(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.requests++
		if b.answer != nil {
			if code := b.answer(lines); code != http.StatusOK {
				http.Error(w, "refused", code)
				return
			}
		}
		b.got = append(b.got, lines...)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}

func decode(r *http.Request) ([]string, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if body, err = compression.Decode(compression.Snappy, body, nil); err != nil {
		return nil, err
	}
	if strings.Contains(r.Header.Get("Content-Type"), "v2") {
		return decodeV2(body)
	}
	return decodeV1(body)
}

func decodeV1(body []byte) ([]string, error) {
	var req prompb.WriteRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	var lines []string
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		l := ts.ToLabels(&b, nil)
		for _, s := range ts.Samples {
			lines = append(lines, fmt.Sprintf("%s %g @%d", l, s.Value, s.Timestamp))
		}
		for _, h := range ts.Histograms {
			lines = append(lines, histogramLine(l, h.Timestamp, h.IsFloatHistogram(), h.ToFloatHistogram()))
		}
	}
	return lines, nil
}

func decodeV2(body []byte) ([]string, error) {
	var req writev2.Request
	if err := req.Unmarshal(body); err != nil {
		return nil, err
	}
	var lines []string
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		l, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			return nil, err
		}
		for _, s := range ts.Samples {
			lines = append(lines, fmt.Sprintf("%s %g @%d", l, s.Value, s.Timestamp))
		}
		for _, h := range ts.Histograms {
			lines = append(lines, histogramLine(l, h.Timestamp, h.IsFloatHistogram(), h.ToFloatHistogram()))
		}
	}
	return lines, nil
}

func histogramLine(l labels.Labels, t int64, float bool, h *histogram.FloatHistogram) string {
	return fmt.Sprintf("%s histogram(float=%t count=%g) @%d", l, float, h.Count, t)
}

// wal is a write-ahead log that the test writes.
type wal struct {
	t    *testing.T
	path string
	*wlog.WL
	enc record.Encoder
}

func newWAL(t *testing.T) *wal {
	t.Helper()
	path := t.TempDir()
	w, err := wlog.NewSize(slog.New(slog.DiscardHandler), nil, filepath.Join(path, "wal"), 32*1024, compression.Snappy)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return &wal{t: t, path: path, WL: w}
}

func (w *wal) series(ref chunks.HeadSeriesRef, kv ...string) {
	w.t.Helper()
	require.NoError(w.t, w.Log(w.enc.Series([]record.RefSeries{{Ref: ref, Labels: labels.FromStrings(kv...)}}, nil)))
}

func (w *wal) sample(ref chunks.HeadSeriesRef, ts int64, v float64) {
	w.t.Helper()
	require.NoError(w.t, w.Log(w.enc.Samples([]record.RefSample{{Ref: ref, T: ts, V: v}}, nil)))
}

func (w *wal) nextSegment() {
	w.t.Helper()
	_, err := w.NextSegment()
	require.NoError(w.t, err)
}

// run is a Sender at work.
type run struct {
	*backlog.Sender
	reg *prometheus.Registry
	// caughtUp carries the call that asks for the queue; what the test sends
	// back is the answer.
	caughtUp chan chan int64
	done     chan error
	cancel   context.CancelFunc
}

func start(t *testing.T, w *wal, b *backend, change func(*backlog.Config)) *run {
	t.Helper()
	u, err := url.Parse(b.URL)
	require.NoError(t, err)
	rw := config.DefaultRemoteWriteConfig
	rw.URL = &commonconfig.URL{URL: u}
	rw.QueueConfig.MinBackoff = model.Duration(time.Millisecond)
	rw.QueueConfig.MaxBackoff = model.Duration(5 * time.Millisecond)
	cfg := backlog.Config{StoragePath: w.path, RemoteWrite: &rw, Grace: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	client, err := remote.NewWriteClient("", &remote.ClientConfig{URL: rw.URL, Timeout: rw.RemoteTimeout, WriteProtoMsg: rw.ProtobufMessage})
	require.NoError(t, err)
	r := &run{reg: prometheus.NewRegistry(), caughtUp: make(chan chan int64), done: make(chan error, 1)}
	r.Sender = backlog.New(cfg, backlog.Deps{Client: client, Logger: slog.New(slog.DiscardHandler), Metrics: backlog.NewMetrics(r.reg)})
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- r.Run(ctx, r.handOver) }()
	t.Cleanup(cancel)
	return r
}

func (r *run) handOver(ctx context.Context) (int64, error) {
	answer := make(chan int64)
	select {
	case r.caughtUp <- answer:
		return <-answer, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// awaitCaughtUp waits until the Sender asks for the queue.
func (r *run) awaitCaughtUp(t *testing.T) chan int64 {
	t.Helper()
	select {
	case answer := <-r.caughtUp:
		return answer
	case err := <-r.done:
		require.Fail(t, "the sender ended before it caught up", "%v", err)
	case <-time.After(patience):
		require.Fail(t, "the sender did not catch up")
	}
	return nil
}

// finish lets the queue take over after all that there is.
func (r *run) finish(t *testing.T) {
	t.Helper()
	r.awaitCaughtUp(t) <- time.Now().UnixMilli()
	require.NoError(t, <-r.done)
}

func (r *run) counter(t *testing.T, name string) int {
	t.Helper()
	families, err := r.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	require.Fail(t, "no such metric", name)
	return 0
}

func TestOnlyWhatWasNotSentIsSentInOrder(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a", "cluster", "own")
	w.series(2, "__name__", "b")
	w.sample(1, 1000, 1)
	w.sample(2, 1001, 2)
	w.nextSegment()
	w.sample(1, 2000, 3)
	w.sample(2, 2001, 4)
	r := start(t, w, b, func(c *backlog.Config) {
		c.After = 1000
		c.ExternalLabels = labels.FromStrings("cluster", "east")
	})
	r.finish(t)
	require.Equal(t, []string{
		`{__name__="b", cluster="east"} 2 @1001`,
		`{__name__="a", cluster="own"} 3 @2000`,
		`{__name__="b", cluster="east"} 4 @2001`,
	}, b.lines())
	require.Equal(t, int64(2001), r.Sent())
	require.Equal(t, 3, r.counter(t, "tocsin_collector_backlog_samples_total"))
}

func TestCheckpointStandsForTheSegmentsThatAreGone(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a")
	w.sample(1, 1000, 1)
	w.nextSegment()
	w.sample(1, 2000, 2)
	w.nextSegment()
	w.sample(1, 3000, 3)
	_, err := wlog.Checkpoint(slog.New(slog.DiscardHandler), w.WL, 0, 1, func(chunks.HeadSeriesRef) bool { return true }, 1500)
	require.NoError(t, err)
	require.NoError(t, w.Truncate(2))
	start(t, w, b, nil).finish(t)
	require.Equal(t, []string{`{__name__="a"} 2 @2000`, `{__name__="a"} 3 @3000`}, b.lines())
}

func TestSamplesScrapedMeanwhileAreSentUntilTheQueueTakesOver(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a")
	w.sample(1, 1000, 1)
	r := start(t, w, b, func(c *backlog.Config) { c.Grace = 5 * time.Second })
	answer := r.awaitCaughtUp(t)
	w.sample(1, 2000, 2)
	w.nextSegment()
	w.sample(1, 3000, 3)
	w.sample(1, 3001, 4)
	answer <- 3000
	require.Eventually(t, func() bool { return len(b.lines()) == 3 }, patience, time.Millisecond)
	require.NoError(t, <-r.done)
	require.Equal(t, []string{`{__name__="a"} 1 @1000`, `{__name__="a"} 2 @2000`, `{__name__="a"} 3 @3000`}, b.lines())
}

func TestHistogramsAreSentInBothProtocols(t *testing.T) {
	t.Parallel()
	for _, msg := range []remoteapi.WriteMessageType{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType} {
		t.Run(string(msg), func(t *testing.T) {
			t.Parallel()
			w, b := newWAL(t), newBackend(t)
			w.series(1, "__name__", "h")
			w.sample(1, 1000, 1)
			ints, _ := w.enc.HistogramSamples([]record.RefHistogramSample{{Ref: 1, T: 2000, H: tsdbutil.GenerateTestHistogram(1)}}, nil)
			floats, _ := w.enc.FloatHistogramSamples([]record.RefFloatHistogramSample{{Ref: 1, T: 3000, FH: tsdbutil.GenerateTestFloatHistogram(1)}}, nil)
			require.NoError(t, w.Log(ints, floats))
			start(t, w, b, func(c *backlog.Config) {
				c.RemoteWrite.ProtobufMessage = msg
				c.RemoteWrite.SendNativeHistograms = true
			}).finish(t)
			require.Equal(t, []string{
				`{__name__="h"} 1 @1000`,
				`{__name__="h"} histogram(float=false count=21) @2000`,
				`{__name__="h"} histogram(float=true count=21) @3000`,
			}, b.lines())

			none := newBackend(t)
			start(t, w, none, func(c *backlog.Config) { c.RemoteWrite.ProtobufMessage = msg }).finish(t)
			require.Equal(t, []string{`{__name__="h"} 1 @1000`}, none.lines())
		})
	}
}

func TestSettingsOfTheRemoteWriteApply(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	now := time.Now().UnixMilli()
	w.series(1, "__name__", "kept", "noise", "x")
	w.series(2, "__name__", "dropped")
	w.sample(1, now-time.Hour.Milliseconds(), 1)
	w.sample(1, now-2, 2)
	w.sample(2, now-1, 3)
	r := start(t, w, b, func(c *backlog.Config) {
		c.RemoteWrite.QueueConfig.SampleAgeLimit = model.Duration(10 * time.Minute)
		c.RemoteWrite.WriteRelabelConfigs = []*relabel.Config{
			{Action: relabel.Drop, SourceLabels: model.LabelNames{"__name__"}, Regex: relabel.MustNewRegexp("dropped"), NameValidationScheme: model.UTF8Validation},
			{Action: relabel.LabelDrop, Regex: relabel.MustNewRegexp("noise"), NameValidationScheme: model.UTF8Validation},
		}
	})
	r.finish(t)
	require.Equal(t, []string{fmt.Sprintf(`{__name__="kept"} 2 @%d`, now-2)}, b.lines())
	require.Equal(t, 1, r.counter(t, "tocsin_collector_backlog_samples_dropped_total"))
}

func TestRequestThatIsRefusedForOneSampleLosesNoOther(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a")
	b.answer = func(lines []string) int {
		for _, l := range lines {
			if strings.HasSuffix(l, "@1003") {
				return http.StatusBadRequest
			}
		}
		return http.StatusOK
	}
	var want []string
	for ts := int64(1000); ts < 1010; ts++ {
		w.sample(1, ts, 1)
		if ts != 1003 {
			want = append(want, fmt.Sprintf(`{__name__="a"} 1 @%d`, ts))
		}
	}
	r := start(t, w, b, nil)
	r.finish(t)
	require.Equal(t, want, b.lines())
	require.Equal(t, 9, r.counter(t, "tocsin_collector_backlog_samples_total"))
	require.Equal(t, 1, r.counter(t, "tocsin_collector_backlog_samples_dropped_total"))
}

func TestRequestThatIsRefusedForItsCredentialsIsNotSplit(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a")
	b.answer = func([]string) int { return http.StatusUnauthorized }
	for ts := int64(1000); ts < 1010; ts++ {
		w.sample(1, ts, 1)
	}
	r := start(t, w, b, nil)
	r.finish(t)
	require.Equal(t, 10, r.counter(t, "tocsin_collector_backlog_samples_dropped_total"))
	require.Equal(t, 1, b.requests)
}

func TestBackendThatIsAwayIsTriedAgainAndLargeBacklogsAreSplit(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a")
	refusals := 5
	b.answer = func(lines []string) int {
		require.LessOrEqual(t, len(lines), 3)
		if refusals--; refusals > 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	}
	var want []string
	for ts := int64(1000); ts < 1100; ts++ {
		w.sample(1, ts, 1)
		want = append(want, fmt.Sprintf(`{__name__="a"} 1 @%d`, ts))
	}
	start(t, w, b, func(c *backlog.Config) { c.RemoteWrite.QueueConfig.MaxSamplesPerSend = 3 }).finish(t)
	require.Equal(t, want, b.lines())
}

func TestSenderStopsWhileItsBackendIsAway(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	w.series(1, "__name__", "a")
	w.sample(1, 2000, 1)
	asked := make(chan struct{}, 1000)
	b.answer = func([]string) int {
		asked <- struct{}{}
		return http.StatusServiceUnavailable
	}
	r := start(t, w, b, func(c *backlog.Config) { c.After = 1500 })
	<-asked
	r.cancel()
	require.ErrorIs(t, <-r.done, context.Canceled)
	require.Equal(t, int64(1500), r.Sent())
}

func TestLogThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	w, b := newWAL(t), newBackend(t)
	r := start(t, &wal{t: t, path: filepath.Join(w.path, "nowhere")}, b, nil)
	err := <-r.done
	require.Error(t, err)
	require.NotErrorIs(t, err, context.Canceled)
}
