package evaluator_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// rulePacks is where real rule packs are: beside the repository.
func rulePacks(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	require.True(t, ok)
	dir := filepath.Join(filepath.Dir(file), "..", "..", "shared", "rules")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no rule packs: %s", err)
	}
	return dir
}

// packExpressions are the distinct expressions of all packs, by pack.
func packExpressions(t testing.TB) map[string][]string {
	t.Helper()
	packs := map[string][]string{}
	root := rulePacks(t)
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		pack, _, _ := strings.Cut(rel, string(filepath.Separator))
		packs[pack] = append(packs[pack], fileExpressions(t, path)...)
		return nil
	}))
	for pack, exprs := range packs {
		slices.Sort(exprs)
		packs[pack] = slices.Compact(exprs)
	}
	return packs
}

// fileExpressions reads a rule file or a PrometheusRule, and skips what is
// neither.
func fileExpressions(t testing.TB, path string) (exprs []string) {
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	var file struct {
		Groups []rulefmt.RuleGroup `yaml:"groups"`
		Spec   struct {
			Groups []rulefmt.RuleGroup `yaml:"groups"`
		} `yaml:"spec"`
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Logf("skip %s: %s", path, err)
		return nil
	}
	for _, g := range append(file.Groups, file.Spec.Groups...) {
		for _, r := range g.Rules {
			if _, err := parser.ParseExpr(r.Expr); err == nil {
				exprs = append(exprs, strings.TrimSpace(r.Expr))
			}
		}
	}
	return exprs
}

// vocabulary is what the selectors of expressions ask for: for every metric
// the labels and values that make them match, and join.
type vocabulary map[string]map[string][]string

func (v vocabulary) add(expr parser.Expr) {
	var names []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch e := n.(type) {
		case *parser.AggregateExpr:
			names = append(names, e.Grouping...)
		case *parser.BinaryExpr:
			if e.VectorMatching != nil {
				names = append(names, e.VectorMatching.MatchingLabels...)
				names = append(names, e.VectorMatching.Include...)
			}
		}
		return nil
	})
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if vs, ok := n.(*parser.VectorSelector); ok {
			v.selector(vs, names)
		}
		return nil
	})
}

func (v vocabulary) selector(vs *parser.VectorSelector, names []string) {
	for _, metric := range metricNames(vs) {
		if v[metric] == nil {
			v[metric] = map[string][]string{"job": {"j"}, "instance": {"i0", "i1"}}
		}
		for _, n := range names {
			v.value(metric, n, "a", "b")
		}
		for _, m := range vs.LabelMatchers {
			v.value(metric, m.Name, candidates(m)...)
		}
		if strings.HasSuffix(metric, "_bucket") {
			v.value(metric, "le", "0.1", "1", "+Inf")
		}
	}
}

func metricNames(vs *parser.VectorSelector) []string {
	for _, m := range vs.LabelMatchers {
		if m.Name == labels.MetricName {
			return candidates(m)
		}
	}
	return nil
}

// candidates are some values that a matcher accepts.
func candidates(m *labels.Matcher) []string {
	guesses := append([]string{m.Value, "a", "b", "other", "1", "x1", "500", "5xx", "tmpfs"}, strings.FieldsFunc(m.Value, func(r rune) bool { return strings.ContainsRune("|()^$", r) })...)
	for _, g := range slices.Clone(guesses) {
		guesses = append(guesses, strings.NewReplacer(".*", "x", ".+", "x", "\\", "", "..", "00").Replace(g))
	}
	guesses = slices.DeleteFunc(guesses, func(g string) bool { return g == "" || !m.Matches(g) })
	slices.Sort(guesses)
	guesses = slices.Compact(guesses)
	return guesses[:min(len(guesses), 3)]
}

func (v vocabulary) value(metric, name string, values ...string) {
	if name == labels.MetricName || name == "cluster" || !model.LegacyValidation.IsValidLabelName(name) {
		return
	}
	for _, value := range values {
		if !slices.Contains(v[metric][name], value) {
			v[metric][name] = append(v[metric][name], value)
		}
	}
}

// series instantiates the vocabulary in every partition.
func (v vocabulary) series(rng *rand.Rand) []promql.Series {
	metrics := make([]string, 0, len(v))
	for m := range v {
		metrics = append(metrics, m)
	}
	slices.Sort(metrics)
	seen := map[string]bool{}
	var all []promql.Series
	for _, metric := range metrics {
		for _, p := range partitions {
			for range 3 {
				ls := v.labels(rng, metric, p.labels["cluster"])
				if !seen[ls.String()] {
					seen[ls.String()] = true
					all = append(all, promql.Series{Metric: ls, Floats: counter(rng)})
				}
			}
		}
	}
	return all
}

func (v vocabulary) labels(rng *rand.Rand, metric, cluster string) labels.Labels {
	names := make([]string, 0, len(v[metric]))
	for n := range v[metric] {
		names = append(names, n)
	}
	slices.Sort(names)
	b := labels.NewBuilder(labels.FromStrings(labels.MetricName, metric))
	for _, n := range names {
		b.Set(n, v[metric][n][rng.IntN(len(v[metric][n]))])
	}
	return b.Set("cluster", cluster).Labels()
}

// TestRulePacks evaluates every expression of real rule packs over data made
// for their selectors.
func TestRulePacks(t *testing.T) {
	t.Parallel()
	for pack, exprs := range packExpressions(t) {
		for _, m := range []mode{overVirtual, overNative} {
			t.Run(fmt.Sprintf("%s %s", pack, m), func(t *testing.T) {
				t.Parallel()
				v := vocabulary{}
				for _, e := range exprs {
					v.add(mustParse(t, e))
				}
				f := newFleet(t, m, v.series(rand.New(rand.NewPCG(7, 7))))
				require.Empty(t, strings.Join(f.compare(t, exprs, slot), "\n"))
				t.Logf("%d expressions, %d with a result", len(exprs), f.nonEmpty(t, exprs))
			})
		}
	}
}

func (f *fleet) nonEmpty(t testing.TB, exprs []string) (n int) {
	for _, e := range exprs {
		if v, err := f.expected(t, e, slot); err == nil && len(v) > 0 {
			n++
		}
	}
	return n
}

func mustParse(t testing.TB, expr string) parser.Expr {
	t.Helper()
	e, err := parser.ParseExpr(expr)
	require.NoError(t, err, expr)
	return e
}
