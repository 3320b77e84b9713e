package process

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// helperFlag makes the test binary behave as a child: its value is what to do.
const helperFlag = "-process-helper="

func TestMain(m *testing.M) {
	for _, arg := range os.Args[1:] {
		if mode, ok := strings.CutPrefix(arg, helperFlag); ok {
			os.Exit(helper(mode))
		}
	}
	os.Exit(m.Run())
}

func helper(mode string) int {
	name, arg, _ := strings.Cut(mode, "@")
	switch name {
	case "fail":
		fmt.Fprintln(os.Stderr, "some line")
		fmt.Fprintln(os.Stderr, "no such thing")
		return 3
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		return serve(arg, nil)
	case "parent":
		p := New(spec("serve", arg, os.DevNull), slog.New(slog.DiscardHandler))
		_ = p.Run(context.Background())
		return 0
	case "unready":
		return serve(arg, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Not ready: waiting for a friend", http.StatusServiceUnavailable)
		}))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go serve(arg, nil)
	<-ctx.Done()
	return 0
}

func serve(addr string, h http.Handler) int {
	if h == nil {
		h = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	}
	fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, h))
	return 1
}

// child is a process under test whose Run is under way.
type child struct {
	*Process
	addr   string
	log    string
	cancel context.CancelFunc
	done   chan struct{}
}

func start(t *testing.T, mode string) *child {
	t.Helper()
	addr := freeAddress(t)
	log := filepath.Join(t.TempDir(), "child.log")
	p := New(spec(mode, addr, log), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	c := &child{Process: p, addr: addr, log: log, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_ = p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		_ = p.Kill()
		<-c.done
	})
	return c
}

func spec(mode, addr, log string) Spec {
	return Spec{
		Name: "child", Path: os.Args[0], Args: []string{helperFlag + mode + "@" + addr},
		ReadyURL: "http://" + addr, LogFile: log,
		Backoff: Backoff{Min: 10 * time.Millisecond, Max: 40 * time.Millisecond, Stable: time.Hour},
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func (c *child) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, c.WaitReady(ctx))
}

func TestAKilledProcessIsRestartedAndReadyAgain(t *testing.T) {
	t.Parallel()
	c := start(t, "serve")
	c.waitReady(t)
	first := c.Status().PID
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		s := c.Status()
		return s.State == Ready && s.PID != first
	}, time.Minute, 5*time.Millisecond)
	require.Equal(t, 1, c.Status().Restarts)
	require.Equal(t, "signal: killed", c.Status().LastExit)
}

func TestAProcessThatKeepsFailingIsReportedWithItsLastLine(t *testing.T) {
	t.Parallel()
	c := start(t, "fail")
	err := c.WaitReady(t.Context())
	require.EqualError(t, err, "child does not start: exit status 3; last output: no such thing (all of its output: "+c.log+")")
	require.GreaterOrEqual(t, c.Status().Restarts, maxFailedStarts)
	content, err := os.ReadFile(c.log)
	require.NoError(t, err)
	require.Contains(t, string(content), "some line\nno such thing\n")
}

func TestAProcessThatIsNotReadyInTimeSaysWhy(t *testing.T) {
	t.Parallel()
	c := start(t, "unready")
	require.Eventually(t, func() bool {
		return strings.Contains(c.Status().NotReady, "waiting for a friend")
	}, time.Minute, 5*time.Millisecond)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("waited long enough"))
	require.EqualError(t, c.WaitReady(ctx),
		"child is not ready (its output: "+c.log+"): waited long enough: Not ready: waiting for a friend")
}

func TestStoppingAsksFirst(t *testing.T) {
	t.Parallel()
	c := start(t, "serve")
	c.waitReady(t)
	c.cancel()
	<-c.done
	require.Equal(t, Stopped, c.Status().State)
	require.Zero(t, c.Status().Restarts)
}

func TestAProcessThatIgnoresTheRequestIsKilled(t *testing.T) {
	t.Parallel()
	c := start(t, "stubborn")
	c.waitReady(t)
	pid := c.Status().PID
	c.cancel()
	require.Eventually(t, func() bool { return c.Status().State == Stopping }, time.Minute, time.Millisecond)
	require.NoError(t, syscall.Kill(pid, 0), "it still runs")
	require.NoError(t, c.Kill())
	<-c.done
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

func TestAChildIsInAProcessGroupOfItsOwn(t *testing.T) {
	t.Parallel()
	c := start(t, "serve")
	c.waitReady(t)
	group, err := syscall.Getpgid(c.Status().PID)
	require.NoError(t, err)
	require.Equal(t, c.Status().PID, group)
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := DefaultBackoff()
	for _, tc := range []struct {
		name      string
		last, ran time.Duration
		want      time.Duration
	}{
		{"the first exit waits the least", 0, 0, time.Second},
		{"the next one twice as long", time.Second, time.Millisecond, 2 * time.Second},
		{"and so on", 4 * time.Second, 5 * time.Second, 8 * time.Second},
		{"up to the most", 8 * time.Second, time.Second, 10 * time.Second},
		{"a stable run starts over", 10 * time.Second, 30 * time.Second, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.want, b.next(tc.last, tc.ran))
		})
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "child.log")
	o := &output{path: path}
	require.NoError(t, o.open())
	t.Cleanup(o.close)
	chunk := []byte(strings.Repeat("x", 1<<20-1) + "\n")
	for range 3 * maxLogBytes / len(chunk) {
		_, err := o.Write(chunk)
		require.NoError(t, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(maxLogBytes), e.Name())
	}
	require.Len(t, o.lastLine(), maxLineBytes)
}

func TestLastLine(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		writes []string
		want   string
	}{
		"nothing printed":             {nil, ""},
		"a complete line":             {[]string{"one\ntwo\n"}, "two"},
		"blank lines at the end":      {[]string{"one\n", "\n  \n"}, "one"},
		"a line without an end":       {[]string{"one\ntw", "o"}, "two"},
		"a line over several writes":  {[]string{"o", "n", "e\n"}, "one"},
		"only the start of long ones": {[]string{strings.Repeat("y", 2*maxLineBytes)}, strings.Repeat("y", maxLineBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &output{}
			for _, w := range tc.writes {
				_, err := o.Write([]byte(w))
				require.NoError(t, err)
			}
			require.Equal(t, tc.want, o.lastLine())
		})
	}
}
