package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// receiver is Prometheus' remote-write receiver over a TSDB, with faults.
type receiver struct {
	*httptest.Server

	db *teststorage.TestStorage

	mu sync.Mutex
	// fault, if set, may answer in the receiver's place.
	fault    func(w http.ResponseWriter, r *http.Request) bool
	attempts []time.Time
	// metadata and exemplars are those of all requests.
	metadata  []prompb.MetricMetadata
	exemplars int
}

func newReceiver(t *testing.T, versions ...remoteapi.WriteMessageType) *receiver {
	t.Helper()
	r := &receiver{db: teststorage.New(t)}
	h := remote.NewWriteHandler(slog.New(slog.DiscardHandler), nil, r.db, versions, false, false, false)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if fault := r.attempt(); fault != nil && fault(w, req) {
			return
		}
		if v2 := strings.Contains(req.Header.Get("Content-Type"), "v2"); !v2 || slices.Contains(versions, remoteapi.WriteV2MessageType) {
			r.note(t, req)
		}
		h.ServeHTTP(w, req)
	}))
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) attempt() func(w http.ResponseWriter, r *http.Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, time.Now())
	return r.fault
}

// note keeps what the receiver itself forgets.
func (r *receiver) note(t *testing.T, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	plain, err := compression.Decode(compression.Snappy, body, nil)
	require.NoError(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Contains(req.Header.Get("Content-Type"), "v2") {
		var v2 writev2.Request
		require.NoError(t, v2.Unmarshal(plain))
		for _, ts := range v2.Timeseries {
			r.exemplars += len(ts.Exemplars)
			if m := ts.ToMetadata(v2.Symbols); m.Help != "" {
				r.metadata = append(r.metadata, prompb.MetricMetadata{Type: prompb.MetricMetadata_MetricType(ts.Metadata.Type), MetricFamilyName: "c_total", Help: m.Help})
			}
		}
		return
	}
	var v1 prompb.WriteRequest
	require.NoError(t, v1.Unmarshal(plain))
	r.metadata = append(r.metadata, v1.Metadata...)
	for _, ts := range v1.Timeseries {
		r.exemplars += len(ts.Exemplars)
	}
}

func (r *receiver) setFault(f func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.attempts)
}

// samples are all of the series of a name, in their order, as text.
func (r *receiver) samples(t *testing.T, name string) (text []string) {
	t.Helper()
	q, err := r.db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name))
	for set.Next() {
		for it := set.At().Iterator(nil); ; {
			switch it.Next() {
			case chunkenc.ValFloat:
				at, v := it.At()
				text = append(text, fmt.Sprintf("%s %v@%d", set.At().Labels(), v, at))
				continue
			case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
				at, h := it.AtFloatHistogram(nil)
				text = append(text, fmt.Sprintf("%s %v@%d", set.At().Labels(), h, at))
				continue
			case chunkenc.ValNone:
			}
			break
		}
	}
	require.NoError(t, set.Err())
	return text
}

// set-up is a log with destinations.
type setup struct {
	t   *testing.T
	dir string
	log *wal.Log
	set *Set
	reg *prometheus.Registry
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	s := &setup{t: t, dir: t.TempDir()}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *setup) open() {
	var err error
	logger := slog.New(slog.DiscardHandler)
	s.reg = prometheus.NewRegistry()
	s.log, err = wal.Open(s.dir, wal.Options{}, wal.Deps{Logger: logger, Registerer: s.reg})
	require.NoError(s.t, err)
	s.set, err = New(s.dir, Deps{Log: s.log, Logger: logger, Registerer: s.reg})
	require.NoError(s.t, err)
}

func (s *setup) close() {
	require.NoError(s.t, s.set.Close(time.Second))
	require.NoError(s.t, s.log.Close())
}

// apply configures remote writes, each in the form of the configuration file.
func (s *setup) apply(writes ...string) {
	s.t.Helper()
	text := "global: {external_labels: {cluster: east}}\nremote_write:\n"
	for _, w := range writes {
		text += "- " + strings.ReplaceAll(strings.TrimSpace(w), "\n", "\n  ") + "\n"
	}
	conf, err := config.Load(text, slog.New(slog.DiscardHandler))
	require.NoError(s.t, err)
	for i, w := range writes {
		if !strings.Contains(w, "protobuf_message") {
			conf.RemoteWriteConfigs[i].ProtobufMessage = ""
		}
	}
	require.NoError(s.t, s.set.Apply(conf))
}

// to is a remote write that sends at once and tries again soon.
func to(r *receiver, more ...string) string {
	return fmt.Sprintf("url: %s/write\nqueue_config: {batch_send_deadline: 10ms, min_backoff: 5ms, max_backoff: 20ms, max_samples_per_send: 10}\n%s", r.URL, strings.Join(more, "\n"))
}

// commit scrapes something.
func (s *setup) commit(f func(a storage.Appender)) {
	s.t.Helper()
	a := s.log.Appender(s.t.Context())
	f(a)
	require.NoError(s.t, a.Commit())
}

// scrapes commits n scrapes of the series a and b, whose value is the time.
func (s *setup) scrapes(from, n int) {
	s.t.Helper()
	for at := from; at < from+n; at++ {
		s.commit(func(a storage.Appender) {
			for _, name := range []string{"a", "b"} {
				_, err := a.Append(0, labels.FromStrings("__name__", name), int64(at), float64(at))
				require.NoError(s.t, err)
			}
		})
	}
}

// eventually is patient with a loaded machine.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, time.Minute, 5*time.Millisecond, what)
}

func (s *setup) metric(name string) (sum float64) {
	s.t.Helper()
	families, err := s.reg.Gather()
	require.NoError(s.t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func (s *setup) delivered() {
	s.t.Helper()
	eventually(s.t, "all is delivered", func() bool { return s.metric("prometheus_remote_storage_samples_pending") == 0 })
}

// want is what scrapes makes.
func want(name string, from, n int) (text []string) {
	for at := from; at < from+n; at++ {
		text = append(text, fmt.Sprintf(`{__name__=%q, cluster="east"} %d@%d`, name, at, at))
	}
	return text
}

var both = []remoteapi.WriteMessageType{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}

func status(code int, header ...string) func(w http.ResponseWriter, _ *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		http.Error(w, "a fault", code)
		return true
	}
}

func TestDestinationThatIsAwayLosesNothing(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"500":                 status(500),
		"503":                 status(503),
		"429":                 status(429),
		"401":                 status(401),
		"404":                 status(404),
		"closes at once":      func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"closes half-way":     closeHalfWay,
		"answers and closes":  answerHalf,
		"takes more than 1 s": tooSlow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, both...)
			s := newSetup(t)
			s.apply(to(r, "remote_timeout: 1s"))
			s.scrapes(1, 3)
			s.delivered()
			r.setFault(fault)
			before := r.tried()
			s.scrapes(4, 40)
			eventually(t, "it is tried again", func() bool { return r.tried() > before+1 })
			require.EqualValues(t, 80, s.metric("prometheus_remote_storage_samples_pending"))
			r.setFault(nil)
			s.delivered()
			require.Equal(t, want("a", 1, 43), r.samples(t, "a"))
			require.Equal(t, want("b", 1, 43), r.samples(t, "b"))
			require.Zero(t, s.metric("prometheus_remote_storage_samples_failed_total"))
			require.Positive(t, s.metric("prometheus_remote_storage_samples_retried_total"))
		})
	}
}

func tooSlow(_ http.ResponseWriter, r *http.Request) bool {
	// Only who has read all notices that the client is gone.
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	return true
}

func closeHalfWay(w http.ResponseWriter, r *http.Request) bool {
	_, _ = io.ReadFull(r.Body, make([]byte, 5))
	panic(http.ErrAbortHandler)
}

func answerHalf(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", "100")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write([]byte("half"))
	panic(http.ErrAbortHandler)
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, both...)
	r.setFault(status(http.StatusTooManyRequests, "Retry-After", "1"))
	s := newSetup(t)
	s.apply(to(r))
	s.scrapes(1, 1)
	eventually(t, "three attempts", func() bool { return r.tried() >= 3 })
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 1; i < 3; i++ {
		require.Greater(t, r.attempts[i].Sub(r.attempts[i-1]), 990*time.Millisecond)
	}
	r.fault = nil
}

func TestVersions(t *testing.T) {
	t.Parallel()
	silent := func(w http.ResponseWriter, r *http.Request) bool {
		// As servers that are older than the protocol do.
		if strings.Contains(r.Header.Get("Content-Type"), "v2") {
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		return false
	}
	for name, tc := range map[string]struct {
		versions []remoteapi.WriteMessageType
		fault    func(w http.ResponseWriter, r *http.Request) bool
		write    string
		v1       bool
	}{
		"both":             {versions: both},
		"1.0 alone":        {versions: both[:1], v1: true},
		"1.0, silently":    {versions: both, fault: silent, v1: true},
		"1.0 is demanded":  {versions: both, write: "protobuf_message: prometheus.WriteRequest", v1: true},
		"2.0 is demanded":  {versions: both[1:], write: "protobuf_message: io.prometheus.write.v2.Request"},
		"2.0 is not known": {versions: both[:1], write: "protobuf_message: io.prometheus.write.v2.Request", v1: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, tc.versions...)
			r.setFault(tc.fault)
			s := newSetup(t)
			s.apply(to(r, "send_exemplars: true\nsend_native_histograms: true", tc.write))
			lset := func(name string) labels.Labels { return labels.FromStrings("__name__", name, "job", "j") }
			s.commit(func(a storage.Appender) {
				ref, err := a.Append(0, lset("c_total"), 1000, 7)
				require.NoError(t, err)
				_, err = a.AppendExemplar(ref, lset("c_total"), exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "x"), Value: 3, Ts: 999, HasTs: true})
				require.NoError(t, err)
				_, err = a.UpdateMetadata(ref, lset("c_total"), metadata.Metadata{Type: model.MetricTypeCounter, Help: "What."})
				require.NoError(t, err)
				_, err = a.AppendHistogram(0, lset("h"), 1000, tsdbutil.GenerateTestHistogram(3), nil)
				require.NoError(t, err)
				_, err = a.AppendHistogram(0, lset("f"), 1000, nil, tsdbutil.GenerateTestCustomBucketsFloatHistogram(3))
				require.NoError(t, err)
			})
			s.commit(func(a storage.Appender) {
				_, err := a.Append(0, lset("c_total"), 2000, math.Float64frombits(value.StaleNaN))
				require.NoError(t, err)
			})
			s.delivered()
			const rest = `, cluster="east", job="j"}`
			require.Equal(t, []string{`{__name__="c_total"` + rest + " 7@1000", `{__name__="c_total"` + rest + " NaN@2000"}, r.samples(t, "c_total"))
			require.Equal(t, []string{fmt.Sprintf(`{__name__="h"%s %v@1000`, rest, tsdbutil.GenerateTestHistogram(3).ToFloat(nil))}, r.samples(t, "h"))
			require.Equal(t, []string{fmt.Sprintf(`{__name__="f"%s %v@1000`, rest, tsdbutil.GenerateTestCustomBucketsFloatHistogram(3))}, r.samples(t, "f"))
			if tc.v1 {
				eventually(t, "metadata", func() bool { return s.metric("prometheus_remote_storage_metadata_total") > 0 })
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			require.Equal(t, 1, r.exemplars)
			require.Equal(t, prompb.MetricMetadata{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "c_total", Help: "What."}, r.metadata[0])
			require.Equal(t, tc.v1, s.set.destinations[r.URL+"/write"].version1.Load())
			require.Zero(t, s.metric("prometheus_remote_storage_samples_failed_total"))
		})
	}
}

func TestRefusedSamplesHoldUpNothing(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"prometheus.WriteRequest", "io.prometheus.write.v2.Request"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, both...)
			// The receiver has later samples of one series already.
			a := r.db.Appender(t.Context())
			_, err := a.Append(0, labels.FromStrings("__name__", "a", "cluster", "east"), 3, 99)
			require.NoError(t, err)
			require.NoError(t, a.Commit())
			s := newSetup(t)
			s.apply(to(r, "protobuf_message: "+version))
			s.scrapes(1, 5)
			s.delivered()
			require.Equal(t, want("b", 1, 5), r.samples(t, "b"))
			require.Equal(t, []string{`{__name__="a", cluster="east"} 99@3`, `{__name__="a", cluster="east"} 4@4`, `{__name__="a", cluster="east"} 5@5`}, r.samples(t, "a"))
			require.EqualValues(t, 3, s.metric("prometheus_remote_storage_samples_failed_total"))
		})
	}
}

func TestEachDestinationHasItsOwn(t *testing.T) {
	t.Parallel()
	all, few, down := newReceiver(t, both...), newReceiver(t, both...), newReceiver(t, both...)
	down.setFault(status(500))
	s := newSetup(t)
	s.apply(to(all), to(few, "write_relabel_configs:\n- {source_labels: [__name__], regex: a, action: keep}\n- {target_label: to, replacement: few}\n- {regex: cluster, action: labeldrop}"), to(down))
	s.scrapes(1, 20)
	eventually(t, "those that are there have all", func() bool {
		return len(all.samples(t, "a")) == 20 && len(all.samples(t, "b")) == 20 && len(few.samples(t, "a")) == 20
	})
	require.Equal(t, `{__name__="a", to="few"} 1@1`, few.samples(t, "a")[0])
	require.Empty(t, few.samples(t, "b"))
	require.Equal(t, 3, testutil.CollectAndCount(s.set.metrics.state, "prometheus_remote_storage_samples_pending"))
	require.Empty(t, down.samples(t, "a"))
	down.setFault(nil)
	s.delivered()
	require.Equal(t, want("a", 1, 20), down.samples(t, "a"))
}

func TestRestartsAndSettings(t *testing.T) {
	t.Parallel()
	r, late := newReceiver(t, both...), newReceiver(t, both...)
	s := newSetup(t)
	s.apply(to(r))
	s.scrapes(1, 5)
	s.delivered()
	r.setFault(status(500))
	s.scrapes(6, 5)
	s.apply(to(r, "remote_timeout: 2s"), to(late))
	s.scrapes(11, 5)
	s.close()
	s.open()
	s.apply(to(late), to(r))
	s.scrapes(16, 5)
	r.setFault(nil)
	s.delivered()
	require.Equal(t, want("a", 1, 20), r.samples(t, "a"))
	require.Equal(t, want("a", 11, 10), late.samples(t, "a"), "it begins when it is configured")
	require.Zero(t, s.metric("prometheus_remote_storage_samples_failed_total"))
}

func TestSampleAgeLimit(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, both...)
	s := newSetup(t)
	s.apply(fmt.Sprintf("url: %s\nqueue_config: {batch_send_deadline: 10ms, sample_age_limit: 1h}", r.URL))
	s.scrapes(1, 2)
	s.scrapes(int(time.Now().UnixMilli()), 1)
	s.delivered()
	require.Len(t, r.samples(t, "a"), 1)
	require.EqualValues(t, 4, s.metric("prometheus_remote_storage_samples_dropped_total"))
}
