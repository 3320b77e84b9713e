// Package fleet runs the processes of a chaos run: embedded backends of two
// clusters and of what belongs to none, rule-evaluators, and Alertmanagers from
// Debian's package, on loopback or each member on a host of its own, made of
// a network namespace.
//
// It does what it is told to the processes and decides nothing. A Fleet is
// used from one goroutine, but for Members, Status and Counters.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
	"github.com/tocsin-rules/tocsin/up/pki"
)

// Config says what a fleet consists of.
type Config struct {
	// Name tells fleets apart in names of processes.
	Name string
	// Dir is an empty directory for everything.
	Dir string
	// Tocsin is the program.
	Tocsin string
	// Members is the largest number of members that there will be.
	Members, Alertmanagers int
	// Groups is the number of rule groups a cluster.
	Groups int
	// Webhook is where Alertmanagers send notifications.
	Webhook string
	// Hosts puts every member on a host of its own; nil means loopback.
	Hosts *Hosts
}

// Fleet is a set of processes.
type Fleet struct {
	cfg           Config
	Backends      map[string]*Process // by cluster, "" holds what has none
	Alertmanagers []*Process
	members       []*Process

	mu       sync.Mutex
	counters map[string]map[string]float64 // by process, the last reading
	totals   map[string]float64
}

// host is where everything but the members of a fleet with hosts listens.
func (c Config) host() string {
	if c.Hosts != nil {
		return c.Hosts.Gateway()
	}
	return "127.0.0.1"
}

func (c Config) memberHost(i int) string {
	if c.Hosts != nil {
		return c.Hosts.Address(i)
	}
	return "127.0.0.1"
}

// New writes configurations and starts nothing.
func New(cfg Config) (*Fleet, error) {
	f := &Fleet{cfg: cfg, Backends: map[string]*Process{}, counters: map[string]map[string]float64{}, totals: map[string]float64{}}
	ports, err := freePorts(cfg.host(), 2*len(clusters())+2*cfg.Alertmanagers+3*cfg.Members)
	if err != nil {
		return nil, err
	}
	next := func(host string) string {
		p := ports[0]
		ports = ports[1:]
		return net.JoinHostPort(host, strconv.Itoa(p))
	}
	if err := f.writeSecrets(); err != nil {
		return nil, err
	}
	var backends []string
	for _, c := range clusters() {
		http, grpc := next(cfg.host()), next(cfg.host())
		f.Backends[c] = f.backend(c, http, grpc)
		backends = append(backends, f.backendYAML(c, http, grpc))
	}
	var ams, amPeers []string
	for range cfg.Alertmanagers {
		ams, amPeers = append(ams, next(cfg.host())), append(amPeers, next(cfg.host()))
	}
	for i := range ams {
		f.Alertmanagers = append(f.Alertmanagers, f.alertmanager(i, ams[i], amPeers))
	}
	f.addMembers(next)
	return f, f.writeConfigs(backends, ams)
}

// clusters are the partitions: those of the raw series and what has none.
func clusters() []string { return append(signal.Clusters(), "") }

func (f *Fleet) path(name string) string { return filepath.Join(f.cfg.Dir, name) }

func (f *Fleet) process(name, address string, args ...string) *Process {
	return &Process{Name: f.cfg.Name + "/" + name, URL: "http://" + address, log: f.path(name + ".log"), args: args}
}

func (f *Fleet) backend(cluster, http, grpc string) *Process {
	args := []string{f.cfg.Tocsin, "backend", "--storage.path=" + f.path("backend-"+cluster), "--web.listen-address=" + http}
	if cluster == "" {
		args = append(args, "--storage.absent-label=cluster")
	} else {
		args = append(args, "--storage.external-label=cluster="+cluster)
	}
	return f.process("backend-"+cluster, http, append(args, f.grpcArgs(grpc)...)...)
}

func (f *Fleet) grpcArgs(address string) []string {
	return []string{
		"--grpc.listen-address=" + address,
		"--grpc.tls-cert-file=" + f.path("tls.crt"), "--grpc.tls-key-file=" + f.path("tls.key"), "--grpc.tls-ca-file=" + f.path("ca.crt"),
	}
}

func (f *Fleet) alertmanager(i int, address string, peers []string) *Process {
	name := fmt.Sprintf("alertmanager-%d", i)
	args := []string{
		"prometheus-alertmanager", "--config.file=" + f.path("alertmanager.yml"), "--storage.path=" + f.path(name),
		"--web.listen-address=" + address, "--cluster.listen-address=" + peers[i], "--cluster.settle-timeout=2s",
	}
	for n, p := range peers {
		if n != i {
			args = append(args, "--cluster.peer="+p)
		}
	}
	return f.process(name, address, args...)
}

func (f *Fleet) addMembers(next func(host string) string) {
	type ports struct{ http, grpc, gossip string }
	all := make([]ports, f.cfg.Members)
	for i := range all {
		host := f.cfg.memberHost(i)
		all[i] = ports{next(host), next(host), next(host)}
	}
	for i, m := range all {
		name := fmt.Sprintf("member-%d", i)
		args := []string{
			f.cfg.Tocsin, "rule-evaluator", "--config.file=" + f.path("evaluator.yml"), "--web.listen-address=" + m.http,
			"--cluster.name=" + name, "--cluster.zone=" + fmt.Sprintf("zone-%d", i%2),
			"--cluster.listen-address=" + m.gossip, "--cluster.key-file=" + f.path("gossip.key"),
		}
		for n, peer := range all {
			if n != i {
				args = append(args, "--cluster.peer="+peer.gossip)
			}
		}
		args = append(args, f.grpcArgs(m.grpc)...)
		if f.cfg.Hosts != nil {
			args = append(f.cfg.Hosts.Exec(i), args...)
		}
		f.members = append(f.members, f.process(name, m.http, args...))
	}
}

func (f *Fleet) backendYAML(cluster, http, grpc string) string {
	name := cluster
	if name == "" {
		name = "global"
	}
	return fmt.Sprintf(`- name: %s
  partition_labels: {cluster: %q}
  url: http://%s
  grpc: {address: %q, tls: {cert_file: %q, key_file: %q, ca_file: %q}}
`, name, cluster, http, grpc, f.path("tls.crt"), f.path("tls.key"), f.path("ca.crt"))
}

func (f *Fleet) writeSecrets() error {
	addresses := []net.IP{net.ParseIP(f.cfg.host())}
	for i := range f.cfg.Members {
		addresses = append(addresses, net.ParseIP(f.cfg.memberHost(i)))
	}
	cert, err := pki.New(time.Now(), addresses...)
	if err != nil {
		return err
	}
	key := "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n" // of this fleet only
	return errors.Join(f.write("ca.crt", cert.CA), f.write("tls.crt", cert.Cert), f.write("tls.key", cert.Key), f.write("gossip.key", []byte(key)))
}

func (f *Fleet) write(name string, content []byte) error {
	return os.WriteFile(f.path(name), content, 0o600)
}

func (f *Fleet) writeConfigs(backends, alertmanagers []string) error {
	clusterList := ""
	for _, c := range signal.Clusters() {
		clusterList += fmt.Sprintf("- {cluster: %s}\n", c)
	}
	evaluator := fmt.Sprintf(`global: {evaluation_interval: %s, resend_delay: 5s, query_timeout: 10s}
rule_files: [rules.yml]
clusters:
%sbackends:
%salerting:
  alertmanagers:
  - static_configs: [{targets: [%s]}]
`, signal.Interval, clusterList, strings.Join(backends, ""), strings.Join(alertmanagers, ", "))
	alertmanager := fmt.Sprintf(`route: {receiver: hook, group_by: ['...'], group_wait: 1s, group_interval: 1s, repeat_interval: 24h}
receivers: [{name: hook, webhook_configs: [{url: %q, send_resolved: true, max_alerts: 0}]}]
`, f.cfg.Webhook)
	return errors.Join(
		f.write("rules.yml", []byte(signal.Rules(f.cfg.Groups))),
		f.write("evaluator.yml", []byte(evaluator)),
		f.write("alertmanager.yml", []byte(alertmanager)),
	)
}

// StartStores starts what the members depend on and waits for it.
func (f *Fleet) StartStores(ctx context.Context) error {
	if _, err := exec.LookPath("prometheus-alertmanager"); err != nil {
		return fmt.Errorf("the Alertmanager of Debian's package prometheus-alertmanager is needed: %w", err)
	}
	var all []*Process
	for _, b := range f.Backends {
		all = append(all, b)
	}
	return start(ctx, append(all, f.Alertmanagers...)...)
}

// StartMembers starts members by their index and waits until they are ready.
func (f *Fleet) StartMembers(ctx context.Context, indexes ...int) error {
	var all []*Process
	for _, i := range indexes {
		all = append(all, f.members[i])
	}
	return start(ctx, all...)
}

// Member is a member by its index.
func (f *Fleet) Member(i int) *Process { return f.members[i] }

// Members are the indexes of members that run.
func (f *Fleet) Members() []int {
	var running []int
	for i, m := range f.members {
		if m.Running() {
			running = append(running, i)
		}
	}
	return running
}

func start(ctx context.Context, all ...*Process) error {
	for _, p := range all {
		if err := p.Start(); err != nil {
			return fmt.Errorf("start %s: %w", p.Name, err)
		}
	}
	for _, p := range all {
		if err := p.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all processes.
func (f *Fleet) Close() error {
	var errs []error
	for _, p := range append(f.members, f.Alertmanagers...) {
		errs = append(errs, p.Stop())
	}
	for _, p := range f.Backends {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// freePorts finds ports that nobody listens on.
func freePorts(host string, n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	var errs []error
	for _, l := range held {
		errs = append(errs, l.Close()) // Only now, so that none is found twice.
	}
	return ports, errors.Join(errs...)
}
