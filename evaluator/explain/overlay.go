package explain

import (
	"slices"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// Overlay says that a rule reads what its group records, where a backend shows
// writes late. While a sample that it reads may not be visible, the rule is
// evaluated from raw series with the remembered samples laid over, for the
// reason overlay, and not as its tree shows.
type Overlay struct {
	// Rules are the names of those of the group that it reads.
	Rules []string `json:"rules"`
	// Backends are those with a read delay that it may read them from.
	Backends []string `json:"backends"`
}

// overlay is that of a rule, nil if there is none.
func (b *builder) overlay(r Rule) *Overlay {
	if len(r.Reads) == 0 {
		return nil
	}
	selectors := plan.Selectors(r.Expr)
	var late []string
	for _, p := range b.plan.Backends {
		if p.ReadDelay > 0 && slices.ContainsFunc(selectors, p.Holds) {
			late = append(late, p.Name)
		}
	}
	if late == nil {
		return nil
	}
	return &Overlay{Rules: r.Reads, Backends: late}
}
