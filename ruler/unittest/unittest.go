// Package unittest runs promtool's unit-test files for rules on Tocsin's own
// planner and alert state machine: rules are scoped and planned as in a running
// rule-evaluator, evaluated over a storage in this process, and their samples
// and alerts made by ruler.Replay. What it prints, and whether a test passes,
// is as with promtool.
//
// Rules are evaluated one after the other, each over what those before it
// recorded, so that results equal promtool's to the bit. The package never
// reaches a backend or an Alertmanager. Tests run in the caller's goroutine.
// The files of its tests are in testdata, and are run by promtool as well.
package unittest

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/junitxml"

	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// MaxSamples is how many samples one query of a test may hold, as in promtool.
const MaxSamples = 10_000

// Options are what a run is asked for.
type Options struct {
	// Files are the unit-test files.
	Files []string
	// Run selects tests by name; nil means all.
	Run *regexp.Regexp
	// Diff shows differences between alerts in place of both sides.
	Diff bool
	// Debug prints when tests start and end, and all of their data.
	Debug bool
	// Rules says how rule files are read, manifests among them.
	Rules rule.Options
}

// Environment is what evaluates the rules of one test.
type Environment struct {
	Evaluator ruler.Evaluator
	Templates ruler.Templates
	// Engine answers what no rule may ask, for Options.Debug.
	Engine promql.QueryEngine
}

// EnvironmentConfig is what a test says about its environment.
type EnvironmentConfig struct {
	// SubqueryStep is the step of subqueries that name none.
	SubqueryStep time.Duration
	// ExternalLabels and ExternalURL are for templates.
	ExternalLabels labels.Labels
	ExternalURL    *url.URL
}

// NewEnvironment makes the environment of one test over its data.
type NewEnvironment func(data storage.Queryable, cfg EnvironmentConfig) Environment

// Runner runs files and says what became of them.
type Runner struct {
	opts           Options
	newEnvironment NewEnvironment
	stdout, stderr io.Writer
	junit          junitxml.JUnitXML
}

// New returns a runner that writes where promtool does: outcomes to stdout, and
// what is wrong to stderr.
func New(opts Options, env NewEnvironment, stdout, stderr io.Writer) *Runner {
	return &Runner{opts: opts, newEnvironment: env, stdout: stdout, stderr: stderr}
}

// Run runs all files and tells whether all tests passed.
func (r *Runner) Run(ctx context.Context) (passed bool) {
	passed = true
	for _, name := range r.opts.Files {
		errs := r.file(ctx, name)
		if len(errs) == 0 {
			fmt.Fprintln(r.stdout, "  SUCCESS")
		} else {
			passed = false
			fmt.Fprintln(r.stderr, "  FAILED:")
		}
		for _, err := range errs {
			fmt.Fprintln(r.stderr, err)
			fmt.Fprintln(r.stdout)
		}
		fmt.Fprintln(r.stdout)
	}
	return passed
}

// WriteJUnit writes the outcome of Run as JUnit XML.
func (r *Runner) WriteJUnit(w io.Writer) error { return r.junit.WriteXML(w) }

// file runs the tests of one file and returns what is wrong.
func (r *Runner) file(ctx context.Context, name string) []error {
	suite := r.junit.Suite(name)
	f, err := loadFile(name, r.stderr)
	if err != nil {
		suite.Abort(err)
		return []error{err}
	}
	suite.Settime(time.Now().Format("2006-01-02T15:04:05"))
	var all []error
	for i, t := range f.Tests {
		if r.opts.Run != nil && !r.opts.Run.MatchString(t.Name) {
			continue
		}
		title := t.Name
		if title == "" {
			title = fmt.Sprintf("unnamed#%d", i)
		}
		outcome := suite.Case(title)
		errs := r.test(ctx, f, t, title)
		for _, err := range errs {
			outcome.Fail(err.Error())
		}
		all = append(all, errs...)
	}
	return all
}

// test runs one test, with what debugging adds.
func (r *Runner) test(ctx context.Context, f *file, t testCase, title string) []error {
	if r.opts.Debug {
		began := time.Now()
		fmt.Fprintf(r.stdout, "DEBUG: Starting test %s\n", title)
		defer func() { fmt.Fprintf(r.stdout, "DEBUG: Test %s finished, took %v\n", title, time.Since(began)) }()
	}
	b, errs := r.newBench(f, t)
	if len(errs) > 0 {
		return errs
	}
	errs = b.run(ctx)
	if err := b.data.Close(); err != nil {
		errs = append(errs, err)
	}
	return errs
}
