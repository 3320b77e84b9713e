package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kind is a program that can be a node's agent.
type kind struct {
	name, binary string
	// args takes the file of the configuration, the directory for data and
	// the receiver's URL.
	args func(config, data, receiver string) []string
}

const noPort = "127.0.0.1:0"

// programs builds or finds the agents; the one that ratios relate to is first.
func programs(ctx context.Context, o options, dir string) ([]kind, error) {
	prometheus, err := built(ctx, o.prometheus, filepath.Join(dir, "prometheus"), "-C", "tools/prometheus", "-tags", "remove_all_sd", "github.com/prometheus/prometheus/cmd/prometheus")
	if err != nil {
		return nil, err
	}
	collector, err := built(ctx, o.collector, filepath.Join(dir, "collector"), "-tags", "dedupelabels", "./cmd/collector")
	if err != nil {
		return nil, err
	}
	kinds := []kind{
		{"Prometheus, agent mode", prometheus, func(config, data, _ string) []string {
			return []string{"--agent", "--config.file=" + config, "--storage.agent.path=" + data, "--web.listen-address=" + noPort, "--log.level=error"}
		}},
		{"Tocsin's collector", collector, func(config, data, _ string) []string {
			return []string{"--config.file=" + config, "--storage.path=" + data, "--web.listen-address=" + noPort, "--log.level=error"}
		}},
	}
	if vmagent, err := exec.LookPath("vmagent"); err == nil {
		kinds = append(kinds, kind{"vmagent", vmagent, func(config, data, receiver string) []string {
			return []string{
				"-promscrape.config=" + config, "-promscrape.config.strictParse=false", "-remoteWrite.tmpDataPath=" + data, "-remoteWrite.url=" + receiver,
				"-httpListenAddr=" + noPort, "-loggerLevel=ERROR",
			}
		}})
	}
	return kinds, nil
}

// built returns the binary if there is one and makes it otherwise, without
// symbols as releases are.
func built(ctx context.Context, binary, to string, args ...string) (string, error) {
	if binary != "" {
		return binary, nil
	}
	flags := append(args[:len(args)-1:len(args)-1], "-trimpath", "-ldflags", "-s -w", "-o", to, args[len(args)-1])
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, flags...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", args[len(args)-1], err, out)
	}
	return to, nil
}

// agent is a running program.
type agent struct {
	kind
	cmd     *exec.Cmd
	started time.Time
}

func (k kind) start(config, data, receiver string) (*agent, error) {
	a := &agent{kind: k, started: time.Now(), cmd: exec.Command(k.binary, k.args(config, data, receiver)...)}
	a.cmd.Stderr = os.Stderr
	return a, a.cmd.Start()
}

func (a *agent) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	_ = a.cmd.Wait()
}

// usage is what the kernel says of a process, so far or at the moment.
type usage struct {
	cpu                 time.Duration
	resident, anonymous int // bytes
	peak                int // bytes
	written             int // bytes to disk
}

func (a *agent) usage() (u usage, err error) {
	proc := func(name string) string {
		content, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/%s", a.cmd.Process.Pid, name))
		err = errors.Join(err, rerr)
		return string(content)
	}
	status := proc("status")
	u.resident, u.anonymous, u.peak = field(status, "VmRSS:")<<10, field(status, "RssAnon:")<<10, field(status, "VmHWM:")<<10
	u.written = field(proc("io"), "write_bytes:")
	// The second field of the line, the command's name, has no space.
	if times := strings.Fields(proc("stat")); len(times) > 14 {
		user, _ := strconv.Atoi(times[13])
		system, _ := strconv.Atoi(times[14])
		// The kernel counts in hundredths for every user.
		u.cpu = time.Duration(user+system) * 10 * time.Millisecond
	}
	return u, err
}

// field is the number after a name in a file of /proc.
func field(content, name string) int {
	for line := range strings.Lines(content) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			n, _ := strconv.Atoi(words[1])
			return n
		}
	}
	return 0
}
