package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tocsin-rules/tocsin/backend/app"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
	"github.com/tocsin-rules/tocsin/web/server"
)

// childEnv makes the test binary a backend process with the options that the
// variable holds.
const childEnv = "TOCSIN_BACKEND_TEST_OPTIONS"

func TestMain(m *testing.M) {
	if encoded := os.Getenv(childEnv); encoded != "" {
		os.Exit(child(encoded))
	}
	os.Exit(m.Run())
}

func child(encoded string) int {
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	var opts app.Options
	if err := json.Unmarshal([]byte(encoded), &opts); err != nil {
		logger.Error("decode options", "err", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := app.Run(ctx, opts, logger); err != nil {
		logger.Error("backend failed", "err", err)
		return 1
	}
	return 0
}

// process is a backend that runs as a process of its own.
type process struct {
	t          *testing.T
	cmd        *exec.Cmd
	http, grpc string
	// failure is the last error that the process logged.
	failure string
	logged  chan struct{}
}

func options(dir string) app.Options {
	return app.Options{
		StoragePath:       dir,
		ExternalLabels:    labels.FromStrings("cluster", "east"),
		HTTP:              server.Config{ListenAddress: "127.0.0.1:0"},
		GRPCListenAddress: "127.0.0.1:0",
	}
}

// launch starts a process; it does not wait until it is ready.
func launch(t *testing.T, opts app.Options) *process {
	t.Helper()
	encoded, err := json.Marshal(opts)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(exe), logged: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(encoded))
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	started := make(chan struct{})
	go p.follow(stderr, started)
	select {
	case <-started:
	case <-p.logged:
	}
	return p
}

// follow reads the process' log until it ends.
func (p *process) follow(stderr io.Reader, started chan struct{}) {
	defer close(p.logged)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		var line struct{ Msg, HTTP, GRPC, Err string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		if line.Msg == "backend is starting" {
			p.http, p.grpc = line.HTTP, line.GRPC
			close(started)
		}
		if line.Err != "" {
			p.failure = line.Err
		}
	}
}

// wait returns the exit code.
func (p *process) wait() int {
	<-p.logged
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) ready() *process {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		resp, err := http.Get("http://" + p.http + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 30*time.Second, 5*time.Millisecond)
	return p
}

func (p *process) write(t int64, value float64) {
	p.t.Helper()
	req := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "m"}},
		Samples: []prompb.Sample{{Timestamp: t, Value: value}},
	}}}
	body, err := req.Marshal()
	require.NoError(p.t, err)
	resp, err := http.Post("http://"+p.http+"/api/v1/write", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(p.t, err)
	require.NoError(p.t, resp.Body.Close())
	require.Equal(p.t, http.StatusNoContent, resp.StatusCode)
}

func (p *process) query() string {
	p.t.Helper()
	resp, err := http.Get("http://" + p.http + "/api/v1/query?query=m[1h]&time=3600")
	require.NoError(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return string(body)
}

func TestRestartContinuesWhereTheLastRunEnded(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		signal syscall.Signal
		code   int
	}{
		"a stopped process keeps its data":        {syscall.SIGTERM, 0},
		"a killed process keeps what it answered": {syscall.SIGKILL, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := launch(t, options(dir)).ready()
			first.write(1_000_000, 1)
			first.write(2_000_000, 2)
			// Out of order, which goes through a log of its own.
			first.write(1_500_000, 1.5)
			require.NoError(t, first.cmd.Process.Signal(end.signal))
			require.Equal(t, end.code, first.wait())

			second := launch(t, options(dir)).ready()
			second.write(3_000_000, 3)
			require.Contains(t, second.query(), `"values":[[1000,"1"],[1500,"1.5"],[2000,"2"],[3000,"3"]]`)
			require.Contains(t, second.query(), `"cluster":"east"`)
			require.NoError(t, second.cmd.Process.Signal(syscall.SIGTERM))
			require.Zero(t, second.wait())
		})
	}
}

func TestBothProtocolsServeTheSameStore(t *testing.T) {
	t.Parallel()
	p := launch(t, options(t.TempDir())).ready()
	p.write(1_000_000, 42)
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	stream, err := pushdownv1.NewPushdownClient(conn).Execute(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&pushdownv1.BatchRequest{BatchId: 7, Fragments: []*pushdownv1.Fragment{
		{Expr: `m{cluster="east"}`, StartMs: 1_000_000, EndMs: 1_000_000},
	}}))
	msg, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, []float64{42}, msg.GetResults()[0].GetValues())
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.wait())
}

func TestTakenDirectoryIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	launch(t, options(dir)).ready()
	second := launch(t, options(dir))
	require.Equal(t, 1, second.wait())
	require.Contains(t, second.failure, "is in use by another process")
	require.Contains(t, second.failure, dir)
}

func TestTakenPortIsReportedBeforeTheStoreIsTouched(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	for what, change := range map[string]func(*app.Options){
		"HTTP": func(o *app.Options) { o.HTTP.ListenAddress = taken.Addr().String() },
		"gRPC": func(o *app.Options) { o.GRPCListenAddress = taken.Addr().String() },
	} {
		opts := options(t.TempDir() + "/data")
		change(&opts)
		err := app.Run(t.Context(), opts, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "listen for "+what)
		require.ErrorContains(t, err, taken.Addr().String())
		require.NoDirExists(t, opts.StoragePath)
	}
}

func TestOtherPartitionsDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := launch(t, options(dir)).ready()
	first.write(time.Now().UnixMilli(), 1)
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, first.wait())
	for name, change := range map[string]func(*app.Options){
		"another value": func(o *app.Options) { o.ExternalLabels = labels.FromStrings("cluster", "west") },
		"another label": func(o *app.Options) { o.ExternalLabels = labels.FromStrings("region", "east") },
		"absent label":  func(o *app.Options) { o.ExternalLabels, o.AbsentLabels = labels.EmptyLabels(), []string{"cluster"} },
	} {
		opts := options(dir)
		change(&opts)
		err := app.Run(t.Context(), opts, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, `holds the series {__name__="m", cluster="east"}`, name)
	}
}

func TestBadOptionsAreReportedTogether(t *testing.T) {
	t.Parallel()
	opts := options("")
	opts.ExternalLabels = labels.FromStrings("cluster", "east", "0bad", "x")
	opts.AbsentLabels = []string{"cluster"}
	opts.Retention = -time.Hour
	err := app.Run(t.Context(), opts, slog.New(slog.DiscardHandler))
	for _, fault := range []string{"storage path is empty", `"0bad"`, "both an external label and absent", "retention"} {
		require.ErrorContains(t, err, fault)
	}
	opts = options(t.TempDir())
	opts.GRPCListenAddress = "0.0.0.0:0"
	require.ErrorContains(t, app.Run(t.Context(), opts, slog.New(slog.DiscardHandler)), "loopback")
}

func TestMetricsOfTheWholeProcess(t *testing.T) {
	t.Parallel()
	p := launch(t, options(t.TempDir())).ready()
	resp, err := http.Get("http://" + p.http + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	for _, name := range []string{
		"process_resident_memory_bytes", "go_goroutines", "prometheus_tsdb_head_series",
		"prometheus_engine_queries", "thanos_engine_queries_total",
		`tocsin_backend_engine_fallback_total{reason="unimplemented"} 0`, "tocsin_backend_pushdown_streams 0",
		`tocsin_backend_refused_samples_total{reason="other_partition"} 0`,
	} {
		require.Contains(t, string(body), name)
	}
}
