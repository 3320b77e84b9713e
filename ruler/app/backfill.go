package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler/backfill"
	"github.com/tocsin-rules/tocsin/ruler/write"
)

// BackfillTarget says in words where a backfill goes: to the backends, or to
// blocks in a directory if one is given.
func (c *Config) BackfillTarget(outputDir string) (string, error) {
	if outputDir != "" {
		dir, err := filepath.Abs(outputDir)
		return "blocks in " + dir, err
	}
	var places []string
	for _, d := range c.writer().Destinations {
		var urls []string
		for _, text := range d.URLs {
			u, err := url.Parse(text)
			if err != nil {
				return "", fmt.Errorf("backend %q: %w", d.Name, err)
			}
			// Parameters may be secret.
			urls = append(urls, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
		}
		places = append(places, fmt.Sprintf("%s (%s)", d.Name, strings.Join(urls, " ")))
	}
	return "backends " + strings.Join(places, ", "), nil
}

// discoveryPatience is how long a backfill waits for backends to be discovered.
// What is not found by then is tried again like any backend that is away.
const discoveryPatience = 10 * time.Second

// BackfillOptions are what a backfill is asked for beside its plan.
type BackfillOptions struct {
	Limits    backfill.Config
	StateFile string
	// OutputDir makes blocks there instead of writing to the backends.
	OutputDir string
	Progress  func(backfill.Progress)
}

// Backfill carries out a plan over the backends of a configuration.
func (c *Config) Backfill(ctx context.Context, p backfill.Plan, o BackfillOptions, logger *slog.Logger) (_ backfill.Outcome, err error) {
	reg := prometheus.NewRegistry()
	e, err := evaluator.New(c.Evaluator(), logger, reg)
	if err != nil {
		return backfill.Outcome{}, fmt.Errorf("backends: %w", err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- e.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	known, cancel := context.WithTimeout(ctx, discoveryPatience)
	defer cancel()
	e.Discovered(known)
	tc, err := c.templates()
	if err != nil {
		return backfill.Outcome{}, err
	}
	out, results, err := c.output(o, e, logger, reg)
	if err != nil {
		return backfill.Outcome{}, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return backfill.Run(ctx, p, o.Limits, backfill.Deps{
		Evaluator: batchEvaluator{e},
		Output:    out,
		Templates: templates{alerting.NewTemplates(tc, reg), results},
		StateFile: o.StateFile,
		Progress:  o.Progress,
		Logger:    logger,
	})
}

// closingOutput is an output of a backfill that has to be closed.
type closingOutput interface {
	backfill.Output
	Close() error
}

// output is where samples go, with the evaluator that reads what went there.
func (c *Config) output(o BackfillOptions, e *evaluator.Evaluator, logger *slog.Logger, reg prometheus.Registerer) (closingOutput, *evaluator.Evaluator, error) {
	if o.OutputDir == "" {
		w, err := write.New(c.writer(), logger, reg)
		return backfilledBackends{w, e}, e, err
	}
	var results *evaluator.Evaluator
	blocks, err := backfill.NewBlocks(backfill.BlocksConfig{
		Dir:          o.OutputDir,
		Destinations: c.writer().Destinations,
		Stored:       e.Queryable(),
		NewEvaluator: func(data storage.Queryable) backfill.Evaluator {
			results = e.Over(data)
			return batchEvaluator{results}
		},
		Logger: logger,
	})
	return blocks, results, err
}

// backfilledBackends are the backends as an output: what they acknowledge is
// durable, and there to be read.
type backfilledBackends struct {
	*write.Writer
	e *evaluator.Evaluator
}

var _ backfill.Output = backfilledBackends{}

// Evaluator implements backfill.Output.
func (b backfilledBackends) Evaluator() backfill.Evaluator { return batchEvaluator{b.e} }

// Begin implements backfill.Output.
func (backfilledBackends) Begin(time.Time) error { return nil }

// End implements backfill.Output.
func (backfilledBackends) End(time.Time) error { return nil }

// Finish implements backfill.Output.
func (backfilledBackends) Finish() error { return nil }

// Close implements closingOutput.
func (backfilledBackends) Close() error { return nil }
