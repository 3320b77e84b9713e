// Command chaos runs Tocsin's processes, lets faults happen to them, and
// compares what they recorded, alerted and notified, sample by sample, with
// what a second, undisturbed fleet made of the same rules and the same data in
// the same slots.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

type options struct {
	tocsin, dir, out, revision         string
	only                               []string
	seed                               uint64
	duration, outage                   time.Duration
	kills, rollouts, partitions, stops int
}

func main() {
	o := options{}
	app := kingpin.New("chaos", "Lets faults happen to a fleet and compares it with one in peace.")
	app.HelpFlag.Short('h')
	app.Flag("scenario", "Scenario to run (repeatable): "+strings.Join(names(), ", ")+". Default: all but soak.").EnumsVar(&o.only, names()...)
	app.Flag("seed", "Seed of what is random.").Default("1").Uint64Var(&o.seed)
	app.Flag("duration", "How long a soak lasts.").Default("1h").DurationVar(&o.duration)
	app.Flag("kills", "How many members are killed.").Default("20").IntVar(&o.kills)
	app.Flag("rollouts", "How often all members are restarted.").Default("10").IntVar(&o.rollouts)
	app.Flag("partitions", "How often a member is cut off.").Default("6").IntVar(&o.partitions)
	app.Flag("stops", "How often a member is stopped for 30 s.").Default("3").IntVar(&o.stops)
	app.Flag("outage", "How long each backend is away; 30 slots a minute.").Default("40s").DurationVar(&o.outage)
	app.Flag("dir", "Directory for data and logs, kept if anything is wrong. Default: a temporary one.").StringVar(&o.dir)
	app.Flag("out", "File for the report.").Default("/dev/stdout").StringVar(&o.out)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func names() []string {
	var all []string
	for _, s := range scenarios() {
		all = append(all, s.name)
	}
	return all
}

func run(ctx context.Context, o options) error {
	var err error
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "tocsin-chaos-"); err != nil {
			return err
		}
	}
	if err := build(ctx, &o); err != nil {
		return err
	}
	var results []result
	var failed error
	for _, s := range scenarios() {
		if len(o.only) == 0 && s.name == "soak" || len(o.only) > 0 && !slices.Contains(o.only, s.name) {
			continue
		}
		r, err := perform(ctx, o, s)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		results = append(results, r)
		failed = errors.Join(failed, r.fault())
	}
	if err := report(o, results); err != nil {
		return errors.Join(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("%w\nlogs are in %s", failed, o.dir)
	}
	return os.RemoveAll(o.dir)
}

// build makes the program that the processes run.
func build(ctx context.Context, o *options) error {
	o.tocsin = filepath.Join(o.dir, "tocsin")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", o.tocsin, "github.com/tocsin-rules/tocsin/cmd/tocsin").CombinedOutput(); err != nil {
		return fmt.Errorf("build tocsin: %w\n%s", err, out)
	}
	revision, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return fmt.Errorf("find out the revision: %w", err)
	}
	o.revision = strings.TrimSpace(string(revision))
	return nil
}

// perform runs one scenario from start to end.
func perform(ctx context.Context, o options, s scenario) (_ result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.seed = o.seed
	t, err := newTrial(ctx, o, s.setup)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := s.run(ctx, t, o); err != nil {
		return t.result, err
	}
	return t.result, t.judge(ctx)
}
