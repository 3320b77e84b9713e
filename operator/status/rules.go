package status

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

const (
	// maxRuleGroups is how many groups of a resource are shown.
	maxRuleGroups = 20
	// freshness is how old a time of evaluation may be in the status of a resource
	// about which nothing else is new.
	freshness = 10 * time.Minute
)

// RuleGroup is a group as /api/v1/rules shows it.
type RuleGroup struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Owner          string    `json:"owner"`
	LastEvaluation time.Time `json:"lastEvaluation"`
	Rules          []Rule    `json:"rules"`
}

// Rule is a rule of a group.
type Rule struct {
	Name      string `json:"name"`
	Health    string `json:"health"`
	LastError string `json:"lastError"`
}

// failing is the health of a rule whose last evaluation failed.
const failing = "err"

// Rules gathers the groups of all resources.
type Rules struct{ files map[string]*v1.RulesStatus }

// NewRules returns the status before any group is known.
func NewRules() *Rules { return &Rules{files: map[string]*v1.RulesStatus{}} }

// Add adds a group.
func (r *Rules) Add(g RuleGroup) {
	file := path.Base(g.File)
	s, ok := r.files[file]
	if !ok {
		s = &v1.RulesStatus{}
		r.files[file] = s
	}
	in := groupStatus(g)
	s.ActiveRules += in.ActiveRules
	s.FailingRules += in.FailingRules
	s.GroupStatuses = append(s.GroupStatuses, in)
}

func groupStatus(g RuleGroup) v1.RuleGroupStatus {
	s := v1.RuleGroupStatus{Name: g.Name, Owner: g.Owner, ActiveRules: int64(len(g.Rules))}
	if !g.LastEvaluation.IsZero() {
		at := metav1.NewTime(g.LastEvaluation)
		s.LastEvaluationTime = &at
	}
	for _, rule := range g.Rules {
		if rule.Health != failing {
			continue
		}
		s.FailingRules++
		if len(s.SampleRules) < maxSamples {
			s.SampleRules = append(s.SampleRules, v1.SampleRule{Name: rule.Name, LastError: shortened(rule.LastError)})
		}
	}
	return s
}

// ByFile are the statuses of all resources by the name of their file, without
// what all kinds have.
func (r *Rules) ByFile() map[string]v1.RulesStatus {
	out := map[string]v1.RulesStatus{}
	for _, file := range slices.Sorted(maps.Keys(r.files)) {
		s := *r.files[file]
		slices.SortStableFunc(s.GroupStatuses, func(a, b v1.RuleGroupStatus) int {
			return cmp.Or(cmp.Compare(min(b.FailingRules, 1), min(a.FailingRules, 1)), cmp.Compare(a.Name, b.Name))
		})
		s.GroupStatuses = s.GroupStatuses[:min(len(s.GroupStatuses), maxRuleGroups)]
		out[file] = s
	}
	return out
}

// SameRules says whether a status tells nothing new: it differs from the one
// before in times only, and those are fresh enough.
func SameRules(before, after v1.RulesStatus) bool {
	return before.ActiveRules == after.ActiveRules && before.FailingRules == after.FailingRules &&
		slices.EqualFunc(before.GroupStatuses, after.GroupStatuses, func(a, b v1.RuleGroupStatus) bool {
			return a.Name == b.Name && a.Owner == b.Owner && a.ActiveRules == b.ActiveRules && a.FailingRules == b.FailingRules &&
				slices.Equal(a.SampleRules, b.SampleRules) && fresh(a.LastEvaluationTime, b.LastEvaluationTime)
		})
}

func fresh(before, after *metav1.Time) bool {
	if before == nil || after == nil {
		return before == after
	}
	return after.Sub(before.Time) < freshness
}
