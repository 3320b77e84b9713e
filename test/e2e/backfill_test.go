package e2e_test

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
)

// backfillSystem is one backend with hours of data that no rule was evaluated
// over, and the rules for it.
type backfillSystem struct {
	t          *testing.T
	dir        string
	url        string
	start, end time.Time
}

const backfillRules = `
groups:
- name: requests
  interval: 30s
  rules:
  - {record: "job:requests:rate", expr: "sum by (job) (rate(requests_total[5m]))"}
  - {record: "job:requests:share", expr: "job:requests:rate / on () group_left () sum(job:requests:rate)"}
  - {alert: Busy, expr: "job:requests:rate > 2", for: 5m, keep_firing_for: 2m}
- name: counts
  interval: 30s
  rules:
  - {record: slots, expr: "(slots offset 30s or vector(0)) + 1"}
`

func newBackfillSystem(t *testing.T) *backfillSystem {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	b := &backfillSystem{t: t, dir: t.TempDir(), end: time.Now().Truncate(time.Minute).Add(-time.Minute)}
	b.start = b.end.Add(-7 * time.Hour)
	port := freePorts(t)
	address, grpc := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
	b.url = "http://" + address
	b.startBackend(address, grpc)
	b.file("rules.yml", backfillRules)
	b.file("evaluator.yml", fmt.Sprintf("rule_files: [rules.yml]\nbackends:\n- {name: main, url: %q, grpc: {address: %q}}\n", b.url, grpc))
	b.fill()
	return b
}

func (b *backfillSystem) file(name, content string) {
	require.NoError(b.t, os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600))
}

func (b *backfillSystem) startBackend(address, grpc string) {
	b.t.Helper()
	path, err := binary()
	require.NoError(b.t, err)
	startServer(b.t, path, address, "backend", "--storage.path="+filepath.Join(b.dir, "data"),
		"--storage.out-of-order-window=24h", "--web.listen-address="+address, "--grpc.listen-address="+grpc)
}

// fill writes counters of two jobs by remote write.
func (b *backfillSystem) fill() {
	b.t.Helper()
	target, err := url.Parse(b.url + "/api/v1/write")
	require.NoError(b.t, err)
	client, err := remote.NewWriteClient("test", &remote.ClientConfig{
		URL: &commonconfig.URL{URL: target}, Timeout: model.Duration(time.Minute),
		HTTPClientConfig: commonconfig.DefaultHTTPClientConfig, WriteProtoMsg: remoteapi.WriteV1MessageType,
	})
	require.NoError(b.t, err)
	var req prompb.WriteRequest
	for i, job := range []string{"shop", "mail"} {
		series := prompb.TimeSeries{Labels: prompb.FromLabels(labels.FromStrings("__name__", "requests_total", "job", job), nil)}
		count := 0
		for n := 0; !b.start.Add(time.Duration(n) * 15 * time.Second).After(b.end); n++ {
			count += 15 * ((n / 60) % (4 + i))
			series.Samples = append(series.Samples, prompb.Sample{Timestamp: b.start.Add(time.Duration(n) * 15 * time.Second).UnixMilli(), Value: float64(count)})
		}
		req.Timeseries = append(req.Timeseries, series)
	}
	body, err := req.Marshal()
	require.NoError(b.t, err)
	_, err = client.Store(b.t.Context(), snappy.Encode(nil, body), 0)
	require.NoError(b.t, err)
}

func (b *backfillSystem) command(args ...string) *exec.Cmd {
	path, err := binary()
	require.NoError(b.t, err)
	cmd := exec.Command(path, append([]string{
		"rules", "backfill", "--config.file=" + filepath.Join(b.dir, "evaluator.yml"),
		"--start=" + b.start.UTC().Format(time.RFC3339), fmt.Sprintf("--end=%d", b.end.Unix()),
	}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a backfill to its end.
func (b *backfillSystem) run(args ...string) string {
	b.t.Helper()
	out, err := b.command(args...).CombinedOutput()
	require.NoError(b.t, err, string(out))
	return string(out)
}

// kill starts a backfill, and kills it once it has saved a state.
func (b *backfillSystem) kill(state string, args ...string) {
	b.t.Helper()
	cmd := b.command(args...)
	require.NoError(b.t, cmd.Start())
	eventually(b.t, func() error {
		_, err := os.Stat(state)
		return err
	})
	require.NoError(b.t, cmd.Process.Kill())
	require.Error(b.t, cmd.Wait())
	require.FileExists(b.t, state, "it was not through")
}

// dump is all that Debian's promtool finds in a directory with blocks.
func (b *backfillSystem) dump(dir string) string {
	b.t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		b.t.Skip("promtool is not installed; .ci/install installs it")
	}
	// It insists on a log of what is not in blocks.
	require.NoError(b.t, os.MkdirAll(filepath.Join(dir, "wal"), 0o755))
	var stderr bytes.Buffer
	cmd := exec.Command(tool, "tsdb", "dump", dir)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(b.t, err, stderr.String())
	return string(out)
}

// TestBackfill writes what rules would have recorded to a backend and to
// blocks, is killed in between, and ends with the same samples everywhere.
func TestBackfill(t *testing.T) {
	t.Parallel()
	b := newBackfillSystem(t)
	plan := b.run("--dry-run")
	require.Contains(t, plan, "840 slots every 30s, 3 rules in 2 stages")
	require.Contains(t, plan, `slot by slot: rule "slots" reads what "slots" recorded`)

	t.Log("blocks, killed in between and not, are the same")
	whole, parts := filepath.Join(b.dir, "whole"), filepath.Join(b.dir, "parts")
	require.Contains(t, b.run("--output-dir="+whole), "samples written to blocks in "+whole)
	b.kill(filepath.Join(parts, ".backfill", "state.json"), "--output-dir="+parts)
	b.run("--output-dir=" + parts)
	want := b.dump(whole)
	require.Equal(t, want, b.dump(parts))
	require.NotContains(t, want, "requests_total{")
	require.Contains(t, want, `{__name__="ALERTS", alertname="Busy", alertstate="firing", job="shop"} 1 `)

	t.Log("a Prometheus server shows the blocks")
	port := freePorts(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	b.file("prometheus.yml", "global: {scrape_interval: 1h}\n")
	startServer(t, "prometheus", address, "--config.file="+filepath.Join(b.dir, "prometheus.yml"), "--storage.tsdb.path="+whole, "--web.listen-address="+address)
	fromBlocks := b.matrix("http://" + address)
	require.Equal(t, 840, samplesOf(fromBlocks, "slots"))

	t.Log("the backend, written to with a kill in between, has the same")
	state := filepath.Join(b.dir, "state.json")
	b.kill(state, "--state-file="+state)
	require.Contains(t, b.run("--state-file="+state, "--concurrency=1"), "100% ")
	require.NoFileExists(t, state)
	require.Equal(t, fromBlocks.String(), b.matrix(b.url).String())
}

// matrix is everything that was recorded.
func (b *backfillSystem) matrix(server string) model.Matrix {
	b.t.Helper()
	value, _, _, err := prometheusAPI(b.t, server).Query(b.t.Context(), `{__name__=~"job:.+|slots|ALERTS.*"}[8h]`, b.end)
	require.NoError(b.t, err)
	return value.(model.Matrix)
}

func samplesOf(m model.Matrix, name string) int {
	n := 0
	for _, s := range m {
		if string(s.Metric["__name__"]) == name {
			n += len(s.Values)
		}
	}
	return n
}
