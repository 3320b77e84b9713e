package app_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector/app"
)

// logBuffer collects the log of a process.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestScrapedSamplesArriveWithExternalLabels(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"prometheus.WriteRequest", "io.prometheus.write.v2.Request"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			tg, rc := newTarget(t), newReceiver(t)
			s := newSetup(t, header+remoteWrite(rc, "  protobuf_message: "+proto)+scrapes(job("web", tg.addr())))
			s.start(t)
			waitFor(t, "three samples arrive", func() bool {
				_, points := rc.series(t, "seq")
				return len(points) >= 3
			})
			lset, _ := rc.series(t, "seq")
			require.Equal(t, labels.FromStrings("__name__", "seq", "cluster", "east", "instance", tg.addr(), "job", "web"), lset)
			_, up := rc.series(t, "up", "cluster", "east")
			require.NotEmpty(t, up)
			require.Equal(t, strings.Contains(proto, "v2"), rc.v2.Load() > 0)
			require.Equal(t, !strings.Contains(proto, "v2"), rc.v1.Load() > 0)
			rc.requireNothingLost(t, tg)
		})
	}
}

func TestBackendThatComesBackGetsAllSamplesInOrder(t *testing.T) {
	t.Parallel()
	tg, rc := newTarget(t), newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc)+scrapes(job("web", tg.addr())))
	s.start(t)
	waitFor(t, "samples arrive", func() bool {
		_, points := rc.series(t, "seq")
		return len(points) >= 1
	})
	rc.down.Store(true)
	before := tg.scrapes.Load()
	waitFor(t, "scrapes while the backend is away", func() bool {
		return tg.scrapes.Load() >= before+6 && rc.refused.Load() > 3
	})
	rc.down.Store(false)
	last := tg.scrapes.Load()
	waitFor(t, "samples from after the outage arrive", func() bool {
		_, points := rc.series(t, "seq")
		return points[len(points)-1].v > float64(last)
	})
	rc.requireNothingLost(t, tg)
}

func TestTargetThatIsDownIsRecordedAsDown(t *testing.T) {
	t.Parallel()
	tg, rc := newTarget(t), newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc)+scrapes(job("web", tg.addr())))
	in := s.start(t)
	lastUp := func(want float64) func() bool {
		return func() bool {
			_, up := rc.series(t, "up")
			return len(up) > 0 && up[len(up)-1].v == want
		}
	}
	waitFor(t, "up is 1", lastUp(1))
	tg.down.Store(true)
	waitFor(t, "up is 0", lastUp(0))
	code, body := in.get("/api/v1/targets")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, `"health":"down"`)
	tg.down.Store(false)
	waitFor(t, "up is 1 again", lastUp(1))
}

func TestReload(t *testing.T) {
	t.Parallel()
	tg, second, rc := newTarget(t), newTarget(t), newReceiver(t)
	both := header + remoteWrite(rc) + scrapes(job("web", tg.addr(), second.addr()))
	start := func(t *testing.T) (*setup, *instance) {
		s := newSetup(t, header+remoteWrite(rc)+scrapes(job("web", tg.addr())))
		return s, s.start(t)
	}
	scraped := func(in *instance, tg *target) func() bool {
		return func() bool {
			_, body := in.get("/api/v1/targets?state=active")
			return strings.Contains(body, tg.addr())
		}
	}

	t.Run("a request adds a target", func(t *testing.T) {
		t.Parallel()
		s, in := start(t)
		s.write(t, both)
		code, body := in.do(http.MethodPost, "/-/reload")
		require.Equal(t, http.StatusOK, code, body)
		waitFor(t, "the second target is scraped", scraped(in, second))
	})
	t.Run("a change of the file adds a target", func(t *testing.T) {
		t.Parallel()
		s, in := start(t)
		s.write(t, both)
		waitFor(t, "the second target is scraped", scraped(in, second))
		require.Contains(t, in.logs.String(), `why="configuration changed"`)
	})
	for name, bad := range map[string]string{
		"a syntax error":                header + "scrape_configs: {",
		"a field that agents lack":      both + "\nrule_files: ['rules.yml']",
		"a certificate that is missing": header + remoteWrite(rc, "  tls_config: {ca_file: nowhere.pem}") + scrapes(job("web", second.addr())),
		"a remote write given twice": header + remoteWrite(rc) +
			strings.Replace(remoteWrite(rc), "remote_write:", "", 1) + scrapes(job("web", second.addr())),
	} {
		t.Run(name+" keeps the configuration from before", func(t *testing.T) {
			t.Parallel()
			s, in := start(t)
			s.write(t, bad)
			code, body := in.do(http.MethodPost, "/-/reload")
			require.Equal(t, http.StatusInternalServerError, code)
			require.Contains(t, body, s.file())
			_, metrics := in.get("/metrics")
			require.Contains(t, metrics, "prometheus_config_last_reload_successful 0")
			require.Contains(t, in.logs.String(), "configuration not reloaded, the one from before stays")
			_, info := in.get("/api/v1/status/runtimeinfo")
			require.Contains(t, info, `"reloadConfigSuccess":false`)
			waitFor(t, "the first target is scraped", scraped(in, tg))
			require.False(t, scraped(in, second)())

			s.write(t, both)
			code, body = in.do(http.MethodPost, "/-/reload")
			require.Equal(t, http.StatusOK, code, body)
			_, metrics = in.get("/metrics")
			require.Contains(t, metrics, "prometheus_config_last_reload_successful 1")
			waitFor(t, "the second target is scraped", scraped(in, second))
		})
	}
}

func TestTargetsFromFilesComeAndGo(t *testing.T) {
	t.Parallel()
	tg, rc := newTarget(t), newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc)+scrapes("\n- job_name: files\n  file_sd_configs:\n  - files: ['targets.json']\n"))
	targets := filepath.Join(s.dir, "targets.json")
	write := func(body string) {
		require.NoError(t, os.WriteFile(targets+".next", []byte(body), 0o600))
		require.NoError(t, os.Rename(targets+".next", targets))
	}
	write(fmt.Sprintf(`[{"targets": [%q], "labels": {"zone": "a"}}]`, tg.addr()))
	in := s.start(t)
	waitFor(t, "the target is scraped", func() bool {
		_, points := rc.series(t, "seq", "zone", "a")
		return len(points) > 0
	})
	write(`[]`)
	waitFor(t, "the target is dropped", func() bool {
		_, body := in.get("/api/v1/targets?state=active")
		return !strings.Contains(body, tg.addr())
	})
}

func TestCollectorScrapesItself(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc)+"\n")
	in := s.start(t)
	s.write(t, header+remoteWrite(rc)+scrapes(job("collector", strings.TrimPrefix(in.url, "http://"))))
	waitFor(t, "its own metrics arrive", func() bool {
		_, points := rc.series(t, "prometheus_agent_active_series", "job", "collector")
		return len(points) > 0 && points[len(points)-1].v > 0
	})
	_, metrics := in.get("/metrics")
	for _, name := range []string{
		"prometheus_target_interval_length_seconds", "prometheus_sd_discovered_targets", "prometheus_remote_storage_samples_total",
		"prometheus_remote_storage_queue_highest_sent_timestamp_seconds", "prometheus_agent_samples_appended_total",
		"prometheus_config_last_reload_success_timestamp_seconds", "process_resident_memory_bytes", "go_goroutines", "tocsin_build_info",
	} {
		require.Contains(t, metrics, name)
	}
}

func TestStatusAPI(t *testing.T) {
	t.Parallel()
	tg, rc := newTarget(t), newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc, "  basic_auth: {username: u, password: hunter2}")+scrapes(job("web", tg.addr())))
	in := s.start(t)
	waitFor(t, "the pool is there", func() bool {
		_, body := in.get("/api/v1/scrape_pools")
		return strings.Contains(body, `"web"`)
	})
	for path, want := range map[string]string{
		"/api/v1/status/config":      "password: \\u003csecret\\u003e",
		"/api/v1/status/flags":       "config.file",
		"/api/v1/status/runtimeinfo": "goroutineCount",
		"/api/v1/status/buildinfo":   "goVersion",
		"/api/v1/targets":            `"droppedTargetCounts"`,
		"/api/v1/targets/metadata":   `"status":"success"`,
		"/api/v1/metadata":           `"status":"success"`,
	} {
		code, body := in.get(path)
		require.Equal(t, http.StatusOK, code, path)
		var answer struct{ Status string }
		require.NoError(t, json.Unmarshal([]byte(body), &answer), path)
		require.Equal(t, "success", answer.Status, path)
		require.Contains(t, body, want, path)
		require.NotContains(t, body, "hunter2", path)
	}
	code, _ := in.get("/api/v1/query?query=up")
	require.Equal(t, http.StatusNotFound, code)
	require.NotContains(t, in.logs.String(), "hunter2")
}

func TestStoragePathInUseIsRefused(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc))
	s.start(t)
	err := app.Run(t.Context(), s.options(), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "is in use by another collector")
	require.ErrorContains(t, err, s.options().StoragePath)
}

func TestStopDoesNotRecordTargetsAsDown(t *testing.T) {
	t.Parallel()
	tg, rc := newTarget(t), newReceiver(t)
	// The scrape lasts longer than a stop waits.
	long := strings.NewReplacer("scrape_interval: 500ms", "scrape_interval: 5s", "scrape_timeout: 500ms", "scrape_timeout: 5s").Replace(header)
	s := newSetup(t, long+remoteWrite(rc)+scrapes(job("web", tg.addr())))
	in := s.start(t)
	tg.hold.Store(true)
	<-tg.held
	require.NoError(t, in.stop())
	_, up := rc.series(t, "up")
	for _, p := range up {
		require.NotZero(t, p.v, "a scrape that the stop cut off is recorded as a failed one")
	}
}

func TestStopSendsWhatWasScraped(t *testing.T) {
	t.Parallel()
	tg, rc := newTarget(t), newReceiver(t)
	lazy := strings.Replace(remoteWrite(rc), "100ms", "1h", 1)
	s := newSetup(t, header+lazy+scrapes(job("web", tg.addr())))
	in := s.start(t)
	waitFor(t, "three scrapes", func() bool {
		_, body := in.get("/api/v1/targets")
		return tg.scrapes.Load() >= 3 && strings.Contains(body, `"health":"up"`)
	})
	_, points := rc.series(t, "seq")
	require.Empty(t, points)
	tg.stopCollector(t, in)
	rc.requireNothingLost(t, tg)
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	good := newSetup(t, header+remoteWrite(rc))
	require.NoError(t, app.CheckConfig(t.Context(), good.options()))
	bad := newSetup(t, header+remoteWrite(rc, "  tls_config: {ca_file: first.pem}")+
		scrapes("\n- job_name: web\n  tls_config: {ca_file: second.pem}\n"))
	err := app.CheckConfig(t.Context(), bad.options())
	require.ErrorContains(t, err, "first.pem")
	require.ErrorContains(t, err, "second.pem")
	require.ErrorContains(t, app.CheckConfig(t.Context(), app.Options{ConfigFile: "absent.yml"}), "absent.yml")
}

// Not parallel, because the signal reaches every collector of the process.
func TestHangupReloads(t *testing.T) {
	tg, rc := newTarget(t), newReceiver(t)
	s := newSetup(t, header+remoteWrite(rc))
	in := s.start(t)
	s.write(t, header+remoteWrite(rc)+scrapes(job("web", tg.addr())))
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGHUP))
	waitFor(t, "the signal is handled", func() bool { return strings.Contains(in.logs.String(), "why=SIGHUP") })
	waitFor(t, "the target is scraped", func() bool { return tg.scrapes.Load() > 0 })
}

// backendAway is a set-up whose backend went away after some samples.
func backendAway(t *testing.T) (*target, *receiver, *setup, *instance) {
	t.Helper()
	tg, rc := newTarget(t), newReceiver(t)
	s := newSetup(t, header+patientRemoteWrite(rc)+scrapes(job("web", tg.addr())))
	in := s.start(t)
	waitFor(t, "samples arrive", func() bool {
		_, points := rc.series(t, "seq")
		return len(points) >= 1
	})
	rc.down.Store(true)
	scrapesOnce(t, tg, 4)
	return tg, rc, s, in
}

// scrapesOnce waits for n further scrapes.
func scrapesOnce(t *testing.T, tg *target, n int64) {
	t.Helper()
	before := tg.scrapes.Load()
	waitFor(t, "scrapes", func() bool { return tg.scrapes.Load() >= before+n })
}

// backendBack lets the backend come back and waits for all samples.
func backendBack(t *testing.T, tg *target, rc *receiver) {
	t.Helper()
	last := tg.scrapes.Load()
	rc.down.Store(false)
	waitFor(t, "samples from after the outage arrive", func() bool {
		_, points := rc.series(t, "seq")
		points = withoutStaleMarkers(points)
		return points[len(points)-1].v > float64(last)+1
	})
	rc.requireNothingLost(t, tg)
}

func TestNewSettingsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	tg, rc, s, in := backendAway(t)
	short := "  remote_timeout: 1s"
	s.write(t, header+patientRemoteWrite(rc, short)+scrapes(job("web", tg.addr())))
	code, body := in.do(http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusOK, code, body)
	// By now what waits is more than a queue may have sent unnoticed.
	scrapesOnce(t, tg, 14)
	s.write(t, strings.Replace(header, "east", "west", 1)+patientRemoteWrite(rc, short)+scrapes(job("web", tg.addr())))
	code, body = in.do(http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusOK, code, body)
	last := tg.scrapes.Load()
	rc.down.Store(false)
	waitFor(t, "samples from after the outage arrive", func() bool {
		_, points := rc.series(t, "seq", "cluster", "west")
		return len(points) > 0 && points[len(points)-1].v > float64(last)
	})
	_, points := rc.series(t, "seq", "cluster", "west")
	require.Less(t, points[0].v, float64(last)-10, "what was scraped before the change has not arrived")
	rc.requireNothingLost(t, tg, "cluster", "west")
}

func TestRestartGoesOnFromTheLog(t *testing.T) {
	t.Parallel()
	t.Run("when the backend is back already", func(t *testing.T) {
		t.Parallel()
		tg, rc, s, in := backendAway(t)
		tg.stopCollector(t, in)
		rc.down.Store(false)
		s.start(t)
		backendBack(t, tg, rc)
	})
	t.Run("when the backend comes back later", func(t *testing.T) {
		t.Parallel()
		tg, rc, s, in := backendAway(t)
		tg.stopCollector(t, in)
		in = s.start(t)
		scrapesOnce(t, tg, 4)
		tg.stopCollector(t, in)
		s.start(t)
		scrapesOnce(t, tg, 4)
		backendBack(t, tg, rc)
	})
	t.Run("after a crash sends again what it may have sent", func(t *testing.T) {
		t.Parallel()
		tg, rc, s, in := backendAway(t)
		rc.down.Store(false)
		marks := filepath.Join(s.options().StoragePath, "positions.json")
		waitFor(t, "it is noted what was sent", func() bool {
			_, err := os.Stat(marks)
			return err == nil
		})
		// A crash leaves the notes as they were some seconds before.
		before, err := os.ReadFile(marks)
		require.NoError(t, err)
		rc.down.Store(true)
		scrapesOnce(t, tg, 2)
		tg.stopCollector(t, in)
		require.NoError(t, os.WriteFile(marks, before, 0o600))
		s.start(t)
		scrapesOnce(t, tg, 2)
		backendBack(t, tg, rc)
	})
	t.Run("with other settings", func(t *testing.T) {
		t.Parallel()
		tg, rc, s, in := backendAway(t)
		tg.stopCollector(t, in)
		s.start(t)
		s.write(t, header+patientRemoteWrite(rc, "  protobuf_message: io.prometheus.write.v2.Request")+scrapes(job("web", tg.addr())))
		scrapesOnce(t, tg, 4)
		backendBack(t, tg, rc)
		require.Positive(t, rc.v2.Load())
	})
	t.Run("without a backlog it sends nothing twice", func(t *testing.T) {
		t.Parallel()
		tg, rc := newTarget(t), newReceiver(t)
		s := newSetup(t, header+patientRemoteWrite(rc)+scrapes(job("web", tg.addr())))
		in := s.start(t)
		scrapesOnce(t, tg, 3)
		tg.stopCollector(t, in)
		in = s.start(t)
		scrapesOnce(t, tg, 3)
		tg.stopCollector(t, in)
		rc.requireNothingLost(t, tg)
		require.Positive(t, rc.stored(t))
		require.Equal(t, rc.stored(t), rc.written.Load(), "what was written and is stored")
	})
}
