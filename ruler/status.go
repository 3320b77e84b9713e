package ruler

import (
	"time"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// Progress is what becomes of a live slot that is due.
type Progress struct {
	// Slot is the slot, zero if none is due. Phase is what it is in, Since when
	// that began.
	Slot  time.Time
	Phase Phase
	Since time.Time
}

// Phase is a part of a slot's way.
type Phase string

// The phases of a slot, in order; each stage of a group goes through them.
const (
	waiting    Phase = "waiting for other batches"
	evaluating Phase = "being evaluated"
	writing    Phase = "being written"
)

// enter notes that the live slots of a batch begin a phase.
func (b *batch) enter(p Phase) {
	now := time.Now().UTC()
	for _, t := range b.tasks {
		if t.job.Repeat {
			continue
		}
		t.group.mu.Lock()
		t.group.progress = Progress{Slot: b.slot, Phase: p, Since: now}
		t.group.mu.Unlock()
	}
}

// GroupStatus is a group as its owner sees it.
type GroupStatus struct {
	Group rule.Group
	// LastSlot is the newest live slot that was evaluated; zero before the
	// first.
	LastSlot time.Time
	// Progress is that of the slot that is due.
	Progress Progress
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
	// Warnings are what was remarked on a result that was used all the same:
	// data that is missing, or what PromQL warns of.
	Warnings []string
	Alerts   alert.State
}

func (g *group) status() GroupStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GroupStatus{Group: g.def, LastSlot: g.lastSlot, Progress: g.progress, Duration: g.duration, Rules: make([]RuleStatus, len(g.rules))}
	for i, r := range g.rules {
		s.Rules[i] = RuleStatus{
			Evaluated: r.evaluation,
			Duration:  r.duration,
			Err:       r.err,
			Warnings:  r.warnings,
			Alerts:    r.alerts,
		}
	}
	return s
}
