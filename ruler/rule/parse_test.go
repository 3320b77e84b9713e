package rule

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// scopeForTest restricts selectors as evaluator/plan does, on a copy made by
// printing and parsing.
func scopeForTest(expr parser.Expr, scope labels.Labels) (parser.Expr, error) {
	copied, err := parser.ParseExpr(expr.String())
	if err != nil {
		return nil, err
	}
	parser.Inspect(copied, func(n parser.Node, _ []parser.Node) error {
		vs, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, m := range vs.LabelMatchers {
			if v := scope.Get(m.Name); v != "" && !m.Matches(v) {
				err = fmt.Errorf("selector %s contradicts %s", vs, scope)
			}
		}
		scope.Range(func(l labels.Label) {
			vs.LabelMatchers = append(vs.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		})
		return nil
	})
	return copied, err
}

// TestParse runs the scripts in testdata/parse. Their only command takes the
// content of a file and prints its groups or its faults:
//
//	parse file=NAME [clusters=(A,B)] [interval=DURATION] [lax] [unscoped] [tabs]
//
// With tabs, each ">" stands for a tab.
func TestParse(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/parse", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var file string
			d.ScanArgs(t, "file", &file)
			opts := optionsOf(t, d)
			input := d.Input
			if d.HasArg("tabs") {
				input = strings.ReplaceAll(input, ">", "\t")
			}
			return parsedText(Parse(file, []byte(input), opts))
		})
	})
}

func parsedText(groups []Group, errs []error) string {
	var b strings.Builder
	for _, err := range errs {
		b.WriteString(err.Error() + "\n")
	}
	for _, g := range groups {
		b.WriteString(g.String() + "\n")
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func optionsOf(t *testing.T, d *datadriven.TestData) Options {
	opts := Options{Scope: scopeForTest, IgnoreUnknownFields: d.HasArg("lax")}
	if d.HasArg("unscoped") {
		opts.Scope = nil
	}
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "interval":
			var err error
			opts.DefaultInterval, err = time.ParseDuration(a.Vals[0])
			require.NoError(t, err)
		case "clusters":
			for _, c := range a.Vals {
				opts.Clusters = append(opts.Clusters, labels.FromStrings("cluster", c))
			}
		}
	}
	return opts
}

func TestAnAliasBombIsRefused(t *testing.T) {
	t.Parallel()
	content := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 10; i++ {
		content += bombLine(i)
	}
	_, errs := Parse("bomb.yml", []byte(content), Options{})
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "aliases add more than max-alias-bytes (33554432) to the document")
}

func bombLine(i int) string {
	name, inner := string(rune('a'+i)), string(rune('a'+i-1))
	if i == 1 {
		inner = "a0"
	}
	line := name + ": &" + name + " ["
	for range 10 {
		line += "*" + inner + ","
	}
	return line + "]\n"
}

// FuzzParse holds Parse to its contract on any input: no panic, groups or
// errors but not both, and the same for the same.
func FuzzParse(f *testing.F) {
	scripts, err := filepath.Glob("testdata/parse/*")
	require.NoError(f, err)
	for _, script := range scripts {
		content, err := os.ReadFile(script)
		require.NoError(f, err)
		for block := range strings.SplitSeq(string(content), "\n\n") {
			_, input, _ := strings.Cut(block, "parse file=")
			_, input, _ = strings.Cut(input, "\n")
			input, _, _ = strings.Cut(input, "\n----\n")
			f.Add([]byte(input))
		}
	}
	opts := Options{Scope: scopeForTest, Clusters: []labels.Labels{labels.FromStrings("cluster", "c")}}
	f.Fuzz(func(t *testing.T, content []byte) {
		groups, errs := Parse("fuzz.yml", content, opts)
		require.False(t, len(groups) > 0 && len(errs) > 0)
		again, errsAgain := Parse("fuzz.yml", content, opts)
		require.Equal(t, parsedText(groups, errs), parsedText(again, errsAgain))
		for _, g := range groups {
			stages, _ := Stages(g)
			require.Len(t, slices.Concat(stages...), len(g.Rules))
		}
	})
}

func TestEqualMatchersOfAFileAreOne(t *testing.T) {
	t.Parallel()
	groups, errs := Parse("f.yml", []byte(`
groups:
- name: g
  rules:
  - {record: a, expr: 'x{code=~"5..", job="api"}'}
  - {record: b, expr: 'sum(y{code=~"5.."}) / sum(y{code!~"5.."})'}
`), Options{DefaultInterval: time.Minute})
	require.Empty(t, errs)
	matcher := func(rule, selector, i int) *labels.Matcher {
		return parser.ExtractSelectors(groups[0].Rules[rule].Expr)[selector][i]
	}
	require.Same(t, matcher(0, 0, 0), matcher(1, 0, 0))
	require.NotSame(t, matcher(0, 0, 0), matcher(1, 1, 0), "of another type")
	require.Equal(t, `x{code=~"5..",job="api"}`, groups[0].Rules[0].Expr.String())
}
