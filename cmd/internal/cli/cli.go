// Package cli turns command lines into the options of processes and runs
// them: the tocsin program with its sub-commands, and the programs that are
// one of these on their own.
//
// It decides nothing about what a process does and holds no state between
// runs. The exit status is 0 for success, 1 if a command failed, and 2 if the
// command line was wrong; "rules check" has its own in addition. Functions
// block until the command ends and are called from main only.
package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
)

// The exit statuses of all commands.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Streams are where a program writes. Stdout of a terminal gets a status
// display in place of lines.
type Streams struct {
	Stdout io.Writer
	Stderr io.Writer
}

// flagger is what takes flags: a command or a whole program.
type flagger interface {
	Flag(name, help string) *kingpin.FlagClause
}

// process runs until its context ends.
type process func(ctx context.Context, logger *slog.Logger) error

// program is a command line being parsed and run.
type program struct {
	app     *kingpin.Application
	streams Streams
	log     promslog.Config
	// ended is the exit status if parsing alone did the work, as --help does.
	ended *int
	// commands are what to run, by full name; a program without sub-commands
	// has the name "".
	commands map[string]func(context.Context) int
}

func newProgram(name, help string, s Streams) *program {
	p := &program{app: kingpin.New(name, help), streams: s, commands: map[string]func(context.Context) int{}}
	p.app.UsageWriter(s.Stdout).ErrorWriter(s.Stderr)
	p.app.Terminate(func(status int) {
		if p.ended == nil {
			p.ended = &status
		}
	})
	p.app.HelpFlag.Short('h')
	p.app.Version(version.Print(name))
	p.app.VersionFlag.NoEnvar()
	p.log.Writer = s.Stderr
	promslogflag.AddFlags(p.app, &p.log)
	return p
}

// add registers a process under a command's full name.
func (p *program) add(name string, run process) {
	p.commands[name] = func(ctx context.Context) int {
		if err := run(ctx, promslog.New(&p.log)); err != nil {
			return p.fail(exitFailed, err)
		}
		return exitOK
	}
}

// run parses the arguments, without the program's name, and runs what they
// ask for. It returns the exit status.
func (p *program) run(args []string) int {
	command, err := p.app.Parse(args)
	switch {
	case p.ended != nil:
		return *p.ended
	case err != nil:
		return p.fail(exitUsage, fmt.Errorf("%w; try --help", err))
	}
	ctx, stop := untilSignal(context.Background())
	defer stop()
	return p.commands[command](ctx)
}

func (p *program) fail(status int, err error) int {
	fmt.Fprintf(p.streams.Stderr, "%s: %s\n", p.app.Name, err)
	return status
}

// untilSignal returns a context that ends with the first SIGINT or SIGTERM;
// the second one has its usual effect and ends the program at once.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Tocsin runs the tocsin program and returns its exit status.
func Tocsin(args []string, s Streams) int {
	p := newProgram("tocsin", "Evaluates Prometheus recording and alerting rules for a fleet of clusters.", s)
	addUp(p)
	for _, c := range []struct {
		name, help string
		flags      func(flagger) process
	}{
		{"backend", "Run an embedded store: remote write in, queries and pushdown out.", backendFlags},
		{"collector", "Run a collector: scrapes targets and writes to a backend.", collectorFlags},
		{"rule-evaluator", "Run a member of a cluster of rule evaluators.", ruleEvaluatorFlags},
		{"alertmanager", "Run an Alertmanager.", alertmanagerFlags},
	} {
		p.add(c.name, c.flags(p.app.Command(c.name, c.help)))
	}
	rules := p.app.Command("rules", "Work with rules.")
	check := AddCheck(rules)
	p.commands["rules check"] = func(context.Context) int { return check() }
	addUnitTest(p, rules)
	addBackfill(p, rules)
	addExplain(p, rules)
	addCluster(p)
	return p.run(args)
}

// RuleEvaluator runs the rule-evaluator program and returns its exit status.
func RuleEvaluator(args []string, s Streams) int {
	p := newProgram("rule-evaluator", "A member of a cluster of rule evaluators.", s)
	p.add("", ruleEvaluatorFlags(p.app))
	return p.run(args)
}

// Collector runs the collector program and returns its exit status.
func Collector(args []string, s Streams) int {
	p := newProgram("collector", "Scrapes targets and writes to a backend.", s)
	p.add("", collectorFlags(p.app))
	return p.run(args)
}
