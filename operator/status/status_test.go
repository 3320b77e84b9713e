package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

func target(instance, health string) Target {
	return Target{Labels: map[string]string{"instance": instance}, Health: health, LastScrapeDurationSeconds: "0.01"}
}

// Seven targets on nine nodes, six of which fail alike, and a tenth node whose
// collector does not answer.
func TestTargetsOfAllNodesAreOneEndpoint(t *testing.T) {
	t.Parallel()
	const pool = "PodMonitoring/shop/api/web"
	all := NewTargets()
	for i := range 6 {
		all.Add(Summary{Pools: []Pool{{
			Name: pool, Active: 1, Unhealthy: 1, Dropped: []Dropped{{Reason: "no such port", Count: 2}},
			Groups: []TargetGroup{{LastError: "timeout", Count: 1, Targets: []Target{target(fmt.Sprintf("api-%d:web", 9-i), "down")}}},
		}}})
	}
	all.Add(Summary{Pools: []Pool{{Name: pool, Active: 1, Dropped: []Dropped{{Reason: "not selected", Count: 5}}, Groups: []TargetGroup{{Count: 1, Targets: []Target{target("api-1:web", "up")}}}}}})
	all.Add(Summary{Pools: []Pool{{Name: pool}, {Name: "kubelet/metrics", Active: 1}, {Name: "odd"}, {Name: "PodMonitoring/short"}}})
	all.Add(Summary{ConfigErrors: []ConfigError{{Pool: "ClusterNodeMonitoring/x/a/b/c", Error: "no"}}})
	all.Fail()

	got := all.ByResource(now)
	require.Len(t, got, 2, "pools of no resource are left out, and hold up nothing")
	require.Equal(t, "no", got["ClusterNodeMonitoring/x"][0].ConfigurationError)
	require.Equal(t, "ClusterNodeMonitoring/x/a/b/c", got["ClusterNodeMonitoring/x"][0].Name)
	s := got["PodMonitoring/shop/api"]
	require.Len(t, s, 1)
	require.Equal(t, pool, s[0].Name)
	require.EqualValues(t, 7, s[0].ActiveTargets)
	require.EqualValues(t, 6, s[0].UnhealthyTargets)
	require.Equal(t, "0.9", s[0].CollectorsFraction)
	require.Equal(t, "no such port", s[0].DroppedTargets[0].Reason)
	require.EqualValues(t, 12, s[0].DroppedTargets[0].Count)
	require.Len(t, s[0].SampleGroups, 2)
	failed, healthy := s[0].SampleGroups[0], s[0].SampleGroups[1]
	require.EqualValues(t, 6, *failed.Count)
	require.Len(t, failed.SampleTargets, 5)
	require.Equal(t, "api-4:web", failed.SampleTargets[0].Labels["instance"], "sorted, whoever answered first")
	require.Equal(t, "timeout", *failed.SampleTargets[0].LastError)
	require.Nil(t, healthy.SampleTargets[0].LastError)
}

func TestStatusesAreBounded(t *testing.T) {
	t.Parallel()
	all := NewTargets()
	for i := range 1000 {
		text := fmt.Sprintf("error %04d", i)
		all.Add(Summary{Pools: []Pool{{
			Name: "PodMonitoring/a/b/c", Active: 2, Unhealthy: 1, Dropped: []Dropped{{Reason: text, Count: 1}},
			Groups: []TargetGroup{{LastError: text + strings.Repeat("x", 5000), Count: 1}, {Count: 1}},
		}}})
	}
	s := all.ByResource(now)["PodMonitoring/a/b"][0]
	require.Len(t, s.SampleGroups, maxGroups)
	require.EqualValues(t, 1000, *s.SampleGroups[maxGroups-1].Count, "the healthy ones are never left out")
	require.Len(t, s.DroppedTargets, maxReasons)
	require.LessOrEqual(t, len(shortened(strings.Repeat("é", 5000))), maxTextBytes+3)
}

func TestTimesAreNoNews(t *testing.T) {
	t.Parallel()
	status := func(took, health string) *Targets {
		all := NewTargets()
		tg := target("a", health)
		tg.LastScrapeDurationSeconds = took
		all.Add(Summary{Pools: []Pool{{Name: "PodMonitoring/a/b/c", Active: 1, Groups: []TargetGroup{{Count: 1, Targets: []Target{tg}}}}}})
		return all
	}
	first := status("1", "up").ByResource(now)["PodMonitoring/a/b"]
	later := metav1.NewTime(now.Add(time.Hour))
	require.True(t, SameTargets(first, status("2", "up").ByResource(later)["PodMonitoring/a/b"]))
	require.False(t, SameTargets(first, status("1", "unknown").ByResource(now)["PodMonitoring/a/b"]))
	require.False(t, SameTargets(first, nil))
	require.True(t, SameTargets(nil, nil))
}

func groupOf(name string, at time.Time, failed int) RuleGroup {
	g := RuleGroup{Name: name, File: "configmap:gmp-system/rules-generated-3/rules__shop__slo.yaml", Owner: "member-1", LastEvaluation: at}
	for i := range 10 {
		r := Rule{Name: fmt.Sprintf("r%d", i), Health: "ok"}
		if i < failed {
			r.Health, r.LastError = "err", "no data"
		}
		g.Rules = append(g.Rules, r)
	}
	return g
}

func TestRulesOfAResource(t *testing.T) {
	t.Parallel()
	all := NewRules()
	all.Add(groupOf("b", now.Time, 0))
	all.Add(groupOf("z", now.Time, 7))
	all.Add(groupOf("a", time.Time{}, 0))
	s := all.ByFile()["rules__shop__slo.yaml"]
	require.EqualValues(t, 30, s.ActiveRules)
	require.EqualValues(t, 7, s.FailingRules)
	names := []string{}
	for _, g := range s.GroupStatuses {
		names = append(names, g.Name)
	}
	require.Equal(t, []string{"z", "a", "b"}, names, "those that fail come first")
	require.Len(t, s.GroupStatuses[0].SampleRules, maxSamples)
	require.Equal(t, "member-1", s.GroupStatuses[0].Owner)
	require.Nil(t, s.GroupStatuses[1].LastEvaluationTime)

	for i := range 100 {
		all.Add(groupOf(fmt.Sprintf("more-%d", i), now.Time, 0))
	}
	s = all.ByFile()["rules__shop__slo.yaml"]
	require.Len(t, s.GroupStatuses, maxRuleGroups)
	require.EqualValues(t, 1030, s.ActiveRules)
}

func TestEvaluationTimesAreNewsAfterAWhile(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration, failed int) *Rules {
		all := NewRules()
		all.Add(groupOf("g", now.Add(d), failed))
		return all
	}
	file := "rules__shop__slo.yaml"
	before := at(0, 0).ByFile()[file]
	require.True(t, SameRules(before, at(time.Minute, 0).ByFile()[file]))
	require.False(t, SameRules(before, at(time.Minute, 1).ByFile()[file]))
	require.False(t, SameRules(before, at(freshness, 0).ByFile()[file]))
}
