package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// server is a real server, which may be stopped and started again.
type server struct {
	t       *testing.T
	path    string
	address string
	args    []string
	cmd     *exec.Cmd
	out     *output
}

// startServer runs a real server, from Debian's packages unless it is a path,
// until the test ends and waits until it is ready.
func startServer(t *testing.T, name, address string, args ...string) *server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed; .ci/install installs it", name)
	}
	s := &server{t: t, path: path, address: address, args: args, out: &output{}}
	t.Cleanup(func() {
		s.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s:\n%s", name, s.out)
		}
	})
	s.start()
	s.waitReady()
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.path, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, s.cmd.Start())
}

func (s *server) waitReady() {
	s.t.Helper()
	eventually(s.t, func() error {
		resp, err := http.Get("http://" + s.address + "/-/ready")
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s is not ready: %s", s.path, resp.Status)
		}
		return resp.Body.Close()
	})
}

// stop ends the process, if it runs, and waits for its end.
func (s *server) stop(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
	s.cmd = nil
}

func startPrometheus(t *testing.T, port int) (base string) {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte("global: {scrape_interval: 5s}\n"), 0o600))
	startServer(t, "prometheus", address, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--web.enable-remote-write-receiver")
	return "http://" + address
}

// TestExistingServers puts the system on top of two plain Prometheus servers,
// which know nothing of clusters, and of an Alertmanager: both from Debian.
func TestExistingServers(t *testing.T) {
	t.Parallel()
	ports := freePorts(t)
	east, west := startPrometheus(t, ports), startPrometheus(t, ports+1)
	alertmanager := fmt.Sprintf("127.0.0.1:%d", ports+2)
	dir := t.TempDir()
	file := filepath.Join(dir, "alertmanager.yml")
	require.NoError(t, os.WriteFile(file, []byte("route: {receiver: none}\nreceivers: [{name: none}]\n"), 0o600))
	startServer(t, "prometheus-alertmanager", alertmanager, "--config.file="+file, "--storage.path="+dir,
		"--web.listen-address="+alertmanager, "--cluster.listen-address=")

	rules := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(rules, "fleet.yml"), []byte(`
groups:
- name: fleet
  interval: 5s
  query_offset: 10s
  rules:
  - record: fleet:up:count
    expr: count(up)
  - record: cluster:up:count
    expr: count by (cluster) (up)
  - record: job:scrape_duration_seconds:max
    expr: max by (job, cluster) (scrape_duration_seconds)
  - record: instance:up_with_cpu:count
    expr: count by (cluster) (up * on (instance, job) group_left (cluster) process_start_time_seconds)
  - alert: Always
    expr: cluster:up:count > 0
    labels: {severity: info}
`), 0o600))
	s := newSystem(t, "--rules", rules, "--backend", "east="+east, "--backend", "west="+west, "--alertmanager", "http://"+alertmanager)
	s.start()
	s.waitShared(0)

	t.Log("recorded series are where they belong, without labels that the server does not store")
	var clusters model.Vector
	eventually(t, func() (err error) {
		clusters, err = s.query(1, "cluster:up:count", time.Now())
		if err == nil && len(clusters) != 2 {
			err = fmt.Errorf("%v", clusters)
		}
		return err
	})
	for server, cluster := range map[string]string{east: "east", west: "west"} {
		v, _, _, err := prometheusAPI(t, server).Query(t.Context(), "cluster:up:count", time.Now())
		require.NoError(t, err)
		require.Len(t, v, 1)
		require.Equal(t, model.Metric{"__name__": "cluster:up:count"}, v.(model.Vector)[0].Metric, cluster)
	}
	total, err := s.query(2, "fleet:up:count == sum(cluster:up:count)", clusters[0].Timestamp.Time())
	require.NoError(t, err)
	require.Len(t, total, 1, "the sum over both is what was counted over both")

	t.Log("alerts are in the existing Alertmanager")
	eventually(t, func() error {
		alerts, err := alertsOf("http://"+alertmanager, "Always")
		if err == nil && len(alerts) != 2 {
			err = fmt.Errorf("%v", alerts)
		}
		return err
	})
}
