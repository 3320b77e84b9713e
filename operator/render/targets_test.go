package render

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v2"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// TestTargets runs the scripts in testdata/targets, which show what the rules
// make of what is discovered: input is a resource and, after the line "of",
// what service discovery found, one target a line, without the prefix that all
// its labels have.
func TestTargets(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/targets", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			manifest, found, _ := strings.Cut(d.Input, "\nof\n")
			settings := testSettings()
			settings.ProjectID, settings.Location = "", ""
			piece, err, ok := pieceOf(New(settings, nil), manifests(t, manifest)[0])
			require.True(t, ok)
			require.NoError(t, err)
			var out strings.Builder
			for _, line := range strings.Split(found, "\n") {
				targetText(t, &out, piece, discovered(line))
			}
			return out.String()
		})
	})
}

func discovered(line string) labels.Labels {
	found := map[string]string{}
	for _, field := range strings.Fields(line) {
		name, value, _ := strings.Cut(field, "=")
		if name == "address" {
			found["__address__"] = value
		} else {
			found["__meta_kubernetes_"+name] = value
		}
	}
	return labels.FromMap(found)
}

// targetText has a line for each job that has the target.
func targetText(t *testing.T, out *strings.Builder, piece Piece, found labels.Labels) {
	cfg, err := config.Load(scrapeHeader+string(piece.Text), nil)
	require.NoError(t, err)
	kept := false
	for _, job := range cfg.ScrapeConfigs {
		target, keep := relabel.Process(found, job.RelabelConfigs...)
		if !keep {
			continue
		}
		kept = true
		b := labels.NewBuilder(target)
		target.Range(func(l labels.Label) {
			if strings.HasPrefix(l.Name, "__") {
				b.Del(l.Name)
			}
		})
		fmt.Fprintf(out, "%s%s %s\n", target.Get("__address__"), job.MetricsPath, b.Labels())
	}
	if !kept {
		fmt.Fprintln(out, "no target")
	}
}

// TestFilterKeepsWhatSelectorsSelect compares the rules of a filter with the
// selectors on random series.
func TestFilterKeepsWhatSelectorsSelect(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kept := 0
	for range 2000 {
		f := v1.ExportFilters{MatchOneOf: randomSelectors(random)}
		rules, err := filter(f)
		require.NoError(t, err)
		for _, r := range rules {
			require.NoError(t, prometheusTakes(*r))
		}
		series := labels.FromStrings("__name__", pick(random, "up", "go_info"), "a", pick(random, "", "1", "1;", "a.b"), "b", pick(random, "", "1", "axb"))
		want := false
		for _, text := range f.MatchOneOf {
			matchers, err := parser.ParseMetricSelector(text)
			require.NoError(t, err)
			want = want || labels.Selector(matchers).Matches(series)
		}
		got, keep := relabel.Process(series.WithoutEmpty(), loaded(t, rules)...)
		require.Equal(t, want, keep, "%v of %s", f.MatchOneOf, series)
		if keep {
			kept++
			require.Equal(t, series.WithoutEmpty(), got)
		}
	}
	require.Greater(t, kept, 100)
}

// loaded are the rules as a collector reads them.
func loaded(t *testing.T, rules []*relabel.Config) []*relabel.Config {
	r := New(Settings{}, &v1.OperatorConfig{Exports: []v1.ExportSpec{{URL: "http://a"}}})
	writes, err := r.remoteWrites(&credentials{})
	require.NoError(t, err)
	writes[0].WriteRelabelConfigs = rules
	text, err := yaml.Marshal(collectorFile{RemoteWrite: writes})
	require.NoError(t, err)
	cfg, err := config.Load(string(text), nil)
	require.NoError(t, err)
	return cfg.RemoteWriteConfigs[0].WriteRelabelConfigs
}

func pick(random *rand.Rand, from ...string) string { return from[random.IntN(len(from))] }

func randomSelectors(random *rand.Rand) []string {
	var out []string
	for range 1 + random.IntN(3) {
		s := fmt.Sprintf("{__name__%s%q", pick(random, "=", "=~"), pick(random, "up", "go_.*", ".+"))
		for range random.IntN(3) {
			s += fmt.Sprintf(",%s%s%q", pick(random, "a", "b"), pick(random, "=", "!=", "=~", "!~"), pick(random, "", "1", "a.b", ".*", "1;?", "(1|a)"))
		}
		out = append(out, s+"}")
	}
	return out
}
