// Package command is what the command lines of all programs have in common:
// how they are parsed, where they print, how they end and what they log.
//
// It knows no process, so that a program links what it runs and nothing else.
// The exit status is 0 for success, 1 if a command failed, and 2 if the command
// line was wrong. Functions block until the command ends and are called from
// main only.
package command

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

	"github.com/tocsin-rules/tocsin/web/server"
)

// The exit statuses of all commands.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Streams are where a program writes. Stdout of a terminal gets a status
// display in place of lines.
type Streams struct {
	Stdout io.Writer
	Stderr io.Writer
}

// Flagger is what takes flags: a command or a whole program.
type Flagger interface {
	Flag(name, help string) *kingpin.FlagClause
}

// Process runs until its context ends.
type Process func(ctx context.Context, logger *slog.Logger) error

// Program is a command line being parsed and run.
type Program struct {
	// App takes the flags and sub-commands.
	App     *kingpin.Application
	Streams Streams
	// Log is what the flags say of the log, once they are parsed.
	Log promslog.Config
	// Commands are what to run, by full name; a program without sub-commands
	// has the name "". They return the exit status.
	Commands map[string]func(context.Context) int

	// ended is the exit status if parsing alone did the work, as --help does.
	ended *int
}

// New returns a program that has the flags of every program.
func New(name, help string, s Streams) *Program {
	p := &Program{App: kingpin.New(name, help), Streams: s, Commands: map[string]func(context.Context) int{}}
	p.App.UsageWriter(s.Stdout).ErrorWriter(s.Stderr)
	p.App.Terminate(func(status int) {
		if p.ended == nil {
			p.ended = &status
		}
	})
	p.App.HelpFlag.Short('h')
	p.App.Version(version.Print(name))
	p.App.VersionFlag.NoEnvar()
	p.Log.Writer = s.Stderr
	promslogflag.AddFlags(p.App, &p.Log)
	return p
}

// Add registers a process under a command's full name.
func (p *Program) Add(name string, run Process) {
	p.Commands[name] = func(ctx context.Context) int {
		if err := run(ctx, promslog.New(&p.Log)); err != nil {
			return p.Fail(ExitFailed, err)
		}
		return ExitOK
	}
}

// Run parses the arguments, without the program's name, and runs what they
// ask for. It returns the exit status.
func (p *Program) Run(args []string) int {
	name, err := p.App.Parse(args)
	switch {
	case p.ended != nil:
		return *p.ended
	case err != nil:
		return p.Fail(ExitUsage, fmt.Errorf("%w; try --help", err))
	}
	ctx, stop := UntilSignal(context.Background())
	defer stop()
	return p.Commands[name](ctx)
}

// Fail prints an error under the program's name and returns the status.
func (p *Program) Fail(status int, err error) int {
	fmt.Fprintf(p.Streams.Stderr, "%s: %s\n", p.App.Name, err)
	return status
}

// UntilSignal returns a context that ends with the first SIGINT or SIGTERM;
// the second one has its usual effect and ends the program at once.
func UntilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// WebFlags are those of a process that serves HTTP.
func WebFlags(f Flagger, c *server.Config, address string) {
	f.Flag("web.listen-address", "Address for HTTP.").Default(address).StringVar(&c.ListenAddress)
	f.Flag("web.config.file", "File that enables TLS or authentication for HTTP.").StringVar(&c.WebConfigFile)
	f.Flag("web.enable-lifecycle", "Let HTTP requests reload the configuration (/-/reload) and drain a member (/-/drain).").BoolVar(&c.EnableLifecycle)
	f.Flag("web.enable-pprof", "Serve profiles at /debug/pprof.").BoolVar(&c.EnablePprof)
}
