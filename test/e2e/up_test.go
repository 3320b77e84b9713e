package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
)

// heartbeat is a rule set whose series tell every slot that was evaluated:
// they need no data, so a hole is the ruler's.
const heartbeat = `
groups:
- name: heartbeat-%[1]d
  interval: 5s
  rules:
  - record: heartbeat_%[1]d
    expr: time()
`

func writeHeartbeats(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("heartbeat-%d.yml", i)), fmt.Appendf(nil, heartbeat, i), 0o600))
	}
	return dir
}

// TestUp follows the life of one system: three members share the default
// rules, what they record is right, a member dies and nothing is missing, an
// alert fires and resolves, and a second start continues where the first
// ended.
func TestUp(t *testing.T) {
	t.Parallel()
	const beats = 12
	s := newSystem(t, "--rules", writeHeartbeats(t, beats), "--rules", "../../deploy/rules")
	s.start()
	s.waitShared(0, 1, 2)

	t.Log("recorded series are what Prometheus' own engine gets from all data")
	s.requireRecordedRight()

	t.Log("a member hangs: the others take over, the alert about it fires")
	s.signalMember(1, syscall.SIGSTOP)
	s.waitShared(0, 2)
	eventually(t, func() error {
		alerts, err := alertsOf(s.alertmanager(), "TocsinMemberDown")
		if err == nil && (len(alerts) != 1 || alerts[0]["instance"] != memberName(1)) {
			err = fmt.Errorf("alerts about members: %v", alerts)
		}
		return err
	})
	s.waitShown("FIRING TocsinMemberDown")

	t.Log("it is killed and started again: it takes groups back, the alert resolves")
	s.signalMember(1, syscall.SIGKILL)
	s.waitShared(0, 1, 2)
	eventually(t, func() error {
		alerts, err := alertsOf(s.alertmanager(), "TocsinMemberDown")
		if err == nil && len(alerts) > 0 {
			err = fmt.Errorf("alerts about members: %v", alerts)
		}
		return err
	})
	s.waitShown("RESOLVED TocsinMemberDown")

	t.Log("another one is killed without warning")
	s.signalMember(2, syscall.SIGKILL)
	s.waitShared(0, 1, 2)
	s.requireNoHoles(beats)

	t.Log("a backend hangs: rules that need it fail and say so, what is missing is recorded later")
	backend := s.pid(" backend ", "backend-global")
	require.NoError(t, syscall.Kill(backend, syscall.SIGSTOP))
	s.waitRuleError(`backend "global"`)
	require.NoError(t, syscall.Kill(backend, syscall.SIGCONT))
	s.waitShared(0, 1, 2)
	s.requireNoHoles(beats)

	t.Log("a second start continues where the first ended")
	began := time.Now()
	s.stop()
	require.Less(t, time.Since(began), 15*time.Second, "stopping takes 10 s at most, output:\n%s", s.out)
	s.start()
	s.waitShared(0, 1, 2)
	s.requireNoHoles(beats)
	for i := range 3 {
		st, err := s.status(i)
		require.NoError(t, err)
		require.Zero(t, st.SlotsMissed)
	}
	s.stop()
}

// waitRuleError waits until a rule has an error with the text.
func (s *system) waitRuleError(text string) {
	s.t.Helper()
	eventually(s.t, func() error {
		groups, err := s.groups(0)
		if err != nil {
			return err
		}
		for _, g := range groups {
			for _, r := range g.Rules {
				if strings.Contains(r.LastError, text) {
					return nil
				}
			}
		}
		return fmt.Errorf("no rule has an error with %q", text)
	})
}

// requireNoHoles checks that every heartbeat has a sample at each slot since
// its first, to the present.
func (s *system) requireNoHoles(beats int) {
	s.t.Helper()
	for i := range beats {
		eventually(s.t, func() error {
			v, _, _, err := s.api(0).Query(s.t.Context(), fmt.Sprintf("heartbeat_%d[1h]", i), time.Now())
			if err != nil {
				return err
			}
			m, ok := v.(model.Matrix)
			if !ok || len(m) != 1 {
				return fmt.Errorf("heartbeat_%d has %d series", i, len(m))
			}
			return holes(m[0].Values)
		})
	}
}

func holes(samples []model.SamplePair) error {
	for i, p := range samples {
		if got := model.Time(float64(p.Value) * 1000); got != p.Timestamp {
			return fmt.Errorf("the sample of slot %s says %s", p.Timestamp.Time(), got.Time())
		}
		if i > 0 && p.Timestamp-samples[i-1].Timestamp != 5000 {
			return fmt.Errorf("hole between %s and %s", samples[i-1].Timestamp.Time(), p.Timestamp.Time())
		}
	}
	if last := samples[len(samples)-1].Timestamp.Time(); time.Since(last) > 15*time.Second {
		return fmt.Errorf("the last sample is of %s", last)
	}
	return nil
}

// requireRecordedRight compares what any member answers for recorded series
// with what Prometheus' engine makes of the rules' expressions over the raw
// series of all backends. The collectors stand still meanwhile, so that both
// look at the same data however late it was written.
func (s *system) requireRecordedRight() {
	s.t.Helper()
	const atLeast = 25
	eventually(s.t, func() error {
		v, err := s.query(0, `count(count by (__name__) ({__name__=~".+:.+"}))`, time.Now())
		if err == nil && (len(v) == 0 || v[0].Value < atLeast) {
			err = fmt.Errorf("names of recorded series: %v", v)
		}
		return err
	})
	s.signalCollectors(syscall.SIGSTOP)
	defer s.signalCollectors(syscall.SIGCONT)
	still := time.Now()
	groups, err := s.groups(0)
	require.NoError(s.t, err)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true})
	compared := 0
	for n, g := range groups {
		for _, r := range g.Rules {
			if r.Type != "recording" || strings.HasPrefix(r.Name, "heartbeat_") {
				continue
			}
			samples := s.recorded(n%3, g, r, still)
			if len(samples) == 0 {
				continue // a rule about something that is not on this machine
			}
			s.requireSame(engine, g, r, samples)
			compared++
		}
	}
	require.GreaterOrEqual(s.t, compared, atLeast, "recording rules of the default set that have results")
}

func (s *system) signalCollectors(sig syscall.Signal) {
	s.t.Helper()
	for _, cluster := range []string{"east", "west"} {
		require.NoError(s.t, syscall.Kill(s.pid(" collector ", "collector-"+cluster+".yml"), sig))
	}
}

// recorded returns the newest samples of the rule's series, all of one slot
// that looked at a time after the given one; none if the rule has no result.
// The series of a scoped group carry its cluster.
func (s *system) recorded(i int, g group, r ruleJSON, after time.Time) model.Vector {
	s.t.Helper()
	selector := r.Name
	if parts := strings.Split(g.Key, "/"); parts[0] == "clusterrules" {
		selector += fmt.Sprintf("{cluster=%q}", parts[1])
	}
	var samples model.Vector
	eventually(s.t, func() error {
		at, err := s.query(i, "max(timestamp("+selector+"))", time.Now())
		if err != nil || len(at) == 0 {
			return err
		}
		slot := model.Time(float64(at[0].Value) * 1000)
		if !slot.Time().After(after) {
			return fmt.Errorf("the newest sample of %s is of %s, before %s", selector, slot.Time(), after)
		}
		samples, err = s.query(i, selector, slot.Time())
		return err
	})
	return samples
}

func (s *system) requireSame(engine *promql.Engine, g group, r ruleJSON, samples model.Vector) {
	s.t.Helper()
	at := samples[0].Timestamp.Time()
	q, err := engine.NewInstantQuery(s.t.Context(), s.union(), nil, r.Query, at)
	require.NoError(s.t, err)
	defer q.Close()
	want, err := q.Exec(s.t.Context()).Vector()
	require.NoError(s.t, err)
	expected := map[string]float64{}
	for _, w := range want {
		b := labels.NewBuilder(w.Metric).Set(labels.MetricName, r.Name)
		if parts := strings.Split(g.Key, "/"); parts[0] == "clusterrules" {
			b.Set("cluster", parts[1])
		}
		expected[b.Labels().String()] = w.F
	}
	got := map[string]float64{}
	for _, sample := range samples {
		got[labels.FromMap(toMap(sample.Metric)).String()] = float64(sample.Value)
	}
	require.Len(s.t, got, len(expected), "%s at %s: %v, Prometheus: %v", r.Name, at, got, expected)
	for series, v := range expected {
		require.Contains(s.t, got, series, r.Name)
		if math.IsNaN(v) {
			require.True(s.t, math.IsNaN(got[series]), series)
			continue
		}
		require.InEpsilon(s.t, 1+math.Abs(v), 1+math.Abs(got[series]), 1e-9, "%s at %s = %v, Prometheus: %v", series, at, got[series], v)
	}
}

func toMap(m model.Metric) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[string(k)] = string(v)
	}
	return out
}

// union is all data of all backends, raw.
func (s *system) union() storage.Queryable {
	return storage.QueryableFunc(func(mint, maxt int64) (storage.Querier, error) {
		var queriers []storage.Querier
		for _, b := range s.backends() {
			target, err := url.Parse(b + "/api/v1/read")
			if err != nil {
				return nil, err
			}
			client, err := remote.NewReadClient(b, &remote.ClientConfig{
				URL:                   &config_util.URL{URL: target},
				Timeout:               model.Duration(time.Minute),
				ChunkedReadLimit:      1 << 30,
				AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS},
			})
			if err != nil {
				return nil, err
			}
			q, err := remote.NewSampleAndChunkQueryableClient(client, labels.EmptyLabels(), nil, true,
				func() (int64, error) { return math.MaxInt64, nil }).Querier(mint, maxt)
			if err != nil {
				return nil, err
			}
			queriers = append(queriers, q)
		}
		return storage.NewMergeQuerier(nil, queriers, storage.ChainedSeriesMerge), nil
	})
}

// TestRulesAreReloadedAndABadFileChangesNothing edits rule files under a
// running system.
func TestRulesAreReloadedAndABadFileChangesNothing(t *testing.T) {
	t.Parallel()
	dir := writeHeartbeats(t, 3)
	s := newSystem(t, "--members", "1", "--rules", dir)
	s.start()
	s.waitShared(0)

	bad := filepath.Join(dir, "heartbeat-1.yml")
	require.NoError(t, os.WriteFile(bad, []byte("groups:\n- name: heartbeat-1\n  rules:\n  - record: heartbeat_1\n    expr: sum(\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "heartbeat-3.yml"), fmt.Appendf(nil, heartbeat, 3), 0o600))
	eventually(t, func() error {
		groups, err := s.groups(0)
		if err == nil && len(groups) != 4 {
			err = fmt.Errorf("%d groups", len(groups))
		}
		return err
	})
	st, err := s.status(0)
	require.NoError(t, err)
	require.Len(t, st.FileErrors, 1)
	require.Contains(t, st.FileErrors[0].File, "heartbeat-1.yml")
	require.Contains(t, st.FileErrors[0].Error, `group "heartbeat-1", rule 1 (record "heartbeat_1")`)
	resp, err := http.Post(s.member(0)+"/-/reload", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	s.waitShown("heartbeat-1.yml")

	require.NoError(t, os.WriteFile(bad, fmt.Appendf(nil, heartbeat, 1), 0o600))
	eventually(t, func() error {
		st, err := s.status(0)
		if err == nil && len(st.FileErrors) > 0 {
			err = fmt.Errorf("file errors: %v", st.FileErrors)
		}
		return err
	})
	s.requireNoHoles(4)
}

// TestWrongUse checks that mistakes end in an error that says what to do.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	running := newSystem(t, "--members", "1", "--rules", writeHeartbeats(t, 1))
	running.start()
	running.waitShared(0)
	base := fmt.Sprint(running.base)
	noRules := filepath.Join(t.TempDir(), "nowhere")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":              {[]string{"up", "--no-such-flag"}, "no-such-flag"},
		"taken ports":               {[]string{"up", "--data-dir", t.TempDir(), "--port-base", base}, "--port-base"},
		"data directory in use":     {[]string{"up", "--data-dir", running.dataDir, "--port-base", base}, running.dataDir},
		"no such rules directory":   {[]string{"up", "--ephemeral", "--rules", noRules}, noRules},
		"backend that is not there": {[]string{"up", "--ephemeral", "--port-base", fmt.Sprint(freePorts(t)), "--backend", "east=http://127.0.0.1:1"}, "http://127.0.0.1:1"},
		"two backends without name": {[]string{"up", "--ephemeral", "--backend", "http://127.0.0.1:1", "--backend", "http://127.0.0.1:2"}, "--backend east=http"},
	} {
		status, out := run(t, c.args...)
		require.NotZero(t, status, name)
		require.Contains(t, out, c.want, name)
		require.Less(t, strings.Count(out, "\n"), 30, "%s: %s", name, out)
	}
	running.requireNoHoles(1)
}

// TestRulesCheck is `tocsin rules check` as a user of promtool knows it.
func TestRulesCheck(t *testing.T) {
	t.Parallel()
	status, out := run(t, "rules", "check", "../../deploy/rules")
	require.Zero(t, status, out)
	bad := filepath.Join(t.TempDir(), "bad.yml")
	require.NoError(t, os.WriteFile(bad, []byte("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up ==\n"), 0o600))
	status, out = run(t, "rules", "check", bad)
	require.Equal(t, 1, status)
	require.Contains(t, out, bad+":5:")
	require.Contains(t, out, `group "g", rule 1 (alert "A")`)
}
