package explain

import "github.com/tocsin-rules/tocsin/evaluator/plan"

// Fold says that a rule is evaluated as one with others that differ only in
// their tenant. Its tree shows it alone, as it is evaluated if that fails.
type Fold struct {
	// Label is the one that they differ in, Rules their number, this one
	// included.
	Label string `json:"label"`
	Rules int    `json:"rules"`
	// Expr is what is evaluated in place of all of them.
	Expr string `json:"expr"`
}

// folding notes which rules of the batch are evaluated together, or why rules
// that differ only in their tenant are not.
func (b *builder) folding(f *plan.Folding) {
	for _, fold := range f.Folds {
		shown := &Fold{Label: fold.Label, Rules: len(fold.Members), Expr: fold.Query.Expr.String()}
		for _, m := range fold.Members {
			b.report.Rules[b.members[m.Query]].Fold = shown
		}
	}
	for _, n := range f.Notes {
		for _, q := range n.Queries {
			b.report.Rules[b.members[q]].Apart = &Note{Reason: n.Reason, Meaning: foldMeanings[n.Reason], Expr: n.Expr}
		}
	}
}
