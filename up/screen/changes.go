package screen

import (
	"fmt"
	"slices"

	"github.com/tocsin-rules/tocsin/web"
)

// Summary returns the whole state in one line.
func Summary(s State) string {
	var total web.MemberStatus
	ready := 0
	for _, m := range s.Members {
		if m.Status == nil {
			continue
		}
		if m.Status.Ready {
			ready++
		}
		total.Groups += m.Status.Groups
		total.Rules += m.Status.Rules
		total.SlotsEvaluated += m.Status.SlotsEvaluated
		total.SlotsMissed += m.Status.SlotsMissed
		total.Firing += m.Status.Firing
		total.LagSeconds = max(total.LagSeconds, m.Status.LagSeconds)
	}
	return fmt.Sprintf("%d of %d members ready: %d groups, %d rules, %d slots evaluated, %d missed, lag %s, %d alerts firing",
		ready, len(s.Members), total.Groups, total.Rules, total.SlotsEvaluated, total.SlotsMissed,
		seconds(total.LagSeconds), total.Firing)
}

// Changes returns a line for everything that happened between two states and
// that somebody who reads a log wants to know.
func Changes(before, now State) []string {
	lines := processChanges(before, now)
	if before.Phase != now.Phase {
		lines = append(lines, title(now))
	}
	if before.DataDir != now.DataDir {
		lines = append(lines, "data, configuration and logs are in "+clean(now.DataDir))
	}
	lines = append(lines, ruleProblemChanges(before, now)...)
	fresh := min(max(0, now.Notified-before.Notified), len(now.Notifications))
	for _, n := range now.Notifications[len(now.Notifications)-fresh:] {
		lines = append(lines, n.String())
	}
	return lines
}

func processChanges(before, now State) []string {
	known := map[string]Process{}
	for _, p := range processes(before) {
		known[p.Name] = p
	}
	var lines []string
	for _, p := range processes(now) {
		was := known[p.Name]
		if p.Restarts > was.Restarts {
			lines = append(lines, clean(fmt.Sprintf("%s exited (%s), restarting it", p.Name, p.LastExit)))
		}
		if p.State == "ready" && (was.State != "ready" || p.Restarts > was.Restarts) {
			lines = append(lines, fmt.Sprintf("%s is ready at %s", p.Name, p.URL))
		}
	}
	return lines
}

func ruleProblemChanges(before, now State) []string {
	was, is := ruleProblems(before), ruleProblems(now)
	var lines []string
	for _, p := range is {
		if !slices.Contains(was, p) {
			lines = append(lines, "problem: "+p)
		}
	}
	for _, p := range was {
		if !slices.Contains(is, p) {
			lines = append(lines, "solved: "+p)
		}
	}
	return lines
}
