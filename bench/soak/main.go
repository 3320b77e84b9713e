// Command soak runs `tocsin up` on real rules for a while and reports what an
// operator would want to know afterwards: rules in error with the reason,
// slots missed, and the memory of every process over time.
//
// It judges nothing but missed slots; the report is for reading.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

const (
	members  = 3
	sampling = 10 * time.Second
)

type options struct {
	rules    []string
	duration time.Duration
	portBase int
	out      string
}

func main() {
	var o options
	app := kingpin.New("soak", "Runs tocsin up on rules and reports errors, missed slots and memory.")
	app.Flag("rules", "Rule file or directory (repeatable).").Required().StringsVar(&o.rules)
	app.Flag("duration", "How long, counted from the moment that all members are ready.").Default("10m").DurationVar(&o.duration)
	app.Flag("port-base", "First of the ports to use.").Default("18000").IntVar(&o.portBase)
	app.Flag("out", "File for the report.").Default("/dev/stdout").StringVar(&o.out)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "tocsin-soak-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	up, err := start(ctx, o, dir)
	if err != nil {
		return err
	}
	r := &report{started: time.Now(), rules: o.rules, memory: map[string][]int{}}
	err = r.watch(ctx, o, dir)
	stopErr := errors.Join(up.Process.Signal(os.Interrupt), up.Wait())
	if err != nil {
		return errors.Join(err, stopErr)
	}
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	r.write(f)
	if err := errors.Join(f.Close(), stopErr); err != nil {
		return err
	}
	if r.missed() > 0 {
		return fmt.Errorf("%d slots were missed", r.missed())
	}
	return nil
}

// start builds tocsin and runs `tocsin up` in dir.
func start(ctx context.Context, o options, dir string) (*exec.Cmd, error) {
	binary := filepath.Join(dir, "tocsin")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/tocsin")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build tocsin: %w\n%s", err, out)
	}
	args := []string{"up", "--data-dir", filepath.Join(dir, "data"), "--port-base", strconv.Itoa(o.portBase)}
	for _, r := range o.rules {
		args = append(args, "--rules", r)
	}
	up := exec.CommandContext(context.WithoutCancel(ctx), binary, args...)
	up.Stdout, up.Stderr = os.Stderr, os.Stderr
	return up, up.Start()
}

// status is what a member says of itself.
type status struct {
	Member         string
	Ready          bool
	Groups, Rules  int
	SlotsEvaluated int
	SlotsMissed    int
	LagSeconds     float64
	RuleErrors     []struct{ Group, Rule, Error string }
	FileErrors     []struct{ File, Error string }
}

type report struct {
	started  time.Time
	rules    []string
	statuses []status // the last of each member
	maxLag   float64
	memory   map[string][]int // MiB, by process
}

// watch samples until the time is up.
func (r *report) watch(ctx context.Context, o options, dir string) error {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	var end time.Time
	for end.IsZero() || time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		ready, err := r.sample(o, dir)
		switch {
		case ready && end.IsZero():
			end = time.Now().Add(o.duration)
			r.memory = map[string][]int{}
		case err != nil && time.Since(r.started) > 2*time.Minute:
			return err
		}
		if !end.IsZero() {
			progress(os.Stderr, o.duration-time.Until(end), o.duration)
		}
	}
	return nil
}

func progress(w io.Writer, done, all time.Duration) {
	const width = 40
	n := int(min(1, float64(done)/float64(all)) * width)
	fmt.Fprintf(w, "soak [%s%s] %s of %s\n", strings.Repeat("#", n), strings.Repeat(".", width-n), done.Round(time.Second), all)
}

// sample asks every member and reads the memory of every process.
func (r *report) sample(o options, dir string) (ready bool, err error) {
	statuses := make([]status, members)
	ready = true
	for i := range statuses {
		if err := ask(o.portBase+i, &statuses[i]); err != nil {
			return false, err
		}
		ready = ready && statuses[i].Ready && statuses[i].Groups > 0
		r.maxLag = max(r.maxLag, statuses[i].LagSeconds)
	}
	r.statuses = statuses
	return ready, r.readMemory(dir)
}

func ask(port int, s *status) error {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v1/status/tocsin", port))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(&struct{ Data *status }{s})
}

// readMemory notes the resident memory of the processes whose command line
// names dir, as Linux tells it.
func (r *report) readMemory(dir string) error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, f := range lines {
		line, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(line), dir) {
			continue // it has ended meanwhile, or is another's
		}
		rss, err := residentMiB(filepath.Dir(f))
		if err != nil {
			continue
		}
		name := processName(strings.Split(string(line), "\x00"))
		r.memory[name] = append(r.memory[name], rss)
	}
	return nil
}

// processName is the sub-command and what tells it from others of its kind.
func processName(args []string) string {
	name := args[1]
	for _, a := range args {
		for _, flag := range []string{"--cluster.name=", "--storage.path="} {
			if v, ok := strings.CutPrefix(a, flag); ok {
				name += " " + filepath.Base(v)
			}
		}
	}
	return name
}

func residentMiB(proc string) (int, error) {
	statm, err := os.ReadFile(filepath.Join(proc, "statm"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("unexpected statm %q", statm)
	}
	pages, err := strconv.Atoi(fields[1])
	return pages * os.Getpagesize() >> 20, err
}

func (r *report) missed() int {
	n := 0
	for _, s := range r.statuses {
		n += s.SlotsMissed
	}
	return n
}

func (r *report) write(w io.Writer) {
	fmt.Fprintf(w, "# Soak: tocsin up on %s\n\n", strings.Join(r.rules, ", "))
	fmt.Fprintf(w, "| member | groups | rules | slots evaluated | missed | rules in error |\n|---|---|---|---|---|---|\n")
	for _, s := range r.statuses {
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d |\n", s.Member, s.Groups, s.Rules, s.SlotsEvaluated, s.SlotsMissed, len(s.RuleErrors))
	}
	fmt.Fprintf(w, "\nLargest lag seen: %.1f s.\n", r.maxLag)
	r.writeMemory(w)
	fmt.Fprintf(w, "\n## Rules in error at the end\n\n")
	for _, s := range r.statuses {
		for _, e := range s.RuleErrors {
			fmt.Fprintf(w, "* `%s` `%s`: %s\n", e.Group, e.Rule, e.Error)
		}
	}
	fmt.Fprintf(w, "\n## Files in error\n\n")
	for _, e := range r.statuses[0].FileErrors {
		fmt.Fprintf(w, "* `%s`: %s\n", e.File, e.Error)
	}
}

func (r *report) writeMemory(w io.Writer) {
	fmt.Fprintf(w, "\n## Resident memory, MiB\n\n| process | at the start | after half the time | at the end | largest |\n|---|---|---|---|---|\n")
	names := make([]string, 0, len(r.memory))
	for n := range r.memory {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		m := r.memory[n]
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d |\n", n, m[0], m[len(m)/2], m[len(m)-1], slices.Max(m))
	}
}
