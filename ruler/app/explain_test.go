package app

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/explain"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

func backendsFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backends.yml")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func TestAListOfBackendsIsEnoughToPlan(t *testing.T) {
	t.Parallel()
	cfg, err := LoadBackends(backendsFile(t, `
- name: east
  partition_labels: {cluster: east}
- name: west
  partition_labels: {cluster: west}
  virtual: true
- name: global
  partition_labels: {cluster: ""}
`))
	require.NoError(t, err)
	groups, errs := rule.Parse("r.yml", []byte(`
apiVersion: monitoring.googleapis.com/v1
kind: ClusterRules
metadata: {name: c}
spec:
  groups:
  - name: g
    rules:
    - {record: one, expr: sum(x)}
    - {record: two, expr: one * 2}
    - {alert: Three, expr: x > 3}
`), cfg.RuleOptions())
	require.Empty(t, errs)
	require.Len(t, groups, 2, "one for each cluster")
	report := explain.Explain(cfg, time.Unix(0, 0), ExplainedRules(groups))
	require.False(t, report.Failed())
	require.Equal(t, []int{1, 2, 1}, []int{report.Rules[0].Stage, report.Rules[1].Stage, report.Rules[2].Stage})
	require.Equal(t, "alerting", report.Rules[2].Type)
	require.Contains(t, report.String(), `east: sum(x{cluster="east"})`)
	require.Contains(t, report.String(), "west: sum(x)\n", "a virtual backend is asked without its partition labels")
}

func TestRulesThatReadLateWritesOfTheirGroupAreTold(t *testing.T) {
	t.Parallel()
	cfg, err := LoadBackends(backendsFile(t, "- {name: east, partition_labels: {cluster: east}, read_delay: 15s}\n- {name: west, partition_labels: {cluster: west}}"))
	require.NoError(t, err)
	groups, errs := rule.Parse("r.yml", []byte(`
groups:
- name: g
  rules:
  - {record: one, expr: sum by (cluster) (x)}
  - {record: two, expr: 'one{cluster="east"} * 2'}
  - {record: three, expr: 'one{cluster="west"} * 2'}
  - {record: four, expr: one or four offset 1m}
  - {record: five, expr: 'y'}
`), cfg.RuleOptions())
	require.Empty(t, errs)
	report := explain.Explain(cfg, time.Unix(0, 0), ExplainedRules(groups))
	want := []*explain.Overlay{
		nil,
		{Rules: []string{"one"}, Backends: []string{"east"}},
		nil,
		{Rules: []string{"one", "four"}, Backends: []string{"east"}},
		nil,
	}
	for i, r := range report.Rules {
		require.Equal(t, want[i], r.Overlay, r.Name)
	}
}

func TestFaultsOfAListOfBackends(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"- nme: x":                             "field nme not found",
		"[]":                                   "no backend is configured",
		"- name: a\n- name: a":                 `two backends are named "a"`,
		"name: a":                              "cannot unmarshal",
		"- {name: a, partition_labels: [x=y]}": "cannot unmarshal",
	} {
		file := backendsFile(t, content)
		_, err := LoadBackends(file)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, file)
	}
	_, err := LoadBackends(filepath.Join(t.TempDir(), "missing.yml"))
	require.ErrorContains(t, err, "read backends: ")
}

func TestGroupsShareOnlyWithGroupsOfTheirSlots(t *testing.T) {
	t.Parallel()
	rules := []rule.Rule{{Record: "r", Expr: &parser.NumberLiteral{Val: 1}}}
	explained := ExplainedRules([]rule.Group{
		{Key: "a", Interval: time.Second, Rules: rules},
		{Key: "b", Interval: time.Second, Rules: rules},
		{Key: "c", Interval: time.Second, QueryOffset: time.Minute, Rules: rules},
		{Key: "d", Interval: time.Minute, Rules: rules},
	})
	require.Equal(t, explained[0].Batch, explained[1].Batch)
	require.NotEqual(t, explained[0].Batch, explained[2].Batch)
	require.NotEqual(t, explained[0].Batch, explained[3].Batch)
}
