package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/ruler/unittest"
)

// unitTestTimeout ends a query of a unit test, as in promtool.
const unitTestTimeout = 100 * time.Second

// addUnitTest registers "rules test". Its status is 0 if all tests pass, else 1.
func addUnitTest(p *command.Program, rules *kingpin.CmdClause) {
	var o unittest.Options
	var junit string
	o.Rules.Scope = plan.Scope
	cmd := rules.Command("test", "Run unit tests of rules, in promtool's format.")
	cmd.Flag("run", "Run only tests whose name matches the regular expression (repeatable).").PlaceHolder("REGEXP").SetValue(&runValue{&o})
	cmd.Flag("diff", "Print coloured differences between expected alerts and those found, in place of both.").BoolVar(&o.Diff)
	cmd.Flag("debug", "Print when tests start and end, and all of their series.").BoolVar(&o.Debug)
	cmd.Flag("ignore-unknown-fields", "Ignore fields of rule files that no rule has.").BoolVar(&o.Rules.IgnoreUnknownFields)
	cmd.Flag("cluster", "Labels of a cluster that the manifests Rules and ClusterRules are instantiated for, as in the configuration of a rule-evaluator (repeatable). Default: one instance without such labels.").
		PlaceHolder("NAME=VALUE[,...]").SetValue((*clustersValue)(&o.Rules.Clusters))
	cmd.Flag("junit", "File to write the results to, as JUnit XML.").PlaceHolder("FILE").StringVar(&junit)
	cmd.Arg("file", "Unit-test file (repeatable).").Required().StringsVar(&o.Files)
	p.Commands["rules test"] = func(ctx context.Context) int {
		status := command.ExitOK
		runner := unittest.New(o, ruler.UnitTests(unitTestEngine), p.Streams.Stdout, p.Streams.Stderr)
		if !runner.Run(ctx) {
			status = command.ExitFailed
		}
		if junit != "" {
			if err := writeJUnit(junit, runner); err != nil {
				return p.Fail(command.ExitFailed, err)
			}
		}
		return status
	}
}

// unitTestEngine is the backend's engine.
func unitTestEngine(subqueryStep time.Duration) promql.QueryEngine {
	cfg := engine.Config{MaxSamples: unittest.MaxSamples, Timeout: unitTestTimeout, SubqueryInterval: subqueryStep}
	return engine.New(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

func writeJUnit(name string, runner *unittest.Runner) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	return errors.Join(runner.WriteJUnit(f), f.Close())
}

// runValue is the flag --run: tests that match any of the expressions.
type runValue struct{ o *unittest.Options }

// Set adds an expression.
func (v *runValue) Set(text string) error {
	if v.o.Run != nil {
		text = v.o.Run.String() + "|" + text
	}
	var err error
	v.o.Run, err = regexp.Compile(text)
	return err
}

func (v *runValue) String() string { return "" }

// IsCumulative tells kingpin that the flag may be repeated.
func (v *runValue) IsCumulative() bool { return true }

// clustersValue is the flag --cluster: one set of labels each time.
type clustersValue []labels.Labels

// Set adds a cluster.
func (v *clustersValue) Set(text string) error {
	b := labels.NewBuilder(labels.EmptyLabels())
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || value == "" || !model.UTF8Validation.IsValidLabelName(name) {
			return fmt.Errorf("%q is not NAME=VALUE, with a label's name", pair)
		}
		b.Set(name, value)
	}
	*v = append(*v, b.Labels())
	return nil
}

func (v *clustersValue) String() string { return "" }

// IsCumulative tells kingpin that the flag may be repeated.
func (v *clustersValue) IsCumulative() bool { return true }
