package rule

import (
	"fmt"
	"strings"
)

// Identity is what stays when a rule's expression, timing or annotations are
// edited: its kind, name and labels, as in `alert X{severity="page"}`. Rules
// of one identity in one scope write the same series; see Duplicates.
func (r Rule) Identity() string {
	kind := "record"
	if r.Alert != "" {
		kind = "alert"
	}
	return kind + " " + r.Name() + r.Labels.String()
}

// String is a stable text form of the whole rule, one line.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(r.Identity())
	if r.For > 0 {
		fmt.Fprintf(&b, " for %s", r.For)
	}
	if r.KeepFiringFor > 0 {
		fmt.Fprintf(&b, " keep firing for %s", r.KeepFiringFor)
	}
	if !r.Annotations.IsEmpty() {
		fmt.Fprintf(&b, " annotations %s", r.Annotations)
	}
	fmt.Fprintf(&b, " := %s", r.Expr)
	return b.String()
}

// String is a stable text form of the whole group, a line for the group and
// one for each rule.
func (g Group) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%q in %s) every %s", g.Key, g.Name, g.File, g.Interval)
	if g.QueryOffset > 0 {
		fmt.Fprintf(&b, " offset %s", g.QueryOffset)
	}
	if g.Limit > 0 {
		fmt.Fprintf(&b, " limit %d", g.Limit)
	}
	if !g.Scope.IsEmpty() {
		fmt.Fprintf(&b, " scope %s", g.Scope)
	}
	if g.Partial {
		b.WriteString(" partial")
	}
	for _, r := range g.Rules {
		b.WriteString("\n  " + r.String())
	}
	return b.String()
}
