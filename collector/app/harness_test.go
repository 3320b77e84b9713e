package app_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector"
	"github.com/tocsin-rules/tocsin/collector/app"
	"github.com/tocsin-rules/tocsin/web/server"
)

// patience is how long a test waits for what must happen. It is far above
// what a loaded machine needs.
const patience = 60 * time.Second

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 20*time.Millisecond, what)
}

// target is an exporter whose counter seq tells how often it was scraped.
type target struct {
	*httptest.Server
	scrapes atomic.Int64
	down    atomic.Bool
	// hold, when set, keeps a scrape waiting until it is cancelled.
	hold atomic.Bool
	held chan struct{}
	// excused are the scrapes that began while a collector stopped.
	excused map[int64]bool
}

func newTarget(t *testing.T) *target {
	t.Helper()
	tg := &target{held: make(chan struct{}, 1), excused: map[int64]bool{}}
	tg.Server = httptest.NewServer(http.HandlerFunc(tg.serve))
	t.Cleanup(tg.Close)
	return tg
}

func (tg *target) serve(w http.ResponseWriter, r *http.Request) {
	if tg.hold.Load() {
		select {
		case tg.held <- struct{}{}:
		default:
		}
		<-r.Context().Done()
		return
	}
	if tg.down.Load() {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# TYPE seq counter\nseq %d\n", tg.scrapes.Add(1))
}

func (tg *target) addr() string { return strings.TrimPrefix(tg.URL, "http://") }

// stopCollector stops a collector that scrapes the target.
func (tg *target) stopCollector(t *testing.T, in *instance) {
	t.Helper()
	before := tg.scrapes.Load()
	require.NoError(t, in.stop())
	for n := before + 1; n <= tg.scrapes.Load(); n++ {
		tg.excused[n] = true
	}
}

// receiver is a backend: Prometheus' remote-write receiver over a TSDB.
type receiver struct {
	*httptest.Server
	db   *teststorage.TestStorage
	down atomic.Bool
	// refused counts the requests that met a backend that was down.
	refused atomic.Int64
	// protocols counts requests by content type.
	v1, v2 atomic.Int64
	// written counts the samples of all requests that it took.
	written atomic.Int64
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	rc := &receiver{db: teststorage.New(t)}
	h := remote.NewWriteHandler(slog.New(slog.DiscardHandler), nil, rc.db,
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}, false, false, false)
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rc.down.Load() {
			rc.refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		if strings.Contains(r.Header.Get("Content-Type"), "v2") {
			rc.v2.Add(1)
		} else {
			rc.v1.Add(1)
		}
		h.ServeHTTP(w, r)
		stats, err := remote.ParseWriteResponseStats(&http.Response{Header: w.Header()})
		if err != nil {
			t.Error(err)
		}
		rc.written.Add(int64(stats.Samples))
	}))
	rc.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(rc.Close)
	return rc
}

// stored is the number of samples in the backend.
func (rc *receiver) stored(t *testing.T) (n int64) {
	t.Helper()
	q, err := rc.db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, ""))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			n++
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return n
}

type point struct {
	t int64
	v float64
}

// series returns all samples of the one series that matches.
func (rc *receiver) series(t *testing.T, name string, kv ...string) (labels.Labels, []point) {
	t.Helper()
	q, err := rc.db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name)}
	for i := 0; i < len(kv); i += 2 {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, kv[i], kv[i+1]))
	}
	set := q.Select(context.Background(), true, nil, ms...)
	var (
		lset   labels.Labels
		points []point
	)
	for set.Next() {
		require.True(t, lset.IsEmpty(), "more than one series matches: %s, %s", lset, set.At().Labels())
		lset = set.At().Labels()
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			points = append(points, point{ts, v})
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return lset, points
}

// requireNothingLost checks that of every scrape of the target that succeeded
// the sample has arrived: the counter is without a gap but for scrapes that are
// recorded as failed or that began while a collector stopped.
func (rc *receiver) requireNothingLost(t *testing.T, tg *target, kv ...string) {
	t.Helper()
	_, seq := rc.series(t, "seq", kv...)
	_, up := rc.series(t, "up", kv...)
	seq = withoutStaleMarkers(seq)
	require.NotEmpty(t, seq)
	for i := 1; i < len(seq); i++ {
		before, after := seq[i-1], seq[i]
		require.Greater(t, after.v, before.v, "out of order at %v", after)
		missing := 0
		for n := int64(before.v) + 1; n < int64(after.v); n++ {
			if !tg.excused[n] {
				missing++
			}
		}
		for _, u := range up {
			if u.v == 0 && u.t > before.t && u.t < after.t {
				missing--
			}
		}
		require.LessOrEqual(t, missing, 0, "samples lost between %v and %v", before, after)
	}
}

func withoutStaleMarkers(points []point) []point {
	var out []point
	for _, p := range points {
		if !math.IsNaN(p.v) {
			out = append(out, p)
		}
	}
	return out
}

// instance is a running collector process.
type instance struct {
	t    *testing.T
	url  string
	stop func() error
	logs *logBuffer
}

type setup struct {
	dir   string
	terms collector.Terms
}

func newSetup(t *testing.T, config string) *setup {
	t.Helper()
	s := &setup{dir: t.TempDir()}
	s.write(t, config)
	return s
}

func (s *setup) file() string { return filepath.Join(s.dir, "collector.yml") }

// write replaces the configuration file at once, as a mounted ConfigMap does.
func (s *setup) write(t *testing.T, config string) {
	t.Helper()
	next := s.file() + ".next"
	require.NoError(t, os.WriteFile(next, []byte(config), 0o600))
	require.NoError(t, os.Rename(next, s.file()))
}

func (s *setup) options() app.Options {
	return app.Options{
		ConfigFile:  s.file(),
		Terms:       s.terms,
		StoragePath: filepath.Join(s.dir, "data"),
		HTTP:        server.Config{ListenAddress: "127.0.0.1:0", EnableLifecycle: true},
	}
}

// start runs a collector until the test ends or stop is called.
func (s *setup) start(t *testing.T) *instance {
	t.Helper()
	logs := &logBuffer{}
	a, err := app.New(s.options(), slog.New(slog.NewTextHandler(logs, nil)))
	require.NoError(t, err)
	require.NoError(t, a.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	in := &instance{t: t, url: "http://" + a.Addr().String(), logs: logs}
	stopped := false
	in.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { require.NoError(t, in.stop()) })
	waitFor(t, "the collector is ready", func() bool {
		code, _ := in.get("/-/ready")
		return code == http.StatusOK
	})
	return in
}

func (in *instance) get(path string) (int, string) { return in.do(http.MethodGet, path) }

func (in *instance) do(method, path string) (int, string) {
	req, err := http.NewRequest(method, in.url+path, http.NoBody)
	require.NoError(in.t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(in.t, err)
	return resp.StatusCode, string(body)
}

const header = `
global:
  scrape_interval: 500ms
  scrape_timeout: 500ms
  external_labels:
    cluster: east
`

// remoteWrite is a configuration that sends soon and retries often.
func remoteWrite(rc *receiver, more ...string) string {
	return fmt.Sprintf(`
remote_write:
- url: %s/api/v1/write
  queue_config:
    batch_send_deadline: 100ms
    min_backoff: 20ms
    max_backoff: 100ms
%s
`, rc.URL, strings.Join(more, "\n"))
}

// patientRemoteWrite leaves the time that the default leaves, some seconds,
// between a scrape and its request.
func patientRemoteWrite(rc *receiver, more ...string) string {
	return strings.Replace(remoteWrite(rc, more...), "batch_send_deadline: 100ms", "batch_send_deadline: 3s", 1)
}

// job is a scrape configuration of static targets.
func job(name string, addrs ...string) string {
	return fmt.Sprintf(`
- job_name: %s
  static_configs:
  - targets: ['%s']
`, name, strings.Join(addrs, "','"))
}

func scrapes(jobs ...string) string {
	return "\nscrape_configs:" + strings.Join(jobs, "")
}
