package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/explain"
	"github.com/tocsin-rules/tocsin/web"
)

const fleetRules = `
groups:
- name: fleet
  interval: 5s
  rules:
  - record: fleet:up:sum
    expr: sum by (job) (up)
  - record: fleet:up:tail
    expr: max_over_time(quantile_over_time(scalar(count(up) > bool 1000), up[1m])[5s:5s])
`

// TestOperations looks at a running system and drains a member, with the
// commands for it.
func TestOperations(t *testing.T) {
	t.Parallel()
	const beats = 6
	dir := writeHeartbeats(t, beats)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fleet.yml"), []byte(fleetRules), 0o600))
	s := newSystem(t, "--rules", dir)
	s.start()
	s.waitShared(0, 1, 2)

	s.waitCollected()
	t.Log("any member shows the targets of all collectors")
	s.requireTargets(1)

	t.Log("the rules of a member's configuration are explained and measured")
	s.requireAnalysis()

	t.Log("any member explains a group")
	status, out := run(t, "rules", "explain", "--url", s.member(1), "file/fleet")
	require.Zero(t, status, out)
	require.Contains(t, out, "east: sum by (job, cluster) (up)")
	require.Contains(t, out, "raw series of east, west, global: up[1m]")

	t.Log("any member knows who evaluates what")
	cluster := s.clusterStatus(2)
	require.Len(t, cluster.Members, 3)
	require.Len(t, cluster.Groups, beats+1)
	status, out = run(t, "cluster", "owners", "--url", s.member(2), "fleet")
	require.Zero(t, status, out)
	require.Contains(t, out, "file/fleet")

	t.Log("a member is drained: it stays, leaving, and the others evaluate its groups")
	for range 2 {
		status, out = run(t, "cluster", "drain", "--url", s.member(1))
		require.Zero(t, status, out)
		require.Equal(t, "Drained.\n", out)
	}
	s.requireNotReady(1, "drained")
	s.waitShared(0, 2)
	cluster = s.clusterStatus(0)
	require.Equal(t, "leaving", cluster.Members[1].State)
	require.Zero(t, cluster.Members[1].Status.Groups)
	status, out = run(t, "cluster", "status", "--url", s.member(0))
	require.Zero(t, status, out)
	require.Contains(t, out, "member-1 is not ready: drained")
	require.Contains(t, out, memberName(1)+" to ", "the last handoffs are from the member that was drained")

	t.Log("it is stopped and started again: it takes groups back")
	s.signalMember(1, syscall.SIGTERM)
	s.waitShared(0, 1, 2)
	s.requireNoHoles(beats)
	for i := range 3 {
		st, err := s.status(i)
		require.NoError(t, err)
		require.Zero(t, st.SlotsMissed)
	}
	s.stop()
}

// waitCollected waits until both clusters have scraped something.
func (s *system) waitCollected() {
	s.t.Helper()
	eventually(s.t, func() error {
		v, err := s.query(0, "count by (cluster) (up)", time.Now())
		if err == nil && len(v) != 2 {
			err = fmt.Errorf("clusters with data: %v", v)
		}
		return err
	})
}

// requireTargets waits until a member shows the targets of both clusters'
// collectors as healthy, each of which writes one series up.
func (s *system) requireTargets(i int) {
	s.t.Helper()
	eventually(s.t, func() error {
		targets, err := s.api(i).Targets(s.t.Context())
		if err != nil {
			return err
		}
		v, err := s.query(0, "count(up{cluster=~'east|west'} == 1)", time.Now())
		if err != nil {
			return err
		}
		if len(v) != 1 || int(v[0].Value) != len(targets.Active) {
			return fmt.Errorf("up: %v, targets: %d", v, len(targets.Active))
		}
		return nil
	})
}

func (s *system) requireAnalysis() {
	s.t.Helper()
	config := filepath.Join(s.dataDir, "config", "evaluator.yml")
	var report explain.Report
	eventually(s.t, func() error {
		status, out := run(s.t, "rules", "explain", "--config.file", config, "--analyze", "--format", "json")
		if status != 0 {
			return fmt.Errorf("status %d: %s", status, out)
		}
		report = explain.Report{}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			return err
		}
		for _, b := range report.Backends {
			if b.Cost == nil || b.Cost.Bytes == 0 {
				return fmt.Errorf("nothing was asked of %s", b.Name)
			}
		}
		return nil
	})
	require.Empty(s.t, report.Unplanned)
	found := map[string]explain.RuleReport{}
	for _, r := range report.Rules {
		found[r.Name] = r
	}
	require.Positive(s.t, found["fleet:up:sum"].Result.Series)
	require.NotEmpty(s.t, found["fleet:up:tail"].Notes)
	require.Contains(s.t, report.String(), "raw series of east, west, global: up[1m] (")
}

// clusterStatus waits until every group runs on its owner alone, and returns
// what a member says then.
func (s *system) clusterStatus(i int) web.ClusterStatus {
	s.t.Helper()
	var status web.ClusterStatus
	eventually(s.t, func() error {
		code, out := run(s.t, "cluster", "status", "--url", s.member(i), "--format", "json")
		if code != 0 {
			return fmt.Errorf("status %d: %s", code, out)
		}
		status = web.ClusterStatus{}
		if err := json.Unmarshal([]byte(out), &status); err != nil {
			return err
		}
		for _, g := range status.Groups {
			if len(g.Running) != 1 || g.Running[0].Member != g.Owner {
				return fmt.Errorf("group %s: owner %s, runs on %v", g.Key, g.Owner, g.Running)
			}
		}
		return nil
	})
	require.Equal(s.t, memberName(i), status.Member)
	return status
}

func (s *system) requireNotReady(i int, why string) {
	s.t.Helper()
	resp, err := http.Get(s.member(i) + "/-/ready")
	require.NoError(s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Contains(s.t, string(body), why)
}
