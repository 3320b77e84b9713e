// Command alerts measures three rule-evaluators that have very many active
// alerts: whether evaluation, delivery and the API stay within the interval, and
// what an alert takes of memory and CPU.
//
// The processes are real: a backend, three members, and two receivers in the
// place of Alertmanagers, which take alerts and count them. It judges nothing.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

const (
	members   = 3
	receivers = 2
)

type options struct {
	alerts, groups     int
	interval, duration time.Duration
	out                string
}

func main() {
	var o options
	app := kingpin.New("alerts", "Measures three rule-evaluators with very many active alerts.")
	app.Flag("alerts", "Number of active alerts.").Default("100000").IntVar(&o.alerts)
	app.Flag("groups", "Number of groups that they are in, each of one rule.").Default("60").IntVar(&o.groups)
	app.Flag("interval", "Interval of the groups.").Default("30s").DurationVar(&o.interval)
	app.Flag("duration", "How long to measure, once all alerts fire.").Default("3m").DurationVar(&o.duration)
	app.Flag("out", "File for the report.").Default("/dev/stdout").StringVar(&o.out)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "alerts:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "tocsin-alerts-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s := &system{options: o, dir: dir, binary: filepath.Join(dir, "tocsin")}
	defer s.stop()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.binary, "./cmd/tocsin").CombinedOutput(); err != nil {
		return fmt.Errorf("build tocsin: %w\n%s", err, out)
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	report, err := s.measure(ctx)
	if err != nil {
		return err
	}
	return os.WriteFile(o.out, []byte(report), 0o600)
}

// system is everything that runs.
type system struct {
	options

	dir, binary string
	backend     *process
	members     []*process
	receivers   []*receiver
}

// start runs all processes; the series are there, and no alert is active.
func (s *system) start(ctx context.Context) error {
	var err error
	grpc := freeAddress()
	if s.backend, err = s.run(ctx, "backend", "--storage.path="+filepath.Join(s.dir, "data"), "--grpc.listen-address="+grpc); err != nil {
		return err
	}
	if err := s.write(ctx, 0); err != nil {
		return err
	}
	var targets []string
	for range receivers {
		r := newReceiver()
		s.receivers = append(s.receivers, r)
		targets = append(targets, r.Listener.Addr().String())
	}
	config := filepath.Join(s.dir, "evaluator.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
rule_files: [rules.yml]
backends: [{name: default, url: "http://%s", grpc: {address: %q}}]
alerting: {alertmanagers: [{static_configs: [{targets: [%s]}]}]}
`, s.backend.address, grpc, strings.Join(targets, ",")), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "rules.yml"), s.rules(), 0o600); err != nil {
		return err
	}
	return s.startMembers(ctx, config)
}

func (s *system) startMembers(ctx context.Context, config string) error {
	var gossip []string
	for range members {
		gossip = append(gossip, freeAddress())
	}
	for i := range members {
		args := []string{"--config.file=" + config, fmt.Sprintf("--cluster.name=member-%d", i), "--cluster.listen-address=" + gossip[i], "--grpc.listen-address=" + freeAddress()}
		for _, peer := range gossip {
			args = append(args, "--cluster.peer="+peer)
		}
		m, err := s.run(ctx, "rule-evaluator", args...)
		if err != nil {
			return err
		}
		s.members = append(s.members, m)
	}
	return nil
}

// rules are one alerting rule a group, with labels and annotations as rules that
// people use have them.
func (s *system) rules() []byte {
	var b strings.Builder
	b.WriteString("groups:\n")
	for i := range s.groups {
		fmt.Fprintf(&b, `
- name: group-%03d
  interval: %s
  rules:
  - alert: KubePodNotReady
    expr: last_over_time(pod_not_ready{shard="%03d"}[2h]) > 0
    labels: {severity: warning, team: "{{ $labels.namespace }}"}
    annotations:
      summary: Pod {{ $labels.namespace }}/{{ $labels.pod }} has been in a non-ready state for longer than 15 minutes.
      runbook_url: https://runbooks.example/kubepodnotready
`, i, s.interval, i)
	}
	return []byte(b.String())
}

// freeAddress is one on loopback that nobody uses now.
func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

func (s *system) stop() {
	for _, p := range append(s.members, s.backend) {
		if p != nil {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			_ = p.cmd.Wait()
		}
	}
	for _, r := range s.receivers {
		r.Close()
	}
}
