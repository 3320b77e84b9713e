package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tocsin-rules/tocsin/web"
)

const (
	// shownHandoffs and shownProblems bound the lines of each kind.
	shownHandoffs = 10
	shownProblems = 20
)

// clusterView is the state of a cluster as text.
type clusterView web.ClusterStatus

// String shows the members, the last handoffs, and what is not as it should
// be.
func (v clusterView) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s sees %d members and %d groups\n\n", v.Member, len(v.Members), len(v.Groups))
	v.members(&b)
	section(&b, "last handoffs", v.handoffs(), shownHandoffs)
	section(&b, "problems", v.problems(), shownProblems)
	return b.String()
}

func (v clusterView) members(b *strings.Builder) {
	var total uint64
	for _, m := range v.Members {
		total += cost(m)
	}
	t := newTable(b)
	t.row("MEMBER", "STATE", "ZONE", "GROUPS", "RULES", "LOAD", "LAG", "MISSED", "REPEATED", "FIRING", "PENDING", "CLOCK", "HTTP")
	for _, m := range v.Members {
		load := fmt.Sprintf("%.0f%%", 100*float64(cost(m))/float64(max(total, 1)))
		figures := []any{m.ToldGroups, "no answer", load, "-", "-", "-", "-", "-"}
		if s := m.Status; s != nil {
			lag := time.Duration(s.LagSeconds * float64(time.Second)).Round(100 * time.Millisecond)
			figures = []any{s.Groups, s.Rules, load, lag, s.SlotsMissed, s.SlotsBackfilled, s.Firing, s.Pending}
		}
		t.row(slices.Concat([]any{m.Name, m.State, orDash(m.Zone)}, figures, []any{shownClock(m.Clock), m.HTTPAddress})...)
	}
	t.end()
}

// cost is what a member's groups cost, as it says or else as it last told.
func cost(m web.ClusterMember) uint64 {
	if m.Status != nil {
		return m.Status.Cost
	}
	return m.ToldCost
}

// shownClock is by how much a clock is ahead of the answering member's.
func shownClock(c *web.Clock) string {
	if c == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3fs", c.AheadSeconds)
}

// handoffs are the starts of groups, the last one first.
func (v clusterView) handoffs() []string {
	type start struct {
		web.GroupRun
		key string
	}
	var starts []start
	for _, g := range v.Groups {
		for _, r := range g.Running {
			starts = append(starts, start{r, g.Key})
		}
	}
	slices.SortFunc(starts, func(a, b start) int {
		return cmp.Or(b.Since.Compare(a.Since), strings.Compare(a.key, b.key), strings.Compare(a.Member, b.Member))
	})
	lines := make([]string, len(starts))
	for i, s := range starts {
		lines[i] = fmt.Sprintf("%s  %s to %s: %s", shownTime(s.Since), origin(s.From), s.Member, s.key)
	}
	return lines
}

// origin says where the state of a group came from.
func origin(from string) string {
	switch from {
	case "":
		return "new"
	case "backend":
		return "from the backends"
	}
	return from
}

// problems are members that do not answer or are not ready, groups that are
// not evaluated by their owner alone or are late, faults of files and rules.
func (v clusterView) problems() []string {
	var lines []string
	for _, m := range v.Members {
		switch {
		case m.Status == nil:
			lines = append(lines, fmt.Sprintf("%s does not answer: %s", m.Name, m.Error))
		case !m.Status.Ready:
			lines = append(lines, fmt.Sprintf("%s is not ready: %s", m.Name, m.Status.NotReady))
		}
		if m.Clock != nil && m.Clock.Skew() > web.MaxClockSkew {
			lines = append(lines, fmt.Sprintf("clocks of %s and %s differ by %s", m.Name, v.Member, m.Clock.Ahead().Abs().Round(time.Millisecond)))
		}
	}
	for _, g := range v.Groups {
		if runs := runsOn(g); runs != g.Owner {
			lines = append(lines, fmt.Sprintf("group %s: owner %s, runs on %s", g.Key, orDash(g.Owner), orDash(runs)))
		}
		for _, run := range g.Running {
			if run.Late != "" {
				lines = append(lines, fmt.Sprintf("group %s is late on %s: %s", g.Key, run.Member, run.Late))
			}
		}
	}
	return append(lines, v.faults()...)
}

// faults are those that members report, each once: all members read the same
// files.
func (v clusterView) faults() []string {
	var lines []string
	for _, m := range v.Members {
		if m.Status == nil {
			continue
		}
		for _, f := range m.Status.FileErrors {
			lines = append(lines, fmt.Sprintf("file %s: %s", f.File, f.Error))
		}
		for _, r := range m.Status.RuleErrors {
			lines = append(lines, fmt.Sprintf("rule %s of %s: %s", r.Rule, r.Group, r.Error))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func section(b *strings.Builder, title string, lines []string, limit int) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	for i, line := range lines {
		if i == limit {
			fmt.Fprintf(b, "  and %d more\n", len(lines)-limit)
			return
		}
		fmt.Fprintf(b, "  %s\n", line)
	}
}

// ownersView is a table of groups.
type ownersView []web.GroupPlace

// String shows a group a line.
func (v ownersView) String() string {
	var b strings.Builder
	t := newTable(&b)
	t.row("GROUP", "RULES", "OWNER", "SUCCESSOR", "RUNS ON", "SINCE", "LAST SLOT")
	for _, g := range v {
		var since, slot time.Time
		if len(g.Running) > 0 {
			since, slot = g.Running[0].Since, g.Running[0].LastSlot
		}
		t.row(g.Key, g.Rules, orDash(g.Owner), orDash(g.Successor), orDash(runsOn(g)), shownTime(since), shownTime(slot))
	}
	t.end()
	return b.String()
}

func runsOn(g web.GroupPlace) string {
	names := make([]string, len(g.Running))
	for i, r := range g.Running {
		names[i] = r.Member
	}
	return strings.Join(names, ",")
}

func orDash(text string) string { return cmp.Or(text, "-") }

func shownTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// table aligns columns.
type table struct{ w *tabwriter.Writer }

func newTable(b *strings.Builder) table { return table{tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)} }

func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t"))
}

// end writes the table to its builder, which never fails.
func (t table) end() { _ = t.w.Flush() }
