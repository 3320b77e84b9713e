package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// measured is a run of two rules and two slots.
func measured() *run {
	return &run{
		options: options{backends: []int{1}},
		measurements: []measurement{
			{scenario: scenarioRules, rules: 2, kind: worker.Manager, slots: 2, evaluator: worker.Usage{CPU: 400 * time.Microsecond}},
			{scenario: scenarioRules, rules: 2, kind: worker.PerRule, store: worker.Prometheus, backends: 1, slots: 2, evaluator: worker.Usage{CPU: 100 * time.Microsecond}, stores: worker.Usage{CPU: 700 * time.Microsecond}, up: 40, down: 160},
			{scenario: scenarioRules, rules: 2, kind: worker.PerRulePlain, store: worker.Prometheus, backends: 1, slots: 2, up: 40, down: 360},
			{scenario: scenarioRules, rules: 2, kind: worker.Native, store: worker.Backend, backends: 1, slots: 2, stores: worker.Usage{CPU: 80 * time.Microsecond}, up: 10, down: 10},
			{scenario: scenarioRules, rules: 2, kind: worker.HTTP, store: worker.Backend, backends: 1, slots: 2, stores: worker.Usage{CPU: 400 * time.Microsecond}},
			{scenario: scenarioGlobal, rules: 2, kind: worker.PerRulePlain, store: worker.Prometheus, backends: 1, slots: 2, stores: worker.Usage{CPU: 4 * time.Second}},
			{scenario: scenarioGlobal, rules: 10_000, kind: worker.Native, store: worker.Backend, backends: 1, slots: 2, stores: worker.Usage{CPU: 10_000 * time.Second}, evaluator: worker.Usage{Peak: 201 << 20}},
		},
	}
}

func TestCostsAreThoseOfOneEvaluation(t *testing.T) {
	t.Parallel()
	r := measured()
	c := costOf(r.measurements[1])
	require.Equal(t, cost{evaluator: 25, stores: 175, up: 10, down: 40}, c)
	require.Equal(t, 200.0, c.cpu())
}

func TestGoalsAreJudged(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	measured().goals(&b)
	for _, line := range []string{
		"| CPU, native to one query per rule (1) | 1/10.0 | 1/10.0 | yes |",
		"| CPU, native to the manager in-process (1) | 1/5.0 | 1/5.0 | yes |",
		"| CPU, HTTP to one query per rule (1) | 1/2.0 | 1/3.0 | no |",
		"| bytes, native to one query per rule without gzip (1) | 1/20.0 | 1/10.0 | yes |",
		"| bytes, native to one query per rule with gzip (1) | 1/10.0 | 1/10.0 | yes |",
		"| CPU, rules about the whole fleet to one Prometheus that holds all (1) | 1/2.0 | 1.10 | yes |",
		"| memory of the evaluator, 10000 rules (1) | 201 MiB | 200 MiB | no |",
	} {
		require.Contains(t, b.String(), line)
	}
	require.NotContains(t, b.String(), "50 tenants", "was not measured")
}

func TestPercentilesAreTheNearestRank(t *testing.T) {
	t.Parallel()
	m := measurement{walls: []time.Duration{5, 1, 4, 2, 3}}
	require.Equal(t, []time.Duration{3, 5, 5, 1}, []time.Duration{m.percentile(50), m.percentile(90), m.percentile(100), m.percentile(0)})
}

func TestTheChartIsWellFormed(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	measured().chart(&b)
	d := xml.NewDecoder(&b)
	var text []string
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if c, ok := token.(xml.CharData); ok {
			text = append(text, string(c))
		}
	}
	require.Contains(t, text, "Tocsin, native, 1 backend")
	require.Contains(t, text, "Prometheus' rule manager, in-process")
}
