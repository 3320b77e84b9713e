package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/ruler/backfill"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// backfillOptions are what "rules backfill" is asked for.
type backfillOptions struct {
	configFile string
	paths      []string
	start, end string
	// groups and rules select by name; none means all.
	groups, rules []string
	outputDir     string
	stateFile     string
	limits        backfill.Config
	dryRun        bool
}

// addBackfill registers "rules backfill". Its status is 0 if everything was
// written, else 1.
func addBackfill(p *command.Program, rules *kingpin.CmdClause) {
	o := backfillOptions{limits: backfill.DefaultConfig()}
	cmd := rules.Command("backfill", "Evaluate rules over a past range, as a cluster would have, and write what they record to the backends or to TSDB blocks.")
	cmd.Flag("config.file", "Configuration of a rule-evaluator. Without rule files, its own rules are evaluated.").Default("evaluator.yml").StringVar(&o.configFile)
	cmd.Flag("start", "First time that is evaluated, as RFC 3339 or seconds since the epoch.").Required().StringVar(&o.start)
	cmd.Flag("end", "Last time that is evaluated, as RFC 3339 or seconds since the epoch.").Required().StringVar(&o.end)
	cmd.Flag("group", "Name or key of a group to evaluate (repeatable). Default: all.").PlaceHolder("GROUP").StringsVar(&o.groups)
	cmd.Flag("rule", "Name of a recorded series or of an alert to evaluate (repeatable). Default: all.").PlaceHolder("NAME").StringsVar(&o.rules)
	cmd.Flag("output-dir", "Directory for TSDB blocks, in place of writing to the backends. With several backends each gets a directory in it.").PlaceHolder("DIR").StringVar(&o.outputDir)
	cmd.Flag("concurrency", "Number of groups that are evaluated at a time.").Default(fmt.Sprint(o.limits.Concurrency)).IntVar(&o.limits.Concurrency)
	cmd.Flag("state-file", "File that keeps progress, so that the same command goes on where it was ended. Default: one for each backfill in the user's cache directory, or in the output directory.").
		PlaceHolder("FILE").StringVar(&o.stateFile)
	cmd.Flag("dry-run", "Print what would be evaluated, in which order and how. Nothing is contacted.").BoolVar(&o.dryRun)
	cmd.Arg("rules", "Rule file, directory or pattern (repeatable).").StringsVar(&o.paths)
	cmd.Validate(func(*kingpin.CmdClause) error { return o.validate() })
	p.Commands["rules backfill"] = func(ctx context.Context) int {
		if err := o.run(ctx, p.Streams, promslog.New(&p.Log)); err != nil {
			return p.Fail(command.ExitFailed, err)
		}
		return command.ExitOK
	}
}

func (o *backfillOptions) validate() error {
	_, startErr := parseTime("--start", o.start)
	_, endErr := parseTime("--end", o.end)
	errs := []error{startErr, endErr}
	if o.limits.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("--concurrency %d: must be at least 1", o.limits.Concurrency))
	}
	return errors.Join(errs...)
}

func (o *backfillOptions) run(ctx context.Context, s command.Streams, logger *slog.Logger) error {
	cfg, err := ruler.LoadConfig(o.configFile)
	if err != nil {
		return err
	}
	job, err := o.job(ctx, cfg, logger)
	if err != nil {
		return err
	}
	plan := backfill.NewPlan(job)
	if o.dryRun {
		_, err := io.WriteString(s.Stdout, plan.String())
		return err
	}
	stateFile, err := o.state(job)
	if err != nil {
		return err
	}
	progress := newProgressDisplay(s.Stderr)
	outcome, err := cfg.Backfill(ctx, plan, ruler.BackfillOptions{
		Limits: o.limits, StateFile: stateFile, OutputDir: o.outputDir, Progress: progress.show,
	}, logger)
	progress.end()
	if err != nil {
		return o.interrupted(err, outcome, stateFile)
	}
	fmt.Fprintf(s.Stdout, "%d evaluations, %d samples written to %s\n", outcome.Done-outcome.Resumed, outcome.Samples, job.Where)
	if outcome.Failed > 0 {
		fmt.Fprintf(s.Stdout, "%d evaluations had an error, as they would have had in a cluster; the first: %s\n", outcome.Failed, outcome.First)
	}
	if outcome.Rejected > 0 {
		return fmt.Errorf("samples of %d evaluations were refused; the first: %w", outcome.Rejected, outcome.FirstRejection)
	}
	return nil
}

// interrupted says how to go on.
func (o *backfillOptions) interrupted(err error, outcome backfill.Outcome, stateFile string) error {
	if outcome.Done == 0 {
		return err
	}
	return fmt.Errorf("%w; %d of %d evaluations are done, the same command goes on from the last chunk that ended (%s)", err, outcome.Done, outcome.Total, stateFile)
}

func (o *backfillOptions) job(ctx context.Context, cfg *ruler.Config, logger *slog.Logger) (backfill.Job, error) {
	paths := o.paths
	if len(paths) == 0 {
		paths = cfg.RuleFiles
	}
	groups, err := loadGroups(ctx, paths, cfg.RuleOptions(), logger)
	if err != nil {
		return backfill.Job{}, err
	}
	var job backfill.Job
	if job.Groups, err = selected(groups, o.groups, o.rules); err != nil {
		return job, err
	}
	if job.Start, err = parseTime("--start", o.start); err != nil {
		return job, err
	}
	if job.End, err = parseTime("--end", o.end); err != nil {
		return job, err
	}
	if job.Where, err = cfg.BackfillTarget(o.outputDir); err != nil {
		return job, err
	}
	return job, job.Validate()
}

// selected are the rules asked for. A name that nothing has is an error.
func selected(groups []rule.Group, groupNames, ruleNames []string) ([]rule.Group, error) {
	missing := map[string]bool{}
	for _, name := range groupNames {
		missing["group "+name] = true
	}
	for _, name := range ruleNames {
		missing["rule "+name] = true
	}
	var chosen []rule.Group
	for _, g := range groups {
		if len(groupNames) > 0 && !slices.Contains(groupNames, g.Name) && !slices.Contains(groupNames, g.Key) {
			continue
		}
		delete(missing, "group "+g.Name)
		delete(missing, "group "+g.Key)
		if len(ruleNames) > 0 {
			g.Rules = slices.DeleteFunc(slices.Clone(g.Rules), func(r rule.Rule) bool { return !slices.Contains(ruleNames, r.Name()) })
		}
		for _, r := range g.Rules {
			delete(missing, "rule "+r.Name())
		}
		if len(g.Rules) > 0 {
			chosen = append(chosen, g)
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		errs = append(errs, fmt.Errorf("there is no %s", name))
	}
	return chosen, errors.Join(errs...)
}

// state is the file that keeps progress.
func (o *backfillOptions) state(job backfill.Job) (string, error) {
	if o.stateFile != "" {
		return o.stateFile, nil
	}
	if o.outputDir != "" {
		return filepath.Join(o.outputDir, ".backfill", "state.json"), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: give --state-file", err)
	}
	return filepath.Join(cache, "tocsin", "backfill", job.Fingerprint()+".json"), nil
}
