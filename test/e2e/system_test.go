// Package e2e_test runs the whole system as its users do, with real processes,
// and looks at it from outside only: flags, HTTP, signals, the terminal.
//
// The tests are skipped with -short. A failure leaves the logs of all
// processes in a directory that it names.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

const (
	// settle bounds waiting for anything on a loaded machine.
	settle = 2 * time.Minute
	poll   = 200 * time.Millisecond
)

// binary is the tocsin executable under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tocsin-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tocsin")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/tocsin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build tocsin: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// system is one running `tocsin up`.
type system struct {
	t       *testing.T
	base    int
	dataDir string
	args    []string
	cmd     *exec.Cmd
	out     *output
	exited  chan error
}

// output is what a process prints, readable while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// newSystem prepares a system with free ports and a data directory of its
// own; start runs it.
func newSystem(t *testing.T, args ...string) *system {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	s := &system{t: t, base: freePorts(t), dataDir: t.TempDir(), args: args}
	t.Cleanup(s.cleanup)
	return s
}

// nextPorts is the first of the ports that no test was given yet.
var nextPorts atomic.Int64

// freePorts finds a run of ports that nobody uses, below those that the
// kernel hands out.
func freePorts(t *testing.T) int {
	t.Helper()
	const first, last, span = 20000, 32000, 100
	nextPorts.CompareAndSwap(0, int64(first+os.Getpid()%50*span))
	for {
		base := int(nextPorts.Add(span)) - span
		if base+span > last {
			t.Fatal("no run of free ports on loopback")
		}
		if allFree(base, span) {
			return base
		}
	}
}

func allFree(base, span int) bool {
	for p := base; p < base+span; p++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func (s *system) start() {
	s.t.Helper()
	path, err := binary()
	require.NoError(s.t, err)
	args := append([]string{"up", "--data-dir", s.dataDir, "--port-base", strconv.Itoa(s.base)}, s.args...)
	s.cmd = exec.Command(path, args...)
	s.out = &output{}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	require.NoError(s.t, s.cmd.Start())
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.cmd.Wait() }()
}

// stop ends the system as Ctrl-C does.
func (s *system) stop() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(os.Interrupt))
	select {
	case err := <-s.exited:
		require.NoError(s.t, err, "output:\n%s", s.out)
	case <-time.After(30 * time.Second):
		s.t.Fatalf("up did not stop, output:\n%s", s.out)
	}
	s.cmd = nil
}

func (s *system) cleanup() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-s.exited:
			s.t.Logf("up ended: %v", err)
		case <-time.After(20 * time.Second):
			_ = s.cmd.Process.Kill()
		}
	}
	if s.t.Failed() && s.out != nil {
		kept, err := os.MkdirTemp("", "tocsin-e2e-logs-")
		if err == nil {
			err = os.CopyFS(kept, os.DirFS(filepath.Join(s.dataDir, "logs")))
		}
		s.t.Logf("output of up:\n%s\nlogs are in %s (%v)", s.out, kept, err)
	}
}

// waitShown waits until the terminal shows a text.
func (s *system) waitShown(text string) {
	s.t.Helper()
	eventually(s.t, func() error {
		if !strings.Contains(s.out.String(), text) {
			return fmt.Errorf("the terminal does not show %q", text)
		}
		return nil
	})
}

func (s *system) address(offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.base+offset))
}

// The layout of ports, see --port-base.
func (s *system) member(i int) string  { return "http://" + s.address(i) }
func (s *system) backend(i int) string { return "http://" + s.address(10+i) }
func (s *system) alertmanager() string { return "http://" + s.address(50) }
func (s *system) backends() []string   { return []string{s.backend(0), s.backend(1), s.backend(2)} }
func memberName(i int) string          { return fmt.Sprintf("member-%d", i) }
func (s *system) api(i int) promv1.API { return prometheusAPI(s.t, s.member(i)) }

func prometheusAPI(t *testing.T, address string) promv1.API {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: address})
	require.NoError(t, err)
	return promv1.NewAPI(client)
}

// eventually polls until f returns no error, for as long as a loaded machine
// may need.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	within(t, settle, f)
}

// within calls f until it returns nil and fails the test if it still errs
// after the limit.
func within(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %v", limit, err)
		}
	}
}

// memberStatus is what a member says of itself.
type memberStatus struct {
	Member         string
	Ready          bool
	Groups, Rules  int
	SlotsEvaluated int
	SlotsMissed    int
	RuleErrors     []struct{ Group, Rule, Error string }
	FileErrors     []struct{ File, Error string }
}

func (s *system) status(i int) (memberStatus, error) {
	var st memberStatus
	return st, getJSON(s.member(i)+"/api/v1/status/tocsin", &st)
}

// group is a rule group of /api/v1/rules.
type group struct {
	Name, Key, Owner string
	Interval         float64
	Rules            []ruleJSON
}

type ruleJSON struct {
	Name, Query, Type, Health, LastError, State string
}

func (s *system) groups(i int) ([]group, error) {
	var data struct{ Groups []group }
	return data.Groups, getJSON(s.member(i)+"/api/v1/rules", &data)
}

// getJSON decodes the data of an answer of Prometheus' API; warnings are
// errors.
func getJSON(target string, data any) error {
	resp, err := http.Get(target)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var envelope struct {
		Status, Error string
		Data          json.RawMessage
		Warnings      []string
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return fmt.Errorf("%s: %w: %s", target, err, body)
	}
	if envelope.Status != "success" || len(envelope.Warnings) > 0 {
		return fmt.Errorf("%s: %s %v", target, envelope.Error, envelope.Warnings)
	}
	return json.Unmarshal(envelope.Data, data)
}

// waitShared waits until every group has one owner, each of the members given
// owns some, and all rules were evaluated.
func (s *system) waitShared(members ...int) {
	s.t.Helper()
	eventually(s.t, func() error {
		groups, err := s.groups(members[0])
		if err != nil {
			return err
		}
		owned := map[string]int{}
		for _, g := range groups {
			owned[g.Owner]++
			for _, r := range g.Rules {
				if r.Health != "ok" {
					return fmt.Errorf("rule %s of %s has health %q: %s", r.Name, g.Key, r.Health, r.LastError)
				}
			}
		}
		total := 0
		for _, i := range members {
			st, err := s.status(i)
			if err != nil {
				return err
			}
			if st.Groups == 0 || !st.Ready || owned[st.Member] != st.Groups {
				return fmt.Errorf("%s owns %d groups, ready %t; the cluster says %v", st.Member, st.Groups, st.Ready, owned)
			}
			total += st.Groups
		}
		if len(groups) == 0 || total != len(groups) {
			return fmt.Errorf("%d groups, members own %d", len(groups), total)
		}
		return nil
	})
}

// pid finds the process of a child by a word of its command line.
func (s *system) pid(words ...string) int {
	s.t.Helper()
	var found int
	eventually(s.t, func() error {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, f := range files {
			line, err := os.ReadFile(f)
			if err != nil || !matches(line, append(words, s.dataDir)) {
				continue
			}
			found, err = strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return err
		}
		return fmt.Errorf("no process with %v", words)
	})
	return found
}

func matches(cmdline []byte, words []string) bool {
	text := strings.ReplaceAll(string(cmdline), "\x00", " ")
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func (s *system) signalMember(i int, sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, syscall.Kill(s.pid(" rule-evaluator ", memberName(i)), sig))
}

// query evaluates an expression on a member at a time.
func (s *system) query(i int, expr string, at time.Time) (model.Vector, error) {
	v, warnings, _, err := s.api(i).Query(s.t.Context(), expr, at)
	if err != nil {
		return nil, err
	}
	if len(warnings) > 0 {
		return nil, errors.New(strings.Join(warnings, "; "))
	}
	vector, ok := v.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("%s is a %s", expr, v.Type())
	}
	return vector, nil
}

// alertsOf are the labels of the active alerts that an Alertmanager has of a
// name.
func alertsOf(alertmanager, name string) ([]map[string]string, error) {
	resp, err := http.Get(alertmanager + "/api/v2/alerts?filter=" + url.QueryEscape(`alertname="`+name+`"`))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var alerts []struct{ Labels map[string]string }
	if err := json.NewDecoder(resp.Body).Decode(&alerts); err != nil {
		return nil, err
	}
	found := make([]map[string]string, len(alerts))
	for i, a := range alerts {
		found[i] = a.Labels
	}
	return found, nil
}

// run executes tocsin to its end and returns what it printed.
func run(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	path, err := binary()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	body, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(body)
	}
	require.NoError(t, err)
	return 0, string(body)
}
