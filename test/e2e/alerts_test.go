package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
)

// TestAlertsReachPeople follows alerts from samples in a backend to the
// notifications of real Alertmanagers, while everything on the way fails: two of
// Debian's in a cluster, the embedded one, one that is slow and one that refuses.
// At the end each has told its receiver what there was to tell, once.
func TestAlertsReachPeople(t *testing.T) {
	t.Parallel()
	s := newAlertSystem(t)

	t.Log("an alert fires: every Alertmanager tells its receiver once")
	s.raise("disk", 1)
	s.waitTold("firing Alarm disk")

	t.Log("a warning about what is critical already is inhibited")
	s.warn("disk", 1)
	s.waitState("Warning", "disk", "suppressed")

	t.Log("a silenced alert is not told until the silence ends")
	silences := []silence{s.silence(s.debian[0], "net"), s.silence(s.embedded, "net")}
	s.waitSilenced("net")
	s.raise("net", 1)
	s.waitState("Alarm", "net", "suppressed")
	for _, silence := range silences {
		silence.expire(t)
	}
	s.waitTold("firing Alarm net")

	t.Log("one of two Alertmanagers is killed: the other one tells, and the first learns of it when it is back")
	s.debian[0].stop(syscall.SIGKILL)
	s.raise("cpu", 1)
	s.waitTold("firing Alarm cpu")
	s.debian[0].start()
	s.debian[0].waitReady()
	s.waitKnown(s.debian[0], "disk", "net", "cpu")

	t.Log("both are down: they tell what they missed, and nothing twice")
	for _, am := range s.debian {
		am.stop(syscall.SIGTERM)
	}
	s.raise("mem", 1)
	s.waitKnown(s.embedded, "mem")
	for _, am := range s.debian {
		am.start()
	}
	for _, am := range s.debian {
		am.waitReady()
	}
	s.waitTold("firing Alarm mem")

	t.Log("all members restart, one after the other, while one alert is pending and others fire; the last is killed")
	s.pend("late", 1)
	pendingSince := s.activeAt("Patient", "late")
	for i, m := range s.members {
		m.stop([]syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL}[i])
		require.Equal(t, pendingSince, s.activeAt("Patient", "late"))
		m.start()
		m.waitReady()
		require.Equal(t, pendingSince, s.activeAt("Patient", "late"))
	}
	s.waitTold("firing Patient late")

	t.Log("everything ends: every Alertmanager says so once")
	for _, name := range []string{"disk", "net", "cpu", "mem"} {
		s.raise(name, 0)
	}
	s.warn("disk", 0)
	s.pend("late", 0)
	s.waitTold("resolved Alarm disk", "resolved Alarm net", "resolved Alarm cpu", "resolved Alarm mem", "resolved Patient late")
	s.requireToldOnce()
	s.requireStable(pendingSince)
}

// hold is the for of the alert Patient.
const hold = 20 * time.Second

const alertRules = `
groups:
- name: alarms
  interval: 1s
  rules:
  - {alert: Alarm, expr: 'last_over_time(alarm[1h]) > 0', labels: {severity: critical}}
  - {alert: Warning, expr: 'last_over_time(warning[1h]) > 0', labels: {severity: warning}}
- name: patient
  interval: 1s
  rules:
  - {alert: Patient, expr: 'last_over_time(pending[1h]) > 0', for: 20s}
`

// alertmanagerConfig notifies of each alert alone, at once.
const alertmanagerConfig = `
route: {receiver: hook, group_by: [alertname, name], group_wait: 100ms, group_interval: 200ms, repeat_interval: 1h}
inhibit_rules:
- {source_matchers: [severity="critical"], target_matchers: [severity="warning"], equal: [name]}
receivers:
- {name: hook, webhook_configs: [{url: %q, send_resolved: true}]}
`

// alertSystem is three rule-evaluators over one backend, and all kinds of
// Alertmanagers.
type alertSystem struct {
	t        *testing.T
	backend  string
	members  []*server
	debian   []*server // a cluster
	embedded *server
	told     map[string]*receiver // by what tells it
	faulty   []*faultyAlertmanager
}

func newAlertSystem(t *testing.T) *alertSystem {
	t.Helper()
	s := &alertSystem{t: t, told: map[string]*receiver{"debian": newReceiver(t), "embedded": newReceiver(t)}}
	ports := freePorts(t)
	backend := local(ports)
	startTocsin(t, backend, "backend", "--storage.path="+t.TempDir(), "--grpc.listen-address="+local(ports+1))
	s.backend = "http://" + backend + "/api/v1/write"
	s.startAlertmanagers(ports + 10)
	targets := []string{s.embedded.address}
	for _, am := range s.debian {
		targets = append(targets, am.address)
	}
	for _, answer := range []http.HandlerFunc{slowly, refusing()} {
		am := newFaultyAlertmanager(t, answer)
		s.faulty = append(s.faulty, am)
		targets = append(targets, am.Listener.Addr().String())
	}
	s.startMembers(ports+20, fmt.Sprintf(`
global: {resend_delay: 10s, evaluation_interval: 1s}
backends: [{name: default, url: "http://%s", grpc: {address: %q}}]
alerting: {alertmanagers: [{static_configs: [{targets: [%s]}]}]}
`, backend, local(ports+1), strings.Join(targets, ",")))
	return s
}

func (s *alertSystem) startAlertmanagers(ports int) {
	s.t.Helper()
	dir := s.t.TempDir()
	files := map[string]string{}
	for name, r := range s.told {
		files[name] = filepath.Join(dir, name+".yml")
		require.NoError(s.t, os.WriteFile(files[name], fmt.Appendf(nil, alertmanagerConfig, r.URL), 0o600))
	}
	gossip := []string{local(ports + 2), local(ports + 3)}
	for i := range gossip {
		s.debian = append(s.debian, startServer(s.t, "prometheus-alertmanager", local(ports+i), "--config.file="+files["debian"],
			"--storage.path="+s.t.TempDir(), "--web.listen-address="+local(ports+i), "--cluster.peer-timeout=5s",
			"--cluster.listen-address="+gossip[i], "--cluster.peer="+gossip[1-i]))
	}
	path, err := binary()
	require.NoError(s.t, err)
	s.embedded = startServer(s.t, path, local(ports+4), "alertmanager", "--config.file="+files["embedded"],
		"--storage.path="+s.t.TempDir(), "--web.listen-address="+local(ports+4))
}

func (s *alertSystem) startMembers(ports int, config string) {
	s.t.Helper()
	path, err := binary()
	require.NoError(s.t, err)
	dir := s.t.TempDir()
	file := filepath.Join(dir, "evaluator.yml")
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, "alarms.yml"), []byte(alertRules), 0o600))
	require.NoError(s.t, os.WriteFile(file, []byte("rule_files: [alarms.yml]\n"+config), 0o600))
	for i := range 3 {
		args := []string{
			"rule-evaluator", "--config.file=" + file, "--cluster.name=" + memberName(i), "--web.listen-address=" + local(ports+i),
			"--cluster.listen-address=" + local(ports+10+i), "--grpc.listen-address=" + local(ports+20+i),
		}
		for peer := range 3 {
			args = append(args, "--cluster.peer="+local(ports+10+peer))
		}
		s.members = append(s.members, startServer(s.t, path, local(ports+i), args...))
	}
}

func (s *alertSystem) raise(name string, value float64) { s.write("alarm", name, value) }
func (s *alertSystem) warn(name string, value float64)  { s.write("warning", name, value) }
func (s *alertSystem) pend(name string, value float64)  { s.write("pending", name, value) }

func (s *alertSystem) write(metric, name string, value float64) {
	s.t.Helper()
	series := labels.FromStrings(labels.MetricName, metric, "name", name)
	writeTo(s.t, s.backend, []promql.Series{{Metric: series, Floats: []promql.FPoint{{T: time.Now().UnixMilli(), F: value}}}})
}

// waitTold waits until all receivers were told something.
func (s *alertSystem) waitTold(what ...string) {
	s.t.Helper()
	for by, r := range s.told {
		for _, w := range what {
			eventually(s.t, func() error {
				if told := r.all(); !slices.Contains(told, w) {
					return fmt.Errorf("%s did not tell %q but %q", by, w, told)
				}
				return nil
			})
		}
	}
}

// requireToldOnce is about everything that was told since the beginning. A pair
// of Alertmanagers of which one is killed may repeat what that one told last, so
// of the pair repetitions do not count.
func (s *alertSystem) requireToldOnce() {
	s.t.Helper()
	var want []string
	for _, what := range []string{"Alarm disk", "Alarm net", "Alarm cpu", "Alarm mem", "Patient late"} {
		want = append(want, "firing "+what, "resolved "+what)
	}
	slices.Sort(want)
	for by, r := range s.told {
		told := r.all()
		slices.Sort(told)
		if by == "debian" {
			told = slices.Compact(told)
		}
		require.Equal(s.t, want, told, by)
	}
}

// requireStable looks at all that came to the Alertmanagers which keep a record:
// each alert began to fire once, and the patient one after its time, no matter
// how often its group changed hands meanwhile.
func (s *alertSystem) requireStable(pendingSince time.Time) {
	s.t.Helper()
	for _, am := range s.faulty {
		eventually(s.t, func() error {
			if known := len(am.starts()); known != 6 {
				return fmt.Errorf("%d alerts came to it", known)
			}
			return nil
		})
		for name, starts := range am.starts() {
			require.Len(s.t, starts, 1, "%s began to fire at %v", name, starts)
		}
		// The slot at which it was due may have been left out after the kill.
		fires := pendingSince.Add(hold)
		require.WithinRange(s.t, am.starts()["Patient late"][0], fires, fires.Add(hold/2), "its time was waited out once")
	}
}

// amAlert is an alert of Alertmanager's API.
type amAlert struct {
	Labels   map[string]string
	StartsAt time.Time
	EndsAt   time.Time
	Status   struct{ State string }
}

func alertsIn(am *server) ([]amAlert, error) {
	resp, err := http.Get("http://" + am.address + "/api/v2/alerts")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var alerts []amAlert
	return alerts, json.NewDecoder(resp.Body).Decode(&alerts)
}

func (s *alertSystem) alertmanagers() []*server { return append(slices.Clone(s.debian), s.embedded) }

// waitState waits until all Alertmanagers have an alert in a state.
func (s *alertSystem) waitState(alertname, name, state string) {
	s.t.Helper()
	for _, am := range s.alertmanagers() {
		eventually(s.t, func() error {
			alerts, err := alertsIn(am)
			if err != nil {
				return err
			}
			for _, a := range alerts {
				if a.Labels["alertname"] == alertname && a.Labels["name"] == name && a.Status.State == state {
					return nil
				}
			}
			return fmt.Errorf("%s is not %s: %v", name, state, alerts)
		})
	}
}

// waitKnown waits until an Alertmanager has alerts of the names.
func (s *alertSystem) waitKnown(am *server, names ...string) {
	s.t.Helper()
	eventually(s.t, func() error {
		alerts, err := alertsIn(am)
		known := map[string]bool{}
		for _, a := range alerts {
			known[a.Labels["name"]] = true
		}
		for _, name := range names {
			if !known[name] {
				return fmt.Errorf("%s has %v, not %s: %w", am.address, slices.Collect(maps.Keys(known)), name, err)
			}
		}
		return err
	})
}

// activeAt is when an alert became active, as each member that answers says of
// the whole cluster.
func (s *alertSystem) activeAt(alertname, name string) (at time.Time) {
	s.t.Helper()
	for _, m := range s.members {
		if m.cmd == nil {
			continue
		}
		eventually(s.t, func() error {
			var data struct {
				Alerts []struct {
					Labels   map[string]string
					ActiveAt time.Time
				}
			}
			if err := getJSON("http://"+m.address+"/api/v1/alerts", &data); err != nil {
				return err
			}
			for _, a := range data.Alerts {
				if a.Labels["alertname"] == alertname && a.Labels["name"] == name {
					require.True(s.t, at.IsZero() || at.Equal(a.ActiveAt), "%s and %s", at, a.ActiveAt)
					at = a.ActiveAt
					return nil
				}
			}
			return fmt.Errorf("no alert %s %s on %s", alertname, name, m.address)
		})
	}
	return at
}

type silence struct{ url string }

// silence mutes alerts of a name in an Alertmanager.
func (s *alertSystem) silence(am *server, name string) silence {
	s.t.Helper()
	body := fmt.Sprintf(`{"matchers":[{"name":"name","value":%q,"isRegex":false,"isEqual":true}],"startsAt":%q,"endsAt":%q,
		"createdBy":"test","comment":"test"}`, name, time.Now().Format(time.RFC3339), time.Now().Add(time.Hour).Format(time.RFC3339))
	resp, err := http.Post("http://"+am.address+"/api/v2/silences", "application/json", strings.NewReader(body))
	require.NoError(s.t, err)
	defer resp.Body.Close()
	var created struct{ SilenceID string }
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(&created))
	require.NotEmpty(s.t, created.SilenceID)
	return silence{"http://" + am.address + "/api/v2/silence/" + created.SilenceID}
}

// waitSilenced waits until all Alertmanagers know of a silence for the name; the
// second of Debian's has it from the first.
func (s *alertSystem) waitSilenced(name string) {
	s.t.Helper()
	for _, am := range s.alertmanagers() {
		eventually(s.t, func() error {
			resp, err := http.Get("http://" + am.address + "/api/v2/silences")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var text bytes.Buffer
			if _, err := text.ReadFrom(resp.Body); err != nil || !strings.Contains(text.String(), name) {
				return fmt.Errorf("silences of %s: %s %w", am.address, &text, err)
			}
			return nil
		})
	}
}

func (s silence) expire(t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.url, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// receiver is who Alertmanagers notify.
type receiver struct {
	*httptest.Server

	mu   sync.Mutex
	told []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var n struct {
			Alerts []struct {
				Status string
				Labels map[string]string
			}
		}
		if err := json.NewDecoder(req.Body).Decode(&n); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range n.Alerts {
			r.told = append(r.told, fmt.Sprintf("%s %s %s", a.Status, a.Labels["alertname"], a.Labels["name"]))
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

// faultyAlertmanager takes alerts in its own way and keeps a record of those that
// it took.
type faultyAlertmanager struct {
	*httptest.Server

	mu   sync.Mutex
	took map[string][]time.Time // by alert, the times at which it began to fire
}

func newFaultyAlertmanager(t *testing.T, answer http.HandlerFunc) *faultyAlertmanager {
	t.Helper()
	am := &faultyAlertmanager{took: map[string][]time.Time{}}
	am.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		answer(rec, r)
		if rec.Code == http.StatusOK {
			am.take(r)
		}
		w.WriteHeader(rec.Code)
	}))
	t.Cleanup(am.Close)
	return am
}

func (am *faultyAlertmanager) take(r *http.Request) {
	var alerts []amAlert
	if json.NewDecoder(r.Body).Decode(&alerts) != nil {
		return
	}
	am.mu.Lock()
	defer am.mu.Unlock()
	for _, a := range alerts {
		name := a.Labels["alertname"] + " " + a.Labels["name"]
		if starts := am.took[name]; !slices.ContainsFunc(starts, a.StartsAt.Equal) {
			am.took[name] = append(starts, a.StartsAt.UTC())
		}
	}
}

func (am *faultyAlertmanager) starts() map[string][]time.Time {
	am.mu.Lock()
	defer am.mu.Unlock()
	return maps.Clone(am.took)
}

// slowly takes three seconds for each request.
func slowly(_ http.ResponseWriter, r *http.Request) {
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

// refusing answers with all kinds of errors in turn, and takes every sixth
// request.
func refusing() http.HandlerFunc {
	answers := []int{500, 503, 429, 404, 401, 200}
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answers[int(n.Add(1)-1)%len(answers)])
	}
}
