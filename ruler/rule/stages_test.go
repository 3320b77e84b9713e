package rule

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// TestStages runs the scripts in testdata/stages. Their only command takes
// rules, one a line, and prints the names of those in each stage,
// and who reads whom:
//
//	stages [cluster=NAME]
//	NAME[{labels}] := EXPR          a recording rule
//	alert NAME[{labels}] := EXPR    an alerting rule
func TestStages(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/stages", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var g Group
			for _, a := range d.CmdArgs {
				g.Scope = labels.FromStrings(a.Key, a.Vals[0])
			}
			for line := range strings.Lines(d.Input) {
				g.Rules = append(g.Rules, ruleOf(t, strings.TrimSpace(line)))
			}
			var b strings.Builder
			stages, reads := Stages(g)
			for i, stage := range stages {
				fmt.Fprintf(&b, "%d:", i)
				for _, r := range stage {
					b.WriteString(" " + g.Rules[r].Name())
				}
				b.WriteString("\n")
			}
			for j, read := range reads {
				for _, i := range read {
					fmt.Fprintf(&b, "%s reads %s\n", g.Rules[j].Name(), g.Rules[i].Name())
				}
			}
			return b.String()
		})
	})
}

func ruleOf(t *testing.T, line string) Rule {
	head, expr, _ := strings.Cut(line, " := ")
	alert, isAlert := strings.CutPrefix(head, "alert ")
	name, labelText, hasLabels := strings.Cut(strings.TrimSpace(alert), "{")
	r := Rule{Record: name}
	if isAlert {
		r = Rule{Alert: name}
	}
	if hasLabels {
		var pairs []string
		for pair := range strings.SplitSeq(strings.TrimSuffix(labelText, "}"), ",") {
			k, v, _ := strings.Cut(pair, "=")
			pairs = append(pairs, k, strings.Trim(v, `"`))
		}
		r.Labels = labels.FromStrings(pairs...)
	}
	var err error
	r.Expr, err = parser.ParseExpr(expr)
	require.NoError(t, err, line)
	return r
}

// TestQuickStagesGiveWhatFileOrderGives evaluates random groups both ways: a
// rule's result stands for its own index and all the results that it saw.
func TestQuickStagesGiveWhatFileOrderGives(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		g := randomGroup(t, rng)
		stages, reads := Stages(g)
		sequential := make([][]int, len(g.Rules))
		for i := range sequential {
			sequential[i] = []int{i}
		}
		require.Equal(t, evaluate(g, sequential), evaluate(g, stages), "%s\n%v", g, stages)
		require.Equal(t, naiveStages(g), stages, "%s", g)
		for j := range g.Rules {
			for i := range j {
				require.Equal(t, naiveReads(g, j, i), slices.Contains(reads[j], i), "%s: rule %d, %d", g, j, i)
			}
		}
	}
}

func naiveReads(g Group, reader, written int) bool {
	return slices.ContainsFunc(parser.ExtractSelectors(g.Rules[reader].Expr), func(s []*labels.Matcher) bool {
		return selects(s, seriesOf(g.Rules[written]))
	})
}

// written is a series as the naive twin sees it: all labels known.
type written struct {
	series labels.Labels
	value  string
}

// evaluate runs the stages over a toy store in which a series holds the last
// value written to it.
func evaluate(g Group, stages [][]int) map[int]string {
	var store []written
	results := map[int]string{}
	for _, stage := range stages {
		visible := len(store)
		for _, i := range stage {
			seen := sha256.Sum256(fmt.Append(nil, i, read(g.Rules[i], store[:visible])))
			results[i] = fmt.Sprintf("%x", seen[:6])
			store = append(store, written{series: seriesOf(g.Rules[i]), value: results[i]})
		}
	}
	return results
}

// read returns what the rule's selectors select, in an order that does not
// depend on that of writing, except that the last write to a series wins.
func read(r Rule, store []written) []string {
	last := map[string]string{}
	for _, w := range store {
		for _, selector := range parser.ExtractSelectors(r.Expr) {
			if selects(selector, w.series) {
				last[w.series.String()] = w.value
			}
		}
	}
	var out []string
	for series, value := range last {
		out = append(out, series+"="+value)
	}
	slices.Sort(out)
	return out
}

func selects(selector []*labels.Matcher, series labels.Labels) bool {
	return !slices.ContainsFunc(selector, func(m *labels.Matcher) bool { return !m.Matches(series.Get(m.Name)) })
}

func seriesOf(r Rule) labels.Labels {
	b := labels.NewBuilder(r.Labels)
	if r.Alert == "" {
		return b.Set(labels.MetricName, r.Record).Labels()
	}
	return b.Set(labels.MetricName, "ALERTS").Set(labels.AlertName, r.Alert).Set("alertstate", "firing").Labels()
}

// naiveStages pushes rules to later stages until nothing is wrong any more.
func naiveStages(g Group) [][]int {
	stage := make([]int, len(g.Rules))
	reads := func(i, j int) bool { return naiveReads(g, i, j) }
	for changed := true; changed; {
		changed = false
		for j := range g.Rules {
			for i := range j {
				tooEarly := reads(j, i) && stage[j] <= stage[i] || reads(i, j) && stage[j] < stage[i] ||
					labels.Equal(seriesOf(g.Rules[i]), seriesOf(g.Rules[j])) && stage[j] < stage[i]
				if tooEarly {
					stage[j]++
					changed = true
				}
			}
		}
	}
	out := make([][]int, 0)
	for i, s := range stage {
		for len(out) <= s {
			out = append(out, nil)
		}
		out[s] = append(out[s], i)
	}
	return out
}

// randomGroup makes rules whose results have all their labels fixed, so that
// the naive twin knows what is sure.
func randomGroup(t *testing.T, rng *rand.Rand) Group {
	names := []string{"a", "b", "c"}
	pick := func() string { return names[rng.IntN(len(names))] }
	selector := func() string {
		switch rng.IntN(6) {
		case 0:
			return `{__name__=~"a|b", tier="x"}`
		case 1:
			return fmt.Sprintf(`ALERTS{alertname="%s",alertstate="firing"}`, pick())
		case 2:
			return `ALERTS{alertstate="resolved"}`
		default:
			return fmt.Sprintf(`%s{tier=~"%s"}`, pick(), []string{"x", "y", "x|y", ".*"}[rng.IntN(4)])
		}
	}
	var g Group
	for range 1 + rng.IntN(7) {
		kind := []string{"", "", "alert "}[rng.IntN(3)]
		tier := []string{"x", "y"}[rng.IntN(2)]
		g.Rules = append(g.Rules, ruleOf(t, fmt.Sprintf(`%s%s{tier="%s"} := sum(%s) + %s`, kind, pick(), tier, selector(), selector())))
	}
	return g
}
