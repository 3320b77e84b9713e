package plan

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// TestScripts runs the scripts in testdata. Their commands:
//
//	backends             one a line: NAME [virtual] {partition labels}
//	plan [start=MS end=MS step=MS] [raw] [alone]   one expression a line
//	fold [paused] [unscoped]   one a line: {scope} expression, scoped first
//	order                one a line: TOOK {scope}|folded expression
//	virtualize {labels}  one expression a line
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Parallel()
		var backends []Backend
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "backends":
				backends = parseBackends(t, d.Input)
				if err := Validate(backends); err != nil {
					return err.Error() + "\n"
				}
				return ""
			case "plan":
				return planScript(t, d, backends)
			case "fold":
				return foldScript(t, d, backends)
			case "order":
				return orderScript(t, d, backends)
			case "virtualize":
				return virtualizeScript(t, d)
			}
			d.Fatalf(t, "unknown command %q", d.Cmd)
			return ""
		})
	})
}

func parseBackends(t *testing.T, input string) []Backend {
	var backends []Backend
	for line := range strings.Lines(input) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		b := Backend{Name: name}
		rest, b.Virtual = strings.CutPrefix(rest, "virtual ")
		rest, b.Shares = strings.CutPrefix(rest, "shares ")
		b.Partition = parseLabels(t, rest)
		backends = append(backends, b)
	}
	return backends
}

func parseLabels(t *testing.T, text string) labels.Labels {
	var list []labels.Label
	for pair := range strings.SplitSeq(strings.Trim(text, "{} "), ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			v, err := strconv.Unquote(value)
			require.NoError(t, err)
			list = append(list, labels.Label{Name: name, Value: v})
		}
	}
	return labels.New(list...)
}

func planScript(t *testing.T, d *datadriven.TestData, backends []Backend) string {
	opts := Options{SubqueryStep: time.Minute, Window: Window{Start: 600_000, End: 600_000}, Alone: d.HasArg("alone")}
	if d.HasArg("raw") {
		opts.Raw = ReasonRaw
	}
	d.MaybeScanArgs(t, "start", &opts.Window.Start)
	opts.Window.End = opts.Window.Start
	d.MaybeScanArgs(t, "end", &opts.Window.End)
	d.MaybeScanArgs(t, "step", &opts.Window.Step)
	var queries []Query
	var before []string
	for line := range strings.Lines(d.Input) {
		q := Query{Expr: parse(t, line)}
		queries, before = append(queries, q), append(before, q.Expr.String())
	}
	p := New(queries, backends, opts)
	for i, q := range queries {
		require.Equal(t, before[i], q.Expr.String(), "the input was changed")
	}
	requireParses(t, p)
	return p.String()
}

func foldScript(t *testing.T, d *datadriven.TestData, backends []Backend) string {
	var queries []Query
	for line := range strings.Lines(d.Input) {
		scope, text, _ := strings.Cut(line, "} ")
		q := Query{Scope: parseLabels(t, scope), Expr: parse(t, text)}
		if !d.HasArg("unscoped") {
			var err error
			q.Expr, err = Scope(q.Expr, q.Scope)
			require.NoError(t, err)
		}
		queries = append(queries, q)
	}
	before := fmt.Sprint(queries)
	f := NewFolding(queries, backends).Without(func(string) bool { return d.HasArg("paused") })
	require.Equal(t, before, fmt.Sprint(queries), "the input was changed")
	for _, fold := range f.Folds {
		require.Equal(t, fold.Query.Expr.String(), parse(t, fold.Query.Expr.String()).String())
	}
	return f.String()
}

func orderScript(t *testing.T, d *datadriven.TestData, backends []Backend) string {
	var queries []Query
	took := map[string]time.Duration{}
	for line := range strings.Lines(d.Input) {
		last, rest, _ := strings.Cut(line, " ")
		text, folded := strings.CutPrefix(rest, "folded ")
		q := Query{Folded: folded}
		if !folded {
			var scope string
			scope, text, _ = strings.Cut(rest, "} ")
			q.Scope = parseLabels(t, scope)
		}
		q.Expr = parse(t, text)
		took[q.Expr.String()], _ = time.ParseDuration(last)
		queries = append(queries, q)
	}
	p := New(queries, backends, Options{})
	all := make([]int, len(p.Fragments))
	for i := range all {
		all[i] = i
	}
	var out strings.Builder
	for _, i := range p.Order(all, queries, func(f Fragment) time.Duration { return took[f.Expr] }) {
		out.WriteString(p.Fragments[i].Expr + "\n")
	}
	return out.String()
}

// requireParses proves that everything that is sent or evaluated means what
// the plan means.
func requireParses(t testing.TB, p *Plan) {
	t.Helper()
	for _, f := range p.Fragments {
		require.Equal(t, f.Expr, parse(t, f.Expr).String())
	}
	for _, q := range p.Queries {
		if q.Err == nil {
			require.Equal(t, q.Local.String(), parse(t, q.Local.String()).String())
		}
	}
}

func virtualizeScript(t *testing.T, d *datadriven.TestData) string {
	partition := parseLabels(t, d.CmdArgs[0].String())
	var out strings.Builder
	for line := range strings.Lines(d.Input) {
		expr := parse(t, line)
		before := expr.String()
		virtual, err := Virtualize(expr, partition)
		require.Equal(t, before, expr.String(), "the input was changed")
		if err != nil {
			fmt.Fprintf(&out, "error: %s\n", err)
			continue
		}
		text := virtual.String()
		require.Equal(t, text, parse(t, text).String())
		out.WriteString(text + "\n")
	}
	return out.String()
}

// TestEveryFunctionIsKnown fails when a new PromQL function appears: decide
// whether it works element by element before adding it here.
func TestEveryFunctionIsKnown(t *testing.T) {
	t.Parallel()
	known := strings.Fields(`
		abs absent absent_over_time acos acosh asin asinh atan atanh avg_over_time ceil changes clamp clamp_max
		clamp_min cos cosh count_over_time day_of_month day_of_week day_of_year days_in_month deg delta deriv
		double_exponential_smoothing exp first_over_time floor histogram_avg histogram_count histogram_fraction
		histogram_quantile histogram_stddev histogram_stdvar histogram_sum hour idelta increase info irate
		label_join label_replace last_over_time ln log10 log2 mad_over_time max_over_time min_over_time minute
		month pi predict_linear present_over_time quantile_over_time rad rate resets round scalar sgn sin sinh
		sort sort_by_label sort_by_label_desc sort_desc sqrt stddev_over_time stdvar_over_time sum_over_time tan
		tanh time timestamp ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time
		vector year`)
	for name := range parser.Functions {
		require.Contains(t, known, name)
	}
}

func TestMain(m *testing.M) {
	parser.EnableExperimentalFunctions = true
	os.Exit(m.Run())
}

// TestPlansMove: the plan of a batch at another instant is what planning there
// gives, or has to be made there.
func TestPlansMove(t *testing.T) {
	t.Parallel()
	backends := parseBackends(t, `east {cluster="east"}`+"\n"+`west virtual {cluster="west"}`)
	options := func(at int64) Options {
		return Options{Window: Window{Start: at, End: at}, SubqueryStep: time.Minute}
	}
	for expr, moves := range map[string]bool{
		`sum(x)`:                                 true,
		`x{cluster="east"}`:                      true,
		`sum(x @ 100)`:                           true,
		`max_over_time(x{cluster="east"}[5m:])`:  true,
		`max_over_time(x[5m:1m])`:                true,
		`quantile(0.5, x) / scalar(x offset 1h)`: true,
		`max_over_time(sum(x)[5m:1m])`:           false,
		`max_over_time(sum(x)[1s:1h])`:           false,
		`sum(x @ end())`:                         false,
		`x{cluster="east"} @ start()`:            false,
		`max_over_time(x[5m:1m] @ end())`:        false,
	} {
		queries := []Query{{Expr: parse(t, expr)}, {Expr: parse(t, `sum by (job) (x)`)}}
		before := New(queries, backends, options(1_000_000))
		text := before.String()
		moved, ok := before.At(options(2_000_030).Window)
		require.Equal(t, moves, ok, expr)
		if ok {
			require.Equal(t, New(queries, backends, options(2_000_030)), moved, expr)
		}
		require.Equal(t, text, before.String(), "the input was changed")
	}
}
