package unittest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/write"
)

// bench is where one test is run.
type bench struct {
	file   *file
	test   testCase
	opts   Options
	groups []benchGroup
	data   *promqltest.LazyLoader
	env    Environment
	stdout io.Writer
	errs   []error
}

type benchGroup struct {
	rule.Group
	*ruler.Replay
}

// newBench loads the rules; each test begins with rules that have no past.
func (r *Runner) newBench(f *file, t testCase) (*bench, []error) {
	external, err := url.Parse(t.ExternalURL)
	if err != nil {
		return nil, []error{fmt.Errorf("external_url: %w", err)}
	}
	data, err := promqltest.NewLazyLoader(t.load(), promqltest.LazyLoaderOpts{
		EnableAtModifier: true, EnableNegativeOffset: true, StartTime: t.Start.Time,
	})
	if err != nil {
		return nil, []error{err}
	}
	groups, errs := f.groups(r.opts.Rules)
	if len(errs) > 0 {
		return nil, append(errs, closing(data)...)
	}
	b := &bench{file: f, test: t, opts: r.opts, data: data, stdout: r.stdout}
	b.env = r.newEnvironment(data.Queryable(), EnvironmentConfig{
		SubqueryStep:   time.Duration(f.EvaluationInterval),
		ExternalLabels: t.ExternalLabels,
		ExternalURL:    external,
	})
	for _, g := range groups {
		replay := ruler.NewReplay(g, b.env.Templates, slog.New(slog.DiscardHandler))
		b.groups = append(b.groups, benchGroup{g, replay})
	}
	return b, nil
}

func closing(data *promqltest.LazyLoader) []error {
	if err := data.Close(); err != nil {
		return []error{err}
	}
	return nil
}

// run evaluates all groups at every slot, looks at alerts in between and at
// expressions in the end. It returns what is not as expected.
func (b *bench) run(ctx context.Context) []error {
	alerts, err := newAlertTests(b.test)
	if err != nil {
		return []error{err}
	}
	start, interval := b.test.start(), time.Duration(b.file.EvaluationInterval)
	last := start.Add(b.test.span())
	for slot := start; !slot.After(last); slot = slot.Add(interval) {
		if !b.slot(ctx, slot) {
			return b.errs
		}
		since := slot.Sub(start)
		for alerts.before(since + interval) {
			b.alerts(alerts.next())
		}
	}
	for _, e := range b.test.Exprs {
		b.expr(ctx, e)
	}
	if b.opts.Debug {
		b.dump(ctx)
	}
	return b.errs
}

func (b *bench) fail(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

// slot evaluates all groups. It is not ok if a rule could not be evaluated,
// which ends the test.
func (b *bench) slot(ctx context.Context, slot time.Time) (ok bool) {
	ok = true
	b.data.WithSamplesTill(slot, func(err error) {
		if err != nil {
			b.errs = append(b.errs, err)
			return
		}
		for _, g := range b.groups {
			for i, r := range g.Rules {
				if err := b.rule(ctx, g, i, slot); err != nil {
					b.fail("    rule: %s, time: %s, err: %w", r.Name(), slot.Sub(time.Unix(0, 0)), err)
					ok = false
				}
			}
		}
	})
	return ok
}

func (b *bench) rule(ctx context.Context, g benchGroup, i int, slot time.Time) error {
	result := b.env.Evaluator.Evaluate(ctx, slot.Add(-g.QueryOffset), []ruler.Query{g.Query(i)})[0]
	if result.Err != nil {
		return cause(result.Err)
	}
	unit, err := g.Produce(ctx, i, slot, result.Vector)
	if err != nil {
		return err
	}
	return b.write(ctx, unit)
}

// cause is the error of a query without its name, which the report has, and
// without that of the backend, which is none of the user's.
func cause(err error) error {
	var e *evaluator.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// write appends what a rule recorded. That a series ended where another rule
// goes on with it is no fault.
func (b *bench) write(ctx context.Context, unit write.Unit) error {
	app := b.data.Storage().Appender(ctx)
	var refused error
	for _, s := range unit {
		var err error
		if s.H != nil {
			_, err = app.AppendHistogram(0, s.Metric, s.T, nil, s.H)
		} else {
			_, err = app.Append(0, s.Metric, s.T, s.F)
		}
		if err != nil && !(value.IsStaleNaN(s.F) && isConflict(err)) {
			refused = err
		}
	}
	return errors.Join(refused, app.Commit())
}

func isConflict(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrTooOldSample) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp)
}
