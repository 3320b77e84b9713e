package up

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/up/process"
	"github.com/tocsin-rules/tocsin/up/screen"
)

// external is a layout that starts neither an Alertmanager nor the receiver
// of its notifications.
func external() layout {
	return layout{request: request{alertmanagers: []*url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}}}
}

// standInChild describes a stand-in that is started directly by a system.
func standInChild(t *testing.T, dir, name string, flags ...string) child {
	t.Helper()
	address := freeAddress(t)
	args := append([]string{
		"backend", "--name=" + name, "--stopped=" + filepath.Join(dir, "stopped"),
		"--web.listen-address=" + address,
	}, flags...)
	return child{url: "http://" + address, spec: process.Spec{
		Name: name, Path: os.Args[0], Args: args, ReadyURL: "http://" + address + "/-/ready",
		LogFile: filepath.Join(dir, name+".log"),
		Backoff: process.Backoff{Min: 10 * time.Millisecond, Max: 20 * time.Millisecond, Stable: time.Hour},
	}}
}

// states passes what is displayed to the test.
type states chan screen.State

func (c states) show(s screen.State, _ time.Time) {
	select {
	case c <- s:
	default:
	}
}

// waitPhase returns the first state of a phase.
func (c states) waitPhase(t *testing.T, p screen.Phase) screen.State {
	t.Helper()
	for {
		select {
		case s := <-c:
			if s.Phase == p {
				return s
			}
		case <-time.After(time.Minute):
			t.Fatalf("no phase %q within a minute", p)
		}
	}
}

func TestASystemStartsInOrderAndStopsInReverse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tiers := [][]child{
		{standInChild(t, dir, "store")}, {standInChild(t, dir, "agent")}, {standInChild(t, dir, "member")},
	}
	s := newSystem(external(), dirs(dir), tiers, slog.New(slog.DiscardHandler))
	seen := make(states, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, seen) }()
	now := seen.waitPhase(t, screen.Running)
	require.Len(t, now.Others, 2)
	require.Len(t, now.Members, 1)
	require.Equal(t, 7, now.Members[0].Status.Groups)
	cancel()
	require.NoError(t, <-done)
	order, err := os.ReadFile(filepath.Join(dir, "stopped"))
	require.NoError(t, err)
	require.Equal(t, []string{"member", "agent", "store"}, strings.Fields(string(order)))
}

func TestStoppingIsBoundedAndTheOthersStillStopInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tiers := [][]child{{standInChild(t, dir, "store")}, {standInChild(t, dir, "member", "--stubborn")}}
	s := newSystem(external(), dirs(dir), tiers, slog.New(slog.DiscardHandler))
	s.stopBound = 2 * time.Second
	require.NoError(t, s.start(t.Context()))
	pid := s.tiers[1][0].Status().PID
	begin := time.Now()
	s.stop()
	require.GreaterOrEqual(t, time.Since(begin), s.stopBound/2, "it had its share")
	require.Less(t, time.Since(begin), 10*time.Second)
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	order, err := os.ReadFile(filepath.Join(dir, "stopped"))
	require.NoError(t, err)
	require.Equal(t, "store\n", string(order))
}

func TestASystemThatCannotStartStopsWhatRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tiers := [][]child{{standInChild(t, dir, "store")}, {standInChild(t, dir, "agent", "--broken")}, {standInChild(t, dir, "member")}}
	s := newSystem(external(), dirs(dir), tiers, slog.New(slog.DiscardHandler))
	err := s.run(t.Context(), make(states, 100))
	require.EqualError(t, err, "agent does not start: exit status 1; last output: open data: no space left (all of its output: "+
		filepath.Join(dir, "agent.log")+")")
	require.Equal(t, process.Stopped, s.tiers[0][0].Status().State)
	require.Equal(t, process.Waiting, s.tiers[2][0].Status().State)
}

// freePortBase finds a base whose ports are free now, below the range from
// which the kernel gives out ports.
func freePortBase(t *testing.T, o Options) int {
	t.Helper()
	for base := 20000 + os.Getpid()%100*100; base < 32000; base += portSpan {
		o.PortBase = base
		r, err := o.parse()
		require.NoError(t, err)
		if checkPorts(layout{request: r}.ports()) == nil {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// TestRun starts the whole system with stand-ins for all of its processes.
func TestRun(t *testing.T) {
	t.Parallel()
	o := defaults()
	o.DataDir = t.TempDir()
	o.PortBase = freePortBase(t, o)
	var out syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o, &out) }()
	home := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(o.PortBase))
	require.Eventually(t, func() bool {
		return strings.Contains(out.String(), "3 of 3 members ready: 21 groups")
	}, time.Minute, 10*time.Millisecond, "output: %s", &out)
	require.Contains(t, out.String(), "Tocsin is running at "+home)

	t.Run("a second one on the same directory names the first", func(t *testing.T) {
		err := Run(ctx, o, &syncBuffer{})
		require.EqualError(t, err, "data directory "+o.DataDir+" is in use by another tocsin up (process "+
			strconv.Itoa(os.Getpid())+"): end that one or choose another directory with --data-dir")
	})
	t.Run("a second one on the same ports names the ports and the flag", func(t *testing.T) {
		other := o
		other.DataDir = ""
		other.Ephemeral = true
		err := Run(ctx, other, &syncBuffer{})
		require.ErrorContains(t, err, "tcp port "+strings.TrimPrefix(home, "http://")+", for HTTP of member-0, can't be used")
		require.ErrorContains(t, err, "--port-base")
	})
	cancel()
	require.NoError(t, <-done)
	require.Contains(t, out.String(), "Tocsin is stopping")
	for _, p := range []string{"up", "backend-east", "backend-west", "backend-global", "alertmanager", "collector-east", "member-2"} {
		require.FileExists(t, dirs(o.DataDir).log(p))
	}
}
