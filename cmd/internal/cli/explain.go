package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/explain"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
)

// The formats of what commands print.
const (
	formatText = "text"
	formatJSON = "json"
)

// discoveryTimeout is how long the endpoints of backends may take to be found.
const discoveryTimeout = 10 * time.Second

// explainOptions are what "rules explain" is asked for.
type explainOptions struct {
	// args are rule files, or keys of groups if a member is asked.
	args  []string
	exprs []string
	// One of these says where the backends are from.
	configFile, backendsFile string
	member                   memberFlags

	analyze bool
	at      string
	format  string
}

// addExplain registers "rules explain". Its status is 0 if all rules can be
// planned and, with --analyze, evaluated; else 1.
func addExplain(p *command.Program, rules *kingpin.CmdClause) {
	var o explainOptions
	cmd := rules.Command("explain", "Show what of each rule runs at which backend, what stays local and why, and what rules share.")
	cmd.Flag("config.file", "Configuration of a rule-evaluator, for its backends and clusters. Without rule files and expressions, its own rules are explained.").
		StringVar(&o.configFile)
	cmd.Flag("backends", "File with a list of backends (name, partition_labels, virtual) to plan for; nothing is contacted.").StringVar(&o.backendsFile)
	cmd.Flag("url", "Member of a running cluster to ask; the arguments are keys of groups then.").PlaceHolder("URL").StringVar(&o.member.url)
	cmd.Flag("http.config.file", "HTTP client configuration for --url, as promtool takes it.").StringVar(&o.member.configFile)
	cmd.Flag("expr", "PromQL expression to explain (repeatable).").PlaceHolder("EXPR").StringsVar(&o.exprs)
	cmd.Flag("analyze", "Evaluate the rules at the backends, and say what each part costs. Nothing is written.").BoolVar(&o.analyze)
	cmd.Flag("time", "Slot to explain, as RFC 3339 or seconds since the epoch. Default: now.").StringVar(&o.at)
	addFormat(cmd, &o.format)
	cmd.Arg("rules", "Rule file, directory or pattern (repeatable).").StringsVar(&o.args)
	cmd.Validate(func(*kingpin.CmdClause) error { return o.validate() })
	p.Commands["rules explain"] = func(ctx context.Context) int {
		report, err := o.report(ctx, promslog.New(&p.Log))
		if err != nil {
			return p.Fail(command.ExitFailed, err)
		}
		if err := show(p.Streams.Stdout, o.format, report); err != nil {
			return p.Fail(command.ExitFailed, err)
		}
		if report.Failed() {
			return command.ExitFailed
		}
		return command.ExitOK
	}
}

func addFormat(cmd *kingpin.CmdClause, format *string) {
	cmd.Flag("format", "Output format: text or json.").Default(formatText).EnumVar(format, formatText, formatJSON)
}

// show prints a value in one of its two forms.
func show(w io.Writer, format string, v fmt.Stringer) error {
	if format == formatJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	_, err := io.WriteString(w, v.String())
	return err
}

func (o *explainOptions) validate() error {
	given := 0
	for _, from := range []string{o.configFile, o.backendsFile, o.member.url} {
		if from != "" {
			given++
		}
	}
	_, timeErr := o.slot()
	switch {
	case given != 1:
		return errors.New("one of --config.file, --backends and --url is needed, to know the backends")
	case o.analyze && o.configFile == "":
		return errors.New("--analyze needs --config.file, to reach the backends")
	case o.member.url != "" && (len(o.exprs) > 0 || o.at != ""):
		return errors.New("a member explains its own groups, at present: --expr and --time go without --url")
	case o.member.url != "" && len(o.args) != 1:
		return errors.New("--url needs the key of one group; `tocsin cluster owners` lists them")
	case o.backendsFile != "" && len(o.args)+len(o.exprs) == 0:
		return errors.New("nothing to explain: name rule files or give --expr")
	}
	return timeErr
}

// slot is the time that is asked for.
func (o *explainOptions) slot() (time.Time, error) {
	if o.at == "" {
		return time.Now().UTC().Truncate(time.Second), nil
	}
	return parseTime("--time", o.at)
}

// parseTime reads the value of a flag as promtool does, to the millisecond.
func parseTime(flag, text string) (time.Time, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return time.UnixMilli(int64(s * 1000)).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("%s %q is neither RFC 3339 nor a number of seconds", flag, text)
	}
	return at.UTC().Truncate(time.Millisecond), nil
}

func (o *explainOptions) report(ctx context.Context, logger *slog.Logger) (*explain.Report, error) {
	if o.member.url != "" {
		var report explain.Report
		return &report, o.member.get(ctx, "api/v1/rules/plan", url.Values{"key": {o.args[0]}}, &report)
	}
	cfg, err := o.config()
	if err != nil {
		return nil, err
	}
	rules, err := o.rules(ctx, cfg, logger)
	if err != nil {
		return nil, err
	}
	slot, err := o.slot()
	if err != nil {
		return nil, err
	}
	if !o.analyze {
		return explain.Explain(cfg, slot, rules), nil
	}
	return analyzed(ctx, cfg.Evaluator(), slot, rules, logger)
}

// analyzed evaluates rules, after a moment for discovery. Backends that are not
// discovered by then are errors of the rules that need them.
func analyzed(ctx context.Context, cfg evaluator.Config, slot time.Time, rules []explain.Rule, logger *slog.Logger) (*explain.Report, error) {
	e, err := evaluator.New(cfg, logger, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- e.Run(running) }()
	known, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	e.Discovered(known)
	report := explain.Analyze(ctx, e, slot, rules)
	stop()
	return report, <-done
}

func (o *explainOptions) config() (*ruler.Config, error) {
	if o.backendsFile != "" {
		return ruler.LoadBackends(o.backendsFile)
	}
	return ruler.LoadConfig(o.configFile)
}

// rules are those of the files and the expressions that were given, else those
// of the configuration.
func (o *explainOptions) rules(ctx context.Context, cfg *ruler.Config, logger *slog.Logger) ([]explain.Rule, error) {
	var rules []explain.Rule
	for i, text := range o.exprs {
		expr, err := parser.ParseExpr(text)
		if err != nil {
			return nil, fmt.Errorf("--expr %q: %w", text, err)
		}
		rules = append(rules, explain.Rule{Name: strconv.Itoa(i + 1), Type: "expression", Expr: expr})
	}
	paths := o.args
	if len(paths)+len(o.exprs) == 0 {
		if paths = cfg.RuleFiles; len(cfg.RuleConfigMaps) > 0 {
			return nil, errors.New("the configuration takes rules from ConfigMaps: name files, or ask a running member with --url")
		}
	}
	groups, err := loadGroups(ctx, paths, cfg.RuleOptions(), logger)
	return append(rules, ruler.ExplainedRules(groups)...), err
}

// loadGroups reads rule files as a rule-evaluator does; any fault is an error.
func loadGroups(ctx context.Context, paths []string, opts rule.Options, logger *slog.Logger) ([]rule.Group, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	sc := source.DefaultConfig()
	sc.Paths, sc.Rules = paths, opts
	loader, err := source.New(sc, logger)
	if err != nil {
		return nil, err
	}
	snapshot, err := loader.Load(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, fault := range snapshot.Errors {
		errs = append(errs, fault.Err)
	}
	return snapshot.Groups, errors.Join(errs...)
}
