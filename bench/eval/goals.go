package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// maxEvaluatorMemory is what an evaluator of manyRules rules may need, in
// bytes.
const (
	maxEvaluatorMemory = 200 << 20
	manyRules          = 10_000
)

// goals compares with what Tocsin is meant to cost, as far as it was measured.
func (r *run) goals(w io.Writer) {
	fmt.Fprint(w, "\n## Goals\n\nIn brackets the number of backends. What is compared is per rule and slot.\n\n| compared | measured | goal | met |\n|---|---|---|---|\n")
	for _, n := range r.backends {
		for _, g := range goalsOn(n) {
			g.judge(w, r.measurements)
		}
	}
	for _, m := range r.measurements {
		if m.kind == worker.Native && m.rules >= manyRules {
			fmt.Fprintf(w, "| memory of the evaluator, %d rules (%d) | %d MiB | %d MiB | %s |\n",
				m.rules, m.backends, m.evaluator.Peak>>20, maxEvaluatorMemory>>20, yesIf(m.evaluator.Peak <= maxEvaluatorMemory))
		}
	}
}

// side is a measurement that is part of a comparison.
type side struct {
	scenario    string
	kind, store worker.Kind
	backends    int
}

func (s side) find(all []measurement) (measurement, bool) {
	i := slices.IndexFunc(all, func(m measurement) bool {
		return side{m.scenario, m.kind, m.store, m.backends} == s
	})
	if i < 0 {
		return measurement{}, false
	}
	return all[i], true
}

// goal is how many times less something should be than something else, per
// rule.
type goal struct {
	what        string
	ours, other side
	of          func(cost) float64
	times       float64
}

func (g goal) judge(w io.Writer, all []measurement) {
	ours, found := g.ours.find(all)
	other, both := g.other.find(all)
	if !found || !both {
		return
	}
	times := g.of(costOf(other)) / g.of(costOf(ours))
	fmt.Fprintf(w, "| %s | %s | %s | %s |\n", g.what, fraction(times), fraction(g.times), yesIf(times >= g.times))
}

// fraction is 1/10 for ten times less, and 1.25 for 0.8 times.
func fraction(times float64) string {
	if times >= 1.5 {
		return fmt.Sprintf("1/%.1f", times)
	}
	return fmt.Sprintf("%.2f", 1/times)
}

func yesIf(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

func (c cost) wire() float64 { return c.up + c.down }

// goalsOn are those for a number of backends.
func goalsOn(n int) []goal {
	on := func(scenario string, kind worker.Kind) side { return side{scenario, kind, worker.Backend, n} }
	plain := func(scenario string, kind worker.Kind) side { return side{scenario, kind, worker.Prometheus, 1} }
	inProcess := side{scenario: scenarioRules, kind: worker.Manager}
	native, http := on(scenarioRules, worker.Native), on(scenarioRules, worker.HTTP)
	perRule, perRulePlain := plain(scenarioRules, worker.PerRule), plain(scenarioRules, worker.PerRulePlain)
	goals := []goal{
		{"CPU, native to one query per rule", native, perRule, cost.cpu, 10},
		{"CPU, native to the manager in-process", native, inProcess, cost.cpu, 5},
		{"CPU, HTTP to one query per rule", http, perRule, cost.cpu, 3},
		{"CPU, one pack in 50 tenants to 50 times one tenant", on(scenarioTenants, worker.Native), on(scenarioOneTenant, worker.Native), cost.cpu, 20},
		{"CPU, rules about the whole fleet to one Prometheus that holds all", on(scenarioGlobal, worker.Native), plain(scenarioGlobal, worker.PerRulePlain), cost.cpu, 1 / 1.1},
		{"CPU per rule, ten times the rules over the same selectors", on(scenarioMany, worker.Native), on(scenarioFew, worker.Native), cost.cpu, 10. / 4},
		{"bytes, native to one query per rule without gzip", native, perRulePlain, cost.wire, 10},
		{"bytes, native to one query per rule with gzip", native, perRule, cost.wire, 10},
		{"bytes, native to remote read, aggregating rules", on(scenarioAggregating, worker.Native), on(scenarioAggregating, worker.RemoteRead), cost.wire, 200},
	}
	for i := range goals {
		goals[i].what += fmt.Sprintf(" (%d)", n)
	}
	return goals
}
