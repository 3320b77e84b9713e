package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// planner plans as the evaluator does, over fixed backends.
type planner []plan.Backend

func (p planner) Plan(ts time.Time, queries []plan.Query) *plan.Plan {
	w := plan.Window{Start: ts.UnixMilli(), End: ts.UnixMilli()}
	return plan.New(queries, p, plan.Options{Window: w, SubqueryStep: time.Minute})
}

func (p planner) Folding(queries []plan.Query) *plan.Folding {
	return plan.NewFolding(queries, p)
}

// TestReports runs the scripts in testdata. Their commands:
//
//	backends          one a line: NAME [virtual] [delay=DURATION] cluster value
//	explain [json] [only=GROUP]    one rule a line: GROUP/NAME[/STAGE[/READS]] = EXPR,
//	                  where READS are names of rules of the group with commas between;
//	                  rules of a group ns:X are scoped to the namespace X
func TestReports(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var backends planner
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "backends":
				backends = parseBackends(d.Input)
				require.NoError(t, plan.Validate(backends))
				return ""
			case "explain":
				r := Explain(backends, time.Unix(3600, 0).UTC(), parseRules(t, d.Input))
				if d.HasArg("only") {
					var group string
					d.ScanArgs(t, "only", &group)
					r = r.Only(group)
				}
				if !d.HasArg("json") {
					return r.String()
				}
				body, err := json.MarshalIndent(r, "", "  ")
				require.NoError(t, err)
				return string(body) + "\n"
			}
			d.Fatalf(t, "unknown command %q", d.Cmd)
			return ""
		})
	})
}

func parseBackends(input string) planner {
	var backends planner
	for line := range strings.Lines(input) {
		words := strings.Fields(line)
		b := plan.Backend{Name: words[0], Virtual: slices.Contains(words, "virtual")}
		for _, word := range words {
			if delay, ok := strings.CutPrefix(word, "delay="); ok {
				b.ReadDelay, _ = time.ParseDuration(delay)
			}
		}
		cluster := words[len(words)-1]
		b.Partition = labels.FromStrings("cluster", strings.Trim(cluster, `"`))
		backends = append(backends, b)
	}
	return backends
}

func parseRules(t *testing.T, input string) []Rule {
	t.Helper()
	var rules []Rule
	for line := range strings.Lines(input) {
		name, text, ok := strings.Cut(line, " = ")
		require.True(t, ok, line)
		expr, err := parser.ParseExpr(text)
		require.NoError(t, err, line)
		parts := strings.Split(name, "/")
		r := Rule{Group: parts[0], Name: parts[1], Type: "recording", Expr: expr}
		if ns, scoped := strings.CutPrefix(r.Group, "ns:"); scoped {
			r.Scope = labels.FromStrings("namespace", ns)
			r.Expr, err = plan.Scope(expr, r.Scope)
			require.NoError(t, err)
		}
		if len(parts) > 2 {
			r.Batch.Stage, err = strconv.Atoi(parts[2])
			require.NoError(t, err)
		}
		if len(parts) > 3 {
			r.Reads = strings.Split(parts[3], ",")
		}
		rules = append(rules, r)
	}
	return rules
}

func TestEveryReasonHasAMeaning(t *testing.T) {
	t.Parallel()
	for _, reason := range plan.Reasons() {
		require.NotEmpty(t, meanings[reason], "reason %q", reason)
	}
	for _, reason := range plan.FoldReasons() {
		require.NotEmpty(t, foldMeanings[reason], "reason %q", reason)
	}
}

// What a member answers is what its client prints.
func TestAReportSurvivesEncoding(t *testing.T) {
	t.Parallel()
	rules := parseRules(t, "g/a = sum(x) / quantile(0.9, x)\ng/b = info(y)\ng/c = max_over_time(sum(x)[5m:1m])\ng/d/1/a = a")
	r := Explain(parseBackends("east delay=1500ms \"east\"\nwest virtual \"west\""), time.Unix(3600, 0).UTC(), rules)
	body, err := json.Marshal(r)
	require.NoError(t, err)
	var decoded Report
	require.NoError(t, json.Unmarshal(body, &decoded))
	require.Equal(t, r.String(), decoded.String())
}

func TestCostsAreShown(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]fmt.Stringer{
		"": (*Cost)(nil),
		" (2 series, 40 samples, 9 bytes, 1.5ms)":               &Cost{Series: 2, Samples: 40, Bytes: 9, Seconds: 0.0015},
		" (2 series, 40 samples, 1s)":                           &Cost{Series: 2, Samples: 40, Seconds: 1},
		" (failed after 2s: away)":                              &Cost{Seconds: 2, Error: "away"},
		" (requests 1, fragments 3, samples 40, bytes 9, 20µs)": &BackendCost{Requests: 1, Fragments: 3, Samples: 40, Bytes: 9, Seconds: 0.00002},
	} {
		require.Equal(t, want, c.String())
	}
}

// TestAFragmentHasItsOwnTime: one request may carry many.
func TestAFragmentHasItsOwnTime(t *testing.T) {
	t.Parallel()
	r := Explain(parseBackends(`east "east"`), time.Unix(3600, 0).UTC(), parseRules(t, "g/a = x\ng/b = y\ng/c = z"))
	m := measurement{report: r}
	m.enter([]int{0, 1, 2})
	at := r.Fragments[0].key.window
	m.Answered(
		[]plan.Fragment{{Expr: "x", Window: at}, {Expr: "y", Window: at}, {Expr: "z", Window: at}},
		[]remote.Result{
			{Value: promql.Vector{{}, {}}, SamplesRead: 7, Took: 2 * time.Millisecond},
			{Value: promql.Vector{}, Took: 30 * time.Millisecond},
			{Err: errors.New("away")},
		}, time.Second)
	require.Equal(t, `backends
  east  {cluster="east"} (requests 1, fragments 3, samples 7, bytes 0, 1s)

group g
recording a
  x
  east: x (2 series, 7 samples, 2ms)
recording b
  y
  east: y (0 series, 0 samples, 30ms)
recording c
  z
  east: z (failed after 1s: away)
`, r.String())
}

func TestMain(m *testing.M) {
	parser.EnableExperimentalFunctions = true
	os.Exit(m.Run())
}
