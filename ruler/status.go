package ruler

import (
	"time"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// GroupStatus is a group as its owner sees it.
type GroupStatus struct {
	Group rule.Group
	// LastSlot is the newest live slot that was evaluated; zero before the
	// first.
	LastSlot time.Time
	// Duration is how long its batch took.
	Duration time.Duration
	// Since is when the group started here, From where its state came from: a
	// member, "backend", or nowhere if it is empty.
	Since time.Time
	From  string
	// Rules are parallel to Group.Rules.
	Rules []RuleStatus
}

// RuleStatus is the outcome of a rule's last evaluation.
type RuleStatus struct {
	// Evaluated is the slot; zero before the first.
	Evaluated time.Time
	Duration  time.Duration
	// Err is why the evaluation or its write failed; nil if neither did.
	Err error
	// State is the most urgent of the alerts' states.
	State  alert.Status
	Alerts []alert.Alert
}

func (g *group) status() GroupStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GroupStatus{Group: g.def, LastSlot: g.lastSlot, Duration: g.duration, Rules: make([]RuleStatus, len(g.rules))}
	for i, r := range g.rules {
		s.Rules[i] = RuleStatus{
			Evaluated: r.evaluation,
			Duration:  r.duration,
			Err:       r.err,
			State:     r.alerts.Status(),
			Alerts:    r.alerts.Alerts(),
		}
	}
	return s
}
