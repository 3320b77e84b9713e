package deploy

import (
	"io/fs"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// groups returns the rule set as it is for two clusters.
func groups(t *testing.T) []rule.Group {
	opts := rule.Options{
		Scope:    plan.Scope,
		Clusters: []labels.Labels{labels.FromStrings("cluster", "east"), labels.FromStrings("cluster", "west")},
	}
	var set rule.Set
	err := fs.WalkDir(Rules, "rules", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := Rules.ReadFile(name)
		require.NoError(t, err)
		parsed, errs := rule.Parse(strings.TrimPrefix(name, "rules/"), content, opts)
		require.Empty(t, errs)
		return set.Add(path.Base(name), parsed)
	})
	require.NoError(t, err)
	require.NotEmpty(t, set.Groups())
	return set.Groups()
}

func TestRulesFollowTheirOwnConventions(t *testing.T) {
	t.Parallel()
	all := groups(t)
	require.Empty(t, rule.Duplicates(all))
	scoped := map[string]bool{}
	for _, g := range all {
		require.GreaterOrEqual(t, g.Interval, 5*time.Second, g.Key)
		require.LessOrEqual(t, g.Interval, 15*time.Second, g.Key)
		for _, r := range g.Rules {
			if r.Alert == "" {
				was, seen := scoped[r.Record]
				require.True(t, !seen || was == !g.Scope.IsEmpty(), "%s is recorded per cluster and globally", r.Record)
				scoped[r.Record] = !g.Scope.IsEmpty()
				continue
			}
			require.Contains(t, []string{"warning", "critical"}, r.Labels.Get("severity"), r.Alert)
			for _, annotation := range []string{"summary", "description", "runbook"} {
				require.NotEmpty(t, r.Annotations.Get(annotation), "%s has no %s", r.Alert, annotation)
			}
		}
	}
}

// healthy is what a fleet of two clusters looks like when nothing is wrong, for
// the five minutes before the rules are evaluated; faulty is what is different
// when everything is. In both, "CLUSTER" stands for each cluster.
const (
	healthy = `
up{cluster="CLUSTER",job="node",instance="n"} 1x60
up{cluster="CLUSTER",job="rule-evaluator",instance="m"} 1x60
up{cluster="CLUSTER",job="alertmanager",instance="a"} 1x60
scrape_samples_post_metric_relabeling{cluster="CLUSTER",job="node",instance="n"} 100x60
scrape_duration_seconds{cluster="CLUSTER",job="node",instance="n"} 0.1x60
process_cpu_seconds_total{cluster="CLUSTER",job="backend",instance="b"} 0+1x60
process_resident_memory_bytes{cluster="CLUSTER",job="backend",instance="b"} 1000x60
go_goroutines{cluster="CLUSTER",job="backend",instance="b"} 50x60
node_cpu_seconds_total{cluster="CLUSTER",job="node",instance="n",cpu="0",mode="idle"} 0+4x60
node_memory_MemAvailable_bytes{cluster="CLUSTER",job="node",instance="n"} 600x60
node_memory_MemTotal_bytes{cluster="CLUSTER",job="node",instance="n"} 1000x60
prometheus_tsdb_head_series{cluster="CLUSTER",job="backend",instance="b"} 1000x60
prometheus_tsdb_head_samples_appended_total{cluster="CLUSTER",job="backend",instance="b",type="float"} 0+500x60
prometheus_remote_storage_samples_total{cluster="CLUSTER",job="collector",instance="c",url="u"} 0+500x60
prometheus_remote_storage_samples_failed_total{cluster="CLUSTER",job="collector",instance="c",url="u"} 0x60
prometheus_remote_storage_samples_retried_total{cluster="CLUSTER",job="collector",instance="c",url="u"} 0x60
prometheus_remote_storage_samples_pending{cluster="CLUSTER",job="collector",instance="c",url="u"} 10x60
prometheus_remote_storage_queue_highest_timestamp_seconds{cluster="CLUSTER",job="collector",instance="c",url="u"} 10+5x60
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{cluster="CLUSTER",job="collector",instance="c",url="u"} 5+5x60
prometheus_rule_evaluations_total{cluster="CLUSTER",job="rule-evaluator",instance="m",rule_group="g"} 0+10x60
prometheus_rule_evaluation_failures_total{cluster="CLUSTER",job="rule-evaluator",instance="m",rule_group="g"} 0x60
prometheus_rule_evaluation_duration_seconds{cluster="CLUSTER",job="rule-evaluator",instance="m",quantile="0.99"} 0.01x60
prometheus_rule_group_iterations_missed_total{cluster="CLUSTER",job="rule-evaluator",instance="m",rule_group="g"} 0x60
prometheus_rule_group_last_duration_seconds{cluster="CLUSTER",job="rule-evaluator",instance="m",rule_group="g"} 0.1x60
prometheus_rule_group_interval_seconds{cluster="CLUSTER",job="rule-evaluator",instance="m",rule_group="g"} 5x60
prometheus_notifications_dropped_total{cluster="CLUSTER",job="rule-evaluator",instance="m",alertmanager="a"} 0x60
tocsin_ruler_groups{cluster="CLUSTER",job="rule-evaluator",instance="m"} 3x60
tocsin_cluster_clock_skew_seconds{cluster="CLUSTER",job="rule-evaluator",instance="m"} 0.01x60
tocsin_ruler_rejected_samples_total{cluster="CLUSTER",job="rule-evaluator",instance="m"} 0x60
alertmanager_notifications_total{cluster="CLUSTER",job="alertmanager",instance="a",integration="webhook"} 0+1x60
ALERTS{cluster="CLUSTER",alertname="X",severity="warning",alertstate="firing"} 1x60
`
	faulty = `
up{cluster="west",job="node",instance="n"} 0x60
up{cluster="west",job="rule-evaluator",instance="m"} 0x60
up{cluster="west",job="alertmanager",instance="a"} 0x60
prometheus_remote_storage_samples_failed_total{cluster="west",job="collector",instance="c",url="u"} 0x60
prometheus_remote_storage_samples_retried_total{cluster="west",job="collector",instance="c",url="u"} 0+5x60
prometheus_remote_storage_queue_highest_timestamp_seconds{cluster="west",job="collector",instance="c",url="u"} 10+5x60
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{cluster="west",job="collector",instance="c",url="u"} 5x60
prometheus_rule_evaluations_total{cluster="west",job="rule-evaluator",instance="m",rule_group="g"} 0+10x60
prometheus_rule_evaluation_failures_total{cluster="west",job="rule-evaluator",instance="m",rule_group="g"} 0+5x60
prometheus_rule_group_iterations_missed_total{cluster="west",job="rule-evaluator",instance="m",rule_group="g"} 0+1x60
prometheus_rule_group_last_duration_seconds{cluster="west",job="rule-evaluator",instance="m",rule_group="g"} 7x60
prometheus_rule_group_interval_seconds{cluster="west",job="rule-evaluator",instance="m",rule_group="g"} 5x60
prometheus_notifications_dropped_total{cluster="west",job="rule-evaluator",instance="m",alertmanager="a"} 0+1x60
tocsin_ruler_rejected_samples_total{cluster="west",job="rule-evaluator",instance="m"} 0+1x60
tocsin_cluster_clock_skew_seconds{cluster="west",job="rule-evaluator",instance="m"} 2x60
`
)

func TestRecordingsHaveResultsAndNoAlertFiresWhenAllIsWell(t *testing.T) {
	t.Parallel()
	input := strings.ReplaceAll(healthy, "CLUSTER", "east") + strings.ReplaceAll(healthy, "CLUSTER", "west")
	for r, result := range evaluate(t, input) {
		if strings.HasPrefix(r, "record ") {
			require.NotEmpty(t, result, r)
		} else {
			require.Empty(t, result, r)
		}
	}
}

func TestEveryAlertFiresWhereItsFaultIs(t *testing.T) {
	t.Parallel()
	for r, result := range evaluate(t, faulty) {
		if strings.HasPrefix(r, "record ") {
			continue
		}
		// The cluster east has no series at all.
		cluster := "west"
		if strings.HasPrefix(r, "alert TocsinCollectorDown") {
			cluster = "east"
		}
		require.Len(t, result, 1, r)
		require.Equal(t, cluster, result[0].Metric.Get("cluster"), r)
	}
}

// evaluate returns what all rules give after five minutes of the series, with
// a value every 5 s, by their identity. Groups run one after the other, and so
// do their rules.
func evaluate(t *testing.T, series string) map[string]promql.Vector {
	load := "load 5s"
	for line := range strings.SplitSeq(strings.TrimSpace(series), "\n") {
		if line != "" {
			load += "\n  " + line
		}
	}
	store := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6)
	now := time.Unix(300, 0)
	results := map[string]promql.Vector{}
	for _, g := range groups(t) {
		for _, r := range g.Rules {
			vector := enforce(g.Scope, query(t, engine, store, r.Expr, now))
			results[r.Identity()] = append(results[r.Identity()], vector...)
			if r.Record != "" {
				record(t, store, r, vector, now)
			}
		}
	}
	return results
}

func query(t *testing.T, engine *promql.Engine, store *teststorage.TestStorage, expr parser.Expr, now time.Time) promql.Vector {
	q, err := engine.NewInstantQuery(t.Context(), store, nil, expr.String(), now)
	require.NoError(t, err)
	defer q.Close()
	vector, err := q.Exec(t.Context()).Vector()
	require.NoError(t, err, expr)
	// The engine takes the result back when the query is closed.
	return append(promql.Vector(nil), vector...)
}

// enforce gives all results the labels of the scope, as the ruler does.
func enforce(scope labels.Labels, vector promql.Vector) promql.Vector {
	for i := range vector {
		b := labels.NewBuilder(vector[i].Metric)
		scope.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		vector[i].Metric = b.Labels()
	}
	return vector
}

func record(t *testing.T, store *teststorage.TestStorage, r rule.Rule, vector promql.Vector, now time.Time) {
	app := store.Appender(t.Context())
	for _, s := range vector {
		series := labels.NewBuilder(s.Metric).Set(labels.MetricName, r.Record).Labels()
		_, err := app.Append(0, series, now.UnixMilli(), s.F)
		require.NoError(t, err, r)
	}
	require.NoError(t, app.Commit())
}
