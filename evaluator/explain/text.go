package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// shownSharers is the number of rules that are named where more share a
// fragment.
const shownSharers = 3

// String is the report as text: the backends, then each group with the tree of
// each of its rules.
func (r *Report) String() string {
	t := text{report: r}
	t.backends()
	for i := range r.Rules {
		if i == 0 || r.Rules[i].Group != r.Rules[i-1].Group {
			t.group(r.Rules[i].Group)
		}
		t.rule(i)
	}
	t.unplanned()
	return t.String()
}

type text struct {
	strings.Builder

	report *Report
	// rule that is being written, an index.
	current int
}

func (t *text) line(indent, format string, args ...any) {
	t.WriteString(strings.TrimRight(indent+fmt.Sprintf(format, args...), " ") + "\n")
}

func (t *text) backends() {
	t.line("", "backends")
	width := 0
	for _, b := range t.report.Backends {
		width = max(width, len(b.Name))
	}
	for _, b := range t.report.Backends {
		marks := ""
		if b.Virtual {
			marks = " (virtual)"
		}
		if b.ReadDelaySeconds > 0 {
			marks += fmt.Sprintf(" (read delay %s)", seconds(b.ReadDelaySeconds))
		}
		t.line("  ", "%-*s  %s%s%s", width, b.Name, labels.FromMap(b.PartitionLabels), marks, b.Cost.String())
	}
}

func (t *text) group(key string) {
	t.line("", "")
	if key != "" {
		t.line("", "group %s", key)
	}
}

func (t *text) rule(i int) {
	r := t.report.Rules[i]
	t.current = i
	stage := ""
	if r.Stage > 1 {
		stage = fmt.Sprintf(", stage %d", r.Stage)
	}
	t.line("", "%s %s%s", r.Type, r.Name, stage)
	t.line("  ", "%s", r.Expr)
	if r.Error != "" {
		t.line("  ", "error: %s", r.Error)
	}
	if r.Tree != nil {
		t.node(r.Tree, "  ", "  ")
	}
	for _, s := range r.Scalars {
		t.line("  ", "asked for first: %s", s.Expr)
		t.node(s.Tree, "    ", "    ")
	}
	for _, n := range r.Notes {
		t.line("  ", "not pushed down: %s", n.Expr)
		t.line("    ", "%s: %s", n.Reason, n.Meaning)
	}
	if f := r.Fold; f != nil {
		t.line("  ", "one of %d rules that differ only in %s; they are evaluated as one, and each alone if that fails:", f.Rules, f.Label)
		t.line("    ", "%s", f.Expr)
	}
	if n := r.Apart; n != nil {
		t.line("  ", "not evaluated as one with rules that differ only in their tenant")
		t.line("    ", "%s: %s", n.Reason, n.Meaning)
	}
	if o := r.Overlay; o != nil {
		t.line("  ", "evaluated from raw series while what its group has recorded may not be visible")
		t.line("    ", "%s: reads %s; writes show late at %s", plan.ReasonOverlay, strings.Join(o.Rules, ", "), strings.Join(o.Backends, ", "))
	}
	t.result(r.Result)
}

func (t *text) result(r *Result) {
	if r == nil {
		return
	}
	for _, w := range r.Warnings {
		t.line("  ", "warning: %s", w)
	}
	if r.Error != "" {
		t.line("  ", "failed: %s", r.Error)
		return
	}
	t.line("  ", "result: %d series", r.Series)
}

// node writes a node and what is below it: its own line begins with first, the
// others with rest.
func (t *text) node(n *Node, first, rest string) {
	t.line(first, "%s", t.describe(n))
	for i, c := range n.Children {
		if i+1 < len(n.Children) {
			t.node(c, rest+"├─ ", rest+"│  ")
		} else {
			t.node(c, rest+"└─ ", rest+"   ")
		}
	}
}

func (t *text) describe(n *Node) string {
	switch n.Kind {
	case KindFragment:
		f := t.report.Fragments[*n.Fragment]
		return fmt.Sprintf("%s: %s%s%s%s", f.Backend, f.Expr, f.Grid.suffix(), t.shared(f), f.Cost.String())
	case KindUnion:
		if len(n.Children) == 0 {
			return "nothing: no time of the subquery is in its range"
		}
		return fmt.Sprintf("union of %d backends", len(n.Children))
	case KindRaw:
		return fmt.Sprintf("raw series of %s: %s%s", strings.Join(n.Backends, ", "), n.Expr, n.Cost.String())
	}
	return "local: " + n.Expr
}

func (g *Grid) suffix() string {
	if g == nil {
		return ""
	}
	step := time.Duration(g.StepSeconds * float64(time.Second))
	return fmt.Sprintf(", %s to %s every %s", g.Start.Format(time.RFC3339), g.End.Format(time.RFC3339), step)
}

// shared names the other rules that a fragment is for.
func (t *text) shared(f Fragment) string {
	var others []string
	for _, i := range f.Rules {
		if i != t.current {
			others = append(others, t.name(i))
		}
	}
	others = append(others, f.Others...)
	if len(others) == 0 {
		return ""
	}
	more := ""
	if n := len(others) - shownSharers; n > 0 {
		others, more = others[:shownSharers], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf(" [shared with %s%s]", strings.Join(others, ", "), more)
}

// name is that of a rule as seen from the current one.
func (t *text) name(i int) string {
	r := t.report.Rules[i]
	if r.Group == "" || r.Group == t.report.Rules[t.current].Group {
		return r.Name
	}
	return r.Group + "/" + r.Name
}

func (t *text) unplanned() {
	if len(t.report.Unplanned) == 0 {
		return
	}
	t.line("", "")
	t.line("", "done in addition, because an answer could not be used")
	for _, u := range t.report.Unplanned {
		from := u.Backend
		if from == "" {
			from = "raw series"
		}
		t.line("  ", "%s: %s%s", from, u.Expr, u.Cost.String())
	}
}

// String is what an analysis found, empty without one.
func (c *Cost) String() string {
	switch {
	case c == nil:
		return ""
	case c.Error != "":
		return fmt.Sprintf(" (failed after %s: %s)", seconds(c.Seconds), c.Error)
	}
	bytes := ""
	if c.Bytes > 0 {
		bytes = fmt.Sprintf(", %d bytes", c.Bytes)
	}
	return fmt.Sprintf(" (%d series, %d samples%s, %s)", c.Series, c.Samples, bytes, seconds(c.Seconds))
}

// String is what an analysis found, empty without one.
func (c *BackendCost) String() string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf(" (requests %d, fragments %d, samples %d, bytes %d, %s)", c.Requests, c.Fragments, c.Samples, c.Bytes, seconds(c.Seconds))
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Microsecond).String()
}
