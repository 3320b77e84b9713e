// Package thanos runs real Thanos processes for tests: receivers, which store
// what is written to them, and queriers over them. It never runs outside tests.
package thanos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
	"github.com/tocsin-rules/tocsin/test/program"
)

const (
	// settle bounds waiting for a process on a loaded machine.
	settle = 2 * time.Minute
	poll   = 100 * time.Millisecond
	// perRequest is the number of samples in one write.
	perRequest = 2000
)

// Process is one Thanos component.
type Process struct {
	// GRPC and HTTP are the addresses it listens on, "host:port".
	GRPC, HTTP string
	cmd        *exec.Cmd
	out        *output
}

// Receiver is a receiver with a store of its own.
type Receiver struct {
	Process
	// WriteURL takes remote write.
	WriteURL string
}

// StartReceiver runs a receiver until the test ends. Its series get the label,
// and, if replica is not empty, the label "replica".
func StartReceiver(t testing.TB, label labels.Label, replica string) *Receiver {
	t.Helper()
	write := freeAddress(t)
	announced := fmt.Sprintf("%s=%q", label.Name, label.Value)
	if replica != "" {
		announced = fmt.Sprintf("replica=%q", replica)
	}
	p := start(t, "receive",
		"--tsdb.path="+filepath.Join(t.TempDir(), "data"),
		"--remote-write.address="+write,
		"--receive.capnproto-address="+freeAddress(t),
		"--label="+announced,
		// The tenant is announced as a label, too.
		"--receive.tenant-label-name="+label.Name, "--receive.default-tenant-id="+label.Value,
	)
	return &Receiver{Process: *p, WriteURL: "http://" + write + "/api/v1/receive"}
}

// StartQuerier runs a querier over stores, or, in distributed mode, over other
// queriers, until the test ends. It knows PromQL's experimental functions.
func StartQuerier(t testing.TB, below []string, args ...string) *Process {
	t.Helper()
	args = append(args, "--enable-feature=promql-experimental-functions")
	for _, address := range below {
		args = append(args, "--endpoint-strict="+address)
	}
	return start(t, "query", args...)
}

// Kill ends the process at once.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

func start(t testing.TB, component string, args ...string) *Process {
	t.Helper()
	binary := program.Thanos().Build(t)
	p := &Process{GRPC: freeAddress(t), HTTP: freeAddress(t), out: &output{}}
	p.cmd = exec.Command(binary, append([]string{component, "--grpc-address=" + p.GRPC, "--http-address=" + p.HTTP, "--log.level=warn"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		p.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("thanos %s:\n%s", component, p.out)
		}
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + p.HTTP + "/-/ready")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, settle, poll, "thanos %s is not ready", component)
	return p
}

// Write stores series; remote write takes the samples in order of their time.
func (r *Receiver) Write(t testing.TB, series []promql.Series) {
	t.Helper()
	var samples []remotewrite.Sample
	for _, s := range series {
		for _, p := range s.Floats {
			samples = append(samples, remotewrite.Sample{Labels: s.Metric, T: p.T, F: p.F})
		}
		for _, p := range s.Histograms {
			samples = append(samples, remotewrite.Sample{Labels: s.Metric, T: p.T, FH: p.H})
		}
	}
	for from := 0; from < len(samples); from += perRequest {
		body, err := remotewrite.Encode(samples[from:min(from+perRequest, len(samples))], remoteapi.WriteV1MessageType)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return post(t, r.WriteURL, body) }, settle, poll, "the receiver takes no writes")
	}
}

// post tells whether the receiver took a write; one that starts says that it
// is not there yet.
func post(t testing.TB, target string, body []byte) bool {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, target, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 == 4 {
		t.Errorf("the receiver refused a write: %s: %s", resp.Status, text)
	}
	return resp.StatusCode/100 == 2
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// output is what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is all of it.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
