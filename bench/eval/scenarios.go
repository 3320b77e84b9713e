package main

import (
	"slices"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// What is evaluated.
const (
	// scenarioRules is all rules, by everyone.
	scenarioRules = "rules"
	// scenarioAggregating is those rules whose selectors are all aggregated.
	scenarioAggregating = "aggregating"
	// scenarioOneTenant and scenarioTenants are the tenants' pack for one tenant
	// and for many.
	scenarioOneTenant = "one-tenant"
	scenarioTenants   = "tenants"
	// scenarioGlobal is the rules about the whole fleet.
	scenarioGlobal = "global"
	// scenarioFew and scenarioMany are some rules, and ten times as many over the
	// same selectors.
	scenarioFew  = "few"
	scenarioMany = "many"
)

var allScenarios = []string{
	scenarioRules, scenarioAggregating, scenarioOneTenant, scenarioTenants, scenarioGlobal, scenarioFew, scenarioMany,
}

// Sizes of scenarios.
const (
	tenants = 50
	// namespaces make enough tenants in four clusters.
	namespaces = 13
	// tenantSeries is the least number of series of the fleet with many tenants.
	tenantSeries = 30_000
	// fewRules are enough to see how cost grows, and how much remote read moves.
	fewRules = 200
)

// scenario is rules, the data that they are about, and what evaluates them: the
// first one's results are what the others are compared with.
type scenario struct {
	name   string
	fleet  dataset.Fleet
	rules  []dataset.Rule
	stages []stage
}

// scenarioList is the scenarios that were asked for.
func (r *run) scenarioList() (all []scenario, err error) {
	fleet := dataset.Fleet{Seed: r.seed, Series: r.series}
	small := dataset.Fleet{Seed: r.seed, Series: min(r.series, tenantSeries), Namespaces: namespaces}
	add := func(name string, f dataset.Fleet, stages []stage, rules func() ([]dataset.Rule, error)) {
		if err != nil || !slices.Contains(r.scenarios, name) {
			return
		}
		s := scenario{name: name, fleet: f, stages: stages}
		s.rules, err = rules()
		all = append(all, s)
	}
	few := func() ([]dataset.Rule, error) { return fleet.Rules(min(r.rules, fewRules)) }
	add(scenarioRules, fleet, r.everyone(), func() ([]dataset.Rule, error) { return fleet.Rules(r.rules) })
	add(scenarioAggregating, fleet, r.tocsin(worker.Native, worker.RemoteRead), func() ([]dataset.Rule, error) {
		rules, err := few()
		if err != nil {
			return nil, err
		}
		return dataset.Aggregating(rules)
	})
	add(scenarioOneTenant, small, r.tocsin(worker.Native), func() ([]dataset.Rule, error) { return small.Packs(1) })
	add(scenarioTenants, small, r.tocsin(worker.Native), func() ([]dataset.Rule, error) { return small.Packs(tenants) })
	add(scenarioGlobal, fleet, append([]stage{prometheus(worker.PerRulePlain)}, r.tocsin(worker.Native)[1:]...), fleet.Global)
	add(scenarioFew, fleet, r.tocsin(worker.Native), few)
	add(scenarioMany, fleet, r.tocsin(worker.Native), func() ([]dataset.Rule, error) {
		rules, err := few()
		return dataset.Repeated(rules, 10), err
	})
	return all, err
}

func prometheus(kinds ...worker.Kind) stage {
	return stage{store: worker.Prometheus, backends: 1, kinds: kinds}
}

// manager says what is right.
var manager = stage{kinds: []worker.Kind{worker.Manager}}

// everyone is all that is compared.
func (r *run) everyone() []stage {
	all := []stage{manager, prometheus(worker.PerRule, worker.PerRulePlain, worker.RemoteRead)}
	for _, n := range r.backends {
		kinds := []worker.Kind{worker.Native, worker.NativeOffsets, worker.HTTP, worker.RemoteRead}
		if n == 1 {
			kinds = append(kinds, worker.PerRule)
		}
		all = append(all, stage{store: worker.Backend, backends: n, kinds: kinds})
	}
	return all
}

// tocsin is the manager and kinds that ask Tocsin's stores.
func (r *run) tocsin(kinds ...worker.Kind) []stage {
	all := []stage{manager}
	for _, n := range r.backends {
		all = append(all, stage{store: worker.Backend, backends: n, kinds: kinds})
	}
	return all
}
