package alert_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// manyAlerts is the number of alerts of one rule in the benchmarks.
const manyAlerts = 10_000

func manyRule() alert.Rule {
	return alert.Rule{
		Name: "KubePodNotReady", Interval: 30 * time.Second, ResendDelay: time.Minute,
		Labels: labels.FromStrings("severity", "warning", "team", "{{ $labels.namespace }}"),
		Annotations: labels.FromStrings(
			"summary", "Pod {{ $labels.namespace }}/{{ $labels.pod }} has been in a non-ready state for longer than 15 minutes.",
			"runbook_url", "https://runbooks.example/kubepodnotready"),
	}
}

func manySamples(n int) promql.Vector {
	vector := make(promql.Vector, n)
	for i := range vector {
		vector[i] = promql.Sample{F: 1, Metric: labels.FromStrings("__name__", "kube_pod_status_ready", "cluster", "east-1", "instance", "10.0.0.1:8443",
			"job", "kube-state-metrics", "namespace", fmt.Sprintf("shop-%03d", i%500), "pod", fmt.Sprintf("checkout-%05d-7d9f8b6c5d-x2x%02d", i, i%100))}
	}
	return vector
}

func manyState(tb testing.TB) alert.State {
	tb.Helper()
	result, err := alert.Step(manyRule(), alert.State{}, base, manySamples(manyAlerts), expander("KubePodNotReady", base))
	require.NoError(tb, err)
	_, state := alert.ToSend(manyRule(), result.State, base)
	return state
}

func BenchmarkStep(b *testing.B) {
	rule, state, vector := manyRule(), manyState(b), manySamples(manyAlerts)
	expand := expander(rule.Name, base)
	b.ReportAllocs()
	for b.Loop() {
		result, err := alert.Step(rule, state, base.Add(time.Minute), vector, expand)
		require.NoError(b, err)
		alert.ToSend(rule, result.State, base.Add(time.Minute))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyAlerts, "ns/alert")
}

func BenchmarkEncode(b *testing.B) {
	state := manyState(b)
	b.ReportAllocs()
	var size int
	for b.Loop() {
		encoded, err := json.Marshal(state)
		require.NoError(b, err)
		size = len(encoded)
	}
	b.ReportMetric(float64(size)/manyAlerts, "B/alert")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyAlerts, "ns/alert")
}

func BenchmarkDecode(b *testing.B) {
	encoded, err := json.Marshal(manyState(b))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		var state alert.State
		require.NoError(b, json.Unmarshal(encoded, &state))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyAlerts, "ns/alert")
}
