// Package cli turns command lines into the options of processes and runs
// them: the tocsin program with its sub-commands, and the programs that are
// one of these on their own, but for those that link less than all of it.
//
// It decides nothing about what a process does and holds no state between
// runs. "rules check" and "migrate" have an exit status of their own in addition
// to those of all commands. Functions block until the command ends and are
// called from main only.
package cli

import (
	"context"

	"github.com/tocsin-rules/tocsin/cmd/internal/collector"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

// Tocsin runs the tocsin program and returns its exit status.
func Tocsin(args []string, s command.Streams) int {
	p := command.New("tocsin", "Evaluates Prometheus recording and alerting rules for a fleet of clusters.", s)
	addUp(p)
	for _, c := range []struct {
		name, help string
		flags      func(command.Flagger) command.Process
	}{
		{"backend", "Run an embedded store: remote write in, queries and pushdown out.", backendFlags},
		{"collector", "Run a collector: scrapes targets and writes to a backend.", collector.Flags},
		{"rule-evaluator", "Run a member of a cluster of rule evaluators.", ruleEvaluatorFlags},
		{"alertmanager", "Run an Alertmanager.", alertmanagerFlags},
	} {
		p.Add(c.name, c.flags(p.App.Command(c.name, c.help)))
	}
	rules := p.App.Command("rules", "Work with rules.")
	check := AddCheck(rules)
	p.Commands["rules check"] = func(context.Context) int { return check() }
	addUnitTest(p, rules)
	addBackfill(p, rules)
	addExplain(p, rules)
	addMigrate(p)
	addCluster(p)
	return p.Run(args)
}

// RuleEvaluator runs the rule-evaluator program and returns its exit status.
func RuleEvaluator(args []string, s command.Streams) int {
	p := command.New("rule-evaluator", "A member of a cluster of rule evaluators.", s)
	p.Add("", ruleEvaluatorFlags(p.App))
	return p.Run(args)
}
