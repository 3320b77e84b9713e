package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/web"
	"github.com/tocsin-rules/tocsin/web/server"
)

// memberOptions are those of one member's process.
type memberOptions struct {
	config, name     string
	addresses, peers []string // HTTP, gRPC, gossip
}

func (m memberOptions) run(ctx context.Context) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("member", m.name)
	return app.Run(ctx, app.Options{
		ConfigFile:        m.config,
		Name:              m.name,
		HTTP:              server.Config{ListenAddress: m.addresses[0], EnablePprof: true},
		GRPCListenAddress: m.addresses[1],
		GossipAddress:     m.addresses[2],
		Peers:             m.peers,
		StopTimeout:       time.Minute,
	}, logger)
}

type cluster struct {
	members []*exec.Cmd
	urls    []string
}

// startCluster writes rules and configuration, and starts the members.
func startCluster(ctx context.Context, o options, dir string, b *backend) (*cluster, error) {
	config := filepath.Join(dir, "evaluator.yml")
	text := fmt.Sprintf("global: {evaluation_interval: %s}\nrule_files: [rules]\nbackends:\n- {name: fast, url: 'http://%s', partition_labels: {cluster: ''}, grpc: {address: '%s'}}\n",
		o.interval, b.web.Addr(), b.rpc.Addr())
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), writeRules(o, filepath.Join(dir, "rules"))); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(3 * o.members)
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	for i := range o.members {
		mine := addresses[3*i : 3*i+3]
		args := []string{"member", "--config", config, "--name", fmt.Sprintf("member-%d", i), "--peer", addresses[2]}
		for _, a := range mine {
			args = append(args, "--address", a)
		}
		cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(err, c.stop())
		}
		c.members = append(c.members, cmd)
		c.urls = append(c.urls, "http://"+mine[0])
	}
	return c, nil
}

// stop ends all members.
func (c *cluster) stop() error {
	var errs []error
	for _, m := range c.members {
		errs = append(errs, m.Process.Signal(os.Interrupt))
	}
	for _, m := range c.members {
		errs = append(errs, m.Wait())
	}
	return errors.Join(errs...)
}

// freeAddresses are on loopback; they are free now.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	var errs []error
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, l.Addr().String())
		defer func() { errs = append(errs, l.Close()) }()
	}
	return addresses, errors.Join(errs...)
}

// groupsPerFile keeps rule files at a size that people have.
const groupsPerFile = 100

// writeRules writes groups in which no two expressions are the same, so that
// nothing is shared.
func writeRules(o options, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for from := 0; from < o.groups; from += groupsPerFile {
		var text strings.Builder
		text.WriteString("groups:\n")
		for g := from; g < min(from+groupsPerFile, o.groups); g++ {
			fmt.Fprintf(&text, "- name: group-%d\n  rules:\n", g)
			for r := range o.rulesOf(g) {
				text.WriteString(ruleText(g, r))
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("rules-%d.yml", from)), []byte(text.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func ruleText(group, rule int) string {
	expr := fmt.Sprintf(`sum by (job) (rate(http_requests_total{team="team-%d", code=~"5.."}[5m])) / sum by (job) (rate(http_requests_total{team="team-%d", shard="%d"}[5m]))`, group, group, rule)
	if rule%2 == 0 {
		return fmt.Sprintf("  - record: team_%d:errors:ratio_%d\n    expr: %s\n    labels: {severity: none}\n", group, rule, expr)
	}
	return fmt.Sprintf("  - alert: TooManyErrors%d\n    expr: %s > 0.05\n    for: 5m\n    labels: {severity: page}\n    annotations: {summary: 'Errors of {{ $labels.job }} are {{ $value | humanizePercentage }}'}\n", rule, expr)
}

// get reads what a member serves.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// statuses are what the members say of themselves.
func (c *cluster) statuses(ctx context.Context) ([]web.MemberStatus, error) {
	all := make([]web.MemberStatus, len(c.urls))
	for i, url := range c.urls {
		body, err := get(ctx, url+"/api/v1/status/tocsin")
		if err == nil {
			err = json.Unmarshal(body, &struct{ Data *web.MemberStatus }{&all[i]})
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
