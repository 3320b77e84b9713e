package alertmanager_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alertmanager"
	"github.com/tocsin-rules/tocsin/web/server"
)

// patience is how long a test waits for what must happen. It is far above
// what a loaded machine needs.
const patience = 60 * time.Second

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 20*time.Millisecond, what)
}

// notification is what a webhook gets.
type notification struct {
	Status      string
	Receiver    string
	ExternalURL string
	GroupLabels map[string]string
	Alerts      []struct {
		Status string
		Labels map[string]string
	}
}

func (n notification) name() string { return n.GroupLabels["alertname"] + " " + n.Status }

// webhook is a receiver of notifications.
type webhook struct {
	*httptest.Server
	got chan notification
}

func newWebhook(t *testing.T) *webhook {
	t.Helper()
	wh := &webhook{got: make(chan notification, 100)}
	wh.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n notification
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		wh.got <- n
	}))
	t.Cleanup(wh.Close)
	return wh
}

// next waits for a notification.
func (wh *webhook) next(t *testing.T) notification {
	t.Helper()
	select {
	case n := <-wh.got:
		return n
	case <-time.After(patience):
		require.Fail(t, "no notification came")
		return notification{}
	}
}

// until collects notifications up to the named one.
func (wh *webhook) until(t *testing.T, last string) []string {
	t.Helper()
	var names []string
	for {
		n := wh.next(t)
		names = append(names, n.name())
		if n.name() == last {
			return names
		}
	}
}

func config(wh *webhook) string {
	return fmt.Sprintf(`
route:
  receiver: hook
  group_by: [alertname]
  group_wait: 50ms
  group_interval: 100ms
  repeat_interval: 1h
inhibit_rules:
- source_matchers: [severity = critical]
  target_matchers: [severity = warning]
  equal: [zone]
receivers:
- name: hook
  webhook_configs:
  - url: %s
`, wh.URL)
}

type setup struct{ dir string }

func newSetup(t *testing.T, config string) setup {
	t.Helper()
	s := setup{t.TempDir()}
	s.write(t, config)
	return s
}

func (s setup) options() alertmanager.Options {
	return alertmanager.Options{
		ConfigFile:  filepath.Join(s.dir, "alertmanager.yml"),
		StoragePath: filepath.Join(s.dir, "data"),
		HTTP:        server.Config{ListenAddress: "127.0.0.1:0", EnableLifecycle: true},
	}
}

func (s setup) write(t *testing.T, config string) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.options().ConfigFile, []byte(config), 0o600))
}

// instance is a running Alertmanager.
type instance struct {
	url  string
	stop func()
}

func (s setup) start(t *testing.T) *instance {
	t.Helper()
	a := alertmanager.New(s.options(), slog.New(slog.DiscardHandler))
	require.NoError(t, a.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	in := &instance{url: "http://" + a.Addr().String()}
	stopped := false
	in.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(in.stop)
	waitFor(t, "the Alertmanager is ready", func() bool {
		code, _ := in.do(t, http.MethodGet, "/-/ready", "")
		return code == http.StatusOK
	})
	return in
}

func (in *instance) do(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, in.url+path, bytes.NewBufferString(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answer)
}

// alert posts one alert; it is firing unless it has ended.
func (in *instance) alert(t *testing.T, ended bool, labels ...string) {
	t.Helper()
	set := map[string]string{}
	for i := 0; i < len(labels); i += 2 {
		set[labels[i]] = labels[i+1]
	}
	start := time.Now().Add(-time.Minute)
	end := time.Now().Add(time.Hour)
	if ended {
		end = time.Now()
	}
	body, err := json.Marshal([]map[string]any{{"labels": set, "startsAt": start, "endsAt": end}})
	require.NoError(t, err)
	code, answer := in.do(t, http.MethodPost, "/api/v2/alerts", string(body))
	require.Equal(t, http.StatusOK, code, answer)
}

// silence returns the identifier of a new silence of an alert name.
func (in *instance) silence(t *testing.T, name string) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"matchers":  []map[string]any{{"name": "alertname", "value": name, "isRegex": false}},
		"startsAt":  time.Now().Add(-time.Second),
		"endsAt":    time.Now().Add(time.Hour),
		"createdBy": "test",
		"comment":   "test",
	})
	require.NoError(t, err)
	code, answer := in.do(t, http.MethodPost, "/api/v2/silences", string(body))
	require.Equal(t, http.StatusOK, code, answer)
	var created struct{ SilenceID string }
	require.NoError(t, json.Unmarshal([]byte(answer), &created))
	return created.SilenceID
}

// suppressed is how many notifications were suppressed for a reason.
func (in *instance) suppressed(t *testing.T, reason string) int {
	t.Helper()
	_, metrics := in.do(t, http.MethodGet, "/metrics", "")
	m := regexp.MustCompile(`alertmanager_notifications_suppressed_total\{.*reason="` + reason + `"\} (\d+)`).FindStringSubmatch(metrics)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

func (in *instance) configHash(t *testing.T) string {
	t.Helper()
	_, metrics := in.do(t, http.MethodGet, "/metrics", "")
	return regexp.MustCompile(`(?m)^alertmanager_config_hash .*$`).FindString(metrics)
}

// passSentinel lets an alert fire and resolve and returns what was notified
// meanwhile. Groups that were due before are flushed several times by then.
func (in *instance) passSentinel(t *testing.T, wh *webhook, name string) []string {
	t.Helper()
	in.alert(t, false, "alertname", name)
	seen := wh.until(t, name+" firing")
	in.alert(t, true, "alertname", name)
	return append(seen, wh.until(t, name+" resolved")...)
}

// awaitLogged waits until the notification that an alert is resolved is in the
// log on disk: it counts once it is there, not when it arrives. What is under way
// while the configuration changes is sent again.
func (s setup) awaitLogged(t *testing.T, alertname string) {
	t.Helper()
	waitFor(t, alertname+" resolved is logged", func() bool {
		log, err := nflog.New(nflog.Options{SnapshotFile: filepath.Join(s.options().StoragePath, "nflog"), Metrics: prometheus.NewRegistry()})
		require.NoError(t, err)
		entries, err := log.Query(
			nflog.QReceiver(&nflogpb.Receiver{GroupName: "hook", Integration: "webhook"}),
			nflog.QGroupKey(fmt.Sprintf("{}:{alertname=%q}", alertname)),
		)
		return err == nil && len(entries) == 1 && len(entries[0].ResolvedAlerts) > 0
	})
}

func TestAlertIsNotifiedWhenItFiresAndWhenItResolves(t *testing.T) {
	t.Parallel()
	wh := newWebhook(t)
	in := newSetup(t, config(wh)).start(t)
	in.alert(t, false, "alertname", "Down", "zone", "a")
	n := wh.next(t)
	require.Equal(t, "Down firing", n.name())
	require.Equal(t, "hook", n.Receiver)
	require.Equal(t, in.url, n.ExternalURL)
	require.Equal(t, "a", n.Alerts[0].Labels["zone"])
	in.alert(t, true, "alertname", "Down", "zone", "a")
	require.Equal(t, "Down resolved", wh.next(t).name())
}

func TestSilenceSuppressesUntilItIsDeleted(t *testing.T) {
	t.Parallel()
	wh := newWebhook(t)
	in := newSetup(t, config(wh)).start(t)
	id := in.silence(t, "Quiet")
	in.alert(t, false, "alertname", "Quiet")
	waitFor(t, "the notification is suppressed", func() bool { return in.suppressed(t, "silence") > 0 })
	_, alerts := in.do(t, http.MethodGet, "/api/v2/alerts", "")
	require.Contains(t, alerts, `"silencedBy":["`+id+`"]`)
	require.Contains(t, alerts, `"state":"suppressed"`)
	require.Empty(t, wh.got)
	code, answer := in.do(t, http.MethodDelete, "/api/v2/silence/"+id, "")
	require.Equal(t, http.StatusOK, code, answer)
	require.Equal(t, "Quiet firing", wh.next(t).name())
}

func TestInhibitRuleSuppresses(t *testing.T) {
	t.Parallel()
	wh := newWebhook(t)
	in := newSetup(t, config(wh)).start(t)
	in.alert(t, false, "alertname", "Cause", "severity", "critical", "zone", "a")
	require.Equal(t, "Cause firing", wh.next(t).name())
	// Alertmanager learns of alerts and of what inhibits them side by side. A
	// silence holds the alert back until it knows.
	id := in.silence(t, "Effect")
	in.alert(t, false, "alertname", "Effect", "severity", "warning", "zone", "a")
	waitFor(t, "the alert is inhibited", func() bool {
		_, alerts := in.do(t, http.MethodGet, "/api/v2/alerts?filter=alertname=Effect", "")
		return strings.Contains(alerts, `"inhibitedBy":["`)
	})
	code, answer := in.do(t, http.MethodDelete, "/api/v2/silence/"+id, "")
	require.Equal(t, http.StatusOK, code, answer)
	require.Equal(t, []string{"Sentinel firing", "Sentinel resolved"}, in.passSentinel(t, wh, "Sentinel"))
	require.Positive(t, in.suppressed(t, "inhibition"))
	in.alert(t, false, "alertname", "Other", "severity", "warning", "zone", "b")
	require.Equal(t, "Other firing", wh.next(t).name())
}

func TestRestartKeepsSilencesAndDoesNotNotifyAgain(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(*testing.T, setup, *instance) setup{
		"after a stop": func(_ *testing.T, s setup, in *instance) setup {
			in.stop()
			return s
		},
		// What a crash leaves is what is on disk while the process runs.
		"after a crash": func(t *testing.T, s setup, _ *instance) setup {
			crashed := setup{t.TempDir()}
			require.NoError(t, os.CopyFS(crashed.dir, os.DirFS(s.dir)))
			return crashed
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wh := newWebhook(t)
			s := newSetup(t, config(wh))
			in := s.start(t)
			in.silence(t, "Quiet")
			in.alert(t, false, "alertname", "Down")
			require.Equal(t, "Down firing", wh.next(t).name())
			// A notification counts once it is logged, not when it arrives.
			for _, file := range []string{"silences", "nflog"} {
				waitFor(t, file+" is on disk", func() bool {
					info, err := os.Stat(filepath.Join(s.options().StoragePath, file))
					return err == nil && info.Size() > 0
				})
			}
			in = restart(t, s, in).start(t)

			in.alert(t, false, "alertname", "Down")
			in.alert(t, false, "alertname", "Quiet")
			require.Equal(t, []string{"Sentinel firing", "Sentinel resolved"}, in.passSentinel(t, wh, "Sentinel"))
			require.Positive(t, in.suppressed(t, "silence"))
			in.alert(t, true, "alertname", "Down")
			require.Equal(t, "Down resolved", wh.next(t).name())
		})
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	first, second := newWebhook(t), newWebhook(t)
	s := newSetup(t, config(first))
	in := s.start(t)
	require.Equal(t, []string{"A firing", "A resolved"}, in.passSentinel(t, first, "A"))

	for name, bad := range map[string]string{
		"syntax":          "route: {",
		"unknown field":   config(second) + "\nnonsense: 1\n",
		"unused receiver": strings.Replace(config(second), "receiver: hook", "receiver: nobody", 1),
		"template":        config(second) + "\ntemplates: ['bad.tmpl']\n",
		"tracing":         config(second) + "\ntracing: {endpoint: 'localhost:4317'}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, "bad.tmpl"), []byte(`{{ define "x" }`), 0o600))
		s.write(t, bad)
		code, body := in.do(t, http.MethodPost, "/-/reload", "")
		require.Equal(t, http.StatusInternalServerError, code, name)
		require.Contains(t, body, "the one from before stays", name)
		_, metrics := in.do(t, http.MethodGet, "/metrics", "")
		require.Contains(t, metrics, "alertmanager_config_last_reload_successful 0", name)
	}
	require.Equal(t, []string{"B firing", "B resolved"}, in.passSentinel(t, first, "B"))
	s.awaitLogged(t, "B")

	s.write(t, config(second))
	code, body := in.do(t, http.MethodPost, "/-/reload", "")
	require.Equal(t, http.StatusOK, code, body)
	require.Equal(t, []string{"C firing", "C resolved"}, in.passSentinel(t, second, "C"))
	require.Empty(t, first.got)
	_, metrics := in.do(t, http.MethodGet, "/metrics", "")
	require.Contains(t, metrics, "alertmanager_config_last_reload_successful 1")
}

func TestAPI(t *testing.T) {
	t.Parallel()
	wh := newWebhook(t)
	in := newSetup(t, strings.Replace(config(wh), "url: ", "http_config: {basic_auth: {username: u, password: hunter2}}\n    url: ", 1)).start(t)
	in.alert(t, false, "alertname", "Down")
	wh.next(t)
	id := in.silence(t, "Quiet")
	for path, want := range map[string]string{
		"/api/v2/status":        `"status":"disabled"`,
		"/api/v2/receivers":     `"hook"`,
		"/api/v2/alerts":        `"Down"`,
		"/api/v2/alerts/groups": `"Down"`,
		"/api/v2/silences":      id,
		"/api/v2/silence/" + id: id,
		"/-/healthy":            "Healthy",
		"/metrics":              "alertmanager_receivers 1",
	} {
		code, body := in.do(t, http.MethodGet, path, "")
		require.Equal(t, http.StatusOK, code, path)
		require.Contains(t, body, want, path)
		require.NotContains(t, body, "hunter2", path)
	}
	code, _ := in.do(t, http.MethodGet, "/api/v1/alerts", "")
	require.Equal(t, http.StatusGone, code)
	code, _ = in.do(t, http.MethodPost, "/api/v2/alerts", `[{"labels": {}}]`)
	require.Equal(t, http.StatusBadRequest, code)
}

func TestFaultyStartIsRefused(t *testing.T) {
	t.Parallel()
	wh := newWebhook(t)
	run := func(s setup, external string) error {
		o := s.options()
		o.ExternalURL = external
		return alertmanager.Run(t.Context(), o, slog.New(slog.DiscardHandler))
	}
	require.ErrorContains(t, run(newSetup(t, "route: {"), ""), "alertmanager.yml")
	require.ErrorContains(t, run(newSetup(t, config(wh)+"\ntracing: {endpoint: 'localhost:4317'}\n"), ""), "tracing")
	require.ErrorContains(t, run(newSetup(t, config(wh)), "ftp://example.org"), "must be http or https")
}

// Not parallel, because the signal reaches every Alertmanager of the process.
func TestAChangeOfTheFileReloads(t *testing.T) {
	t.Parallel()
	first, second := newWebhook(t), newWebhook(t)
	s := newSetup(t, config(first))
	in := s.start(t)
	hash := in.configHash(t)
	s.write(t, config(second))
	waitFor(t, "the other configuration runs", func() bool { return in.configHash(t) != hash })
	require.Equal(t, []string{"A firing", "A resolved"}, in.passSentinel(t, second, "A"))
}

func TestHangupReloads(t *testing.T) {
	first, second := newWebhook(t), newWebhook(t)
	s := newSetup(t, config(first))
	in := s.start(t)
	s.write(t, config(second))
	hash := in.configHash(t)
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGHUP))
	waitFor(t, "the other configuration runs", func() bool { return in.configHash(t) != hash })
	require.Equal(t, []string{"A firing", "A resolved"}, in.passSentinel(t, second, "A"))
}
