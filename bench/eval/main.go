// Command eval measures what the evaluation of a rule costs: Tocsin's evaluator
// over the pushdown protocol and over HTTP, one instant query for every rule as
// other rulers send them, Prometheus' own rule manager, and Prometheus' engine
// over remote read, in one run, on the same data, rules and slots.
//
// All variants must have the same results; a rule whose results differ ends the
// run with its name. Every store and every evaluator is a process of its own;
// bytes are counted by a TCP proxy between them, in this process. It measures
// queries only, never writes, and needs Linux.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"

	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// workerCommand makes this program a worker; see package worker.
const workerCommand = "worker"

// options is what a run is told.
type options struct {
	series, rules, slots int
	backends             []int
	scenarios, only      []string
	seed                 uint64
	out, profiles        string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "eval:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == workerCommand {
		return work(ctx, os.Stdin, os.Stdout)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	return bench(ctx, o, os.Stderr)
}

// work is a worker. It ends when its standard input does.
func work(ctx context.Context, in io.Reader, out io.Writer) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return worker.Serve(ctx, in, out, logger)
}

func parse(args []string) (options, error) {
	var o options
	var series, backends, scenarios, only string
	app := kingpin.New("eval", "Measures what the evaluation of a rule costs, against other rulers, in one run.")
	app.HelpFlag.Short('h')
	app.Flag("series", "Number of series, as 30k.").Default("100k").StringVar(&series)
	app.Flag("rules", "Number of rules.").Default("2000").IntVar(&o.rules)
	app.Flag("backends", "Numbers of backends that share the series: 1, 4 or both.").Default("1,4").StringVar(&backends)
	app.Flag("slots", "Number of slots to measure, after one that is not.").Default("5").IntVar(&o.slots)
	app.Flag("seed", "Seed of the data.").Default("1").Uint64Var(&o.seed)
	app.Flag("scenarios", "What is evaluated: "+strings.Join(allScenarios, ", ")+".").Default(strings.Join(allScenarios, ",")).StringVar(&scenarios)
	app.Flag("only", "Kinds of evaluators besides the first one of a scenario, as native or per-rule; all if empty.").StringVar(&only)
	app.Flag("out", "Directory for the report.").Default(filepath.Join("bench", "results", "eval")).StringVar(&o.out)
	app.Flag("profiles", "Directory for a CPU profile of every process.").StringVar(&o.profiles)
	if _, err := app.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.series, err = number(series); err != nil {
		return o, fmt.Errorf("--series: %w", err)
	}
	for n := range strings.SplitSeq(backends, ",") {
		count, err := number(n)
		if err != nil {
			return o, fmt.Errorf("--backends: %w", err)
		}
		o.backends = append(o.backends, count)
	}
	o.scenarios, o.only = list(scenarios), list(only)
	return o, o.validate()
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// number reads "30k" and the like.
func number(s string) (int, error) {
	digits, thousands := strings.CutSuffix(strings.TrimSpace(s), "k")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number, as 30k or 2000", s)
	}
	if thousands {
		n *= 1000
	}
	return n, nil
}

func (o options) validate() error {
	var errs []error
	if o.series < 1 || o.series > 1_000_000 {
		errs = append(errs, errors.New("--series must be between 1 and 1000k"))
	}
	if o.rules < 10 || o.rules > 100_000 {
		errs = append(errs, errors.New("--rules must be between 10 and 100000"))
	}
	if o.slots < 1 || o.slots > 40 {
		errs = append(errs, errors.New("--slots must be between 1 and 40"))
	}
	for _, n := range o.backends {
		if n != 1 && n != 4 {
			errs = append(errs, fmt.Errorf("--backends: %d is neither 1 nor 4, the number of clusters", n))
		}
	}
	for _, s := range o.scenarios {
		if !slices.Contains(allScenarios, s) {
			errs = append(errs, fmt.Errorf("--scenarios: %q is none of %s", s, strings.Join(allScenarios, ", ")))
		}
	}
	return errors.Join(errs...)
}
