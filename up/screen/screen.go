// Package screen turns the state of a one-machine system into text: a status
// block for a terminal, and lines that tell what changed for everything else.
//
// It is pure: it never writes to a terminal, asks a process or reads a clock.
// What it shows may come from scraped data, so control characters are
// replaced. All functions are safe for concurrent use.
package screen

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tocsin-rules/tocsin/web"
)

const (
	// maxProblems and maxNotifications bound what a block shows of each list.
	maxProblems      = 6
	maxNotifications = 6
	// maxTextRunes bounds one problem or notification in a line.
	maxTextRunes = 400
)

// Phase is what the whole system is doing.
type Phase string

// The phases of a system, in order.
const (
	Starting Phase = "starting"
	Running  Phase = "running"
	Stopping Phase = "stopping"
)

// State is everything that is shown.
type State struct {
	Phase Phase
	// Home is the URL to open in a browser, DataDir where the data is.
	Home    string
	DataDir string
	// Members evaluate rules; Others are all other processes.
	Members []Member
	Others  []Process
	// Notifications are the latest that Alertmanager sent, oldest first, and
	// Notified counts all of them since the start.
	Notifications []Notification
	Notified      int
}

// Process is one child process.
type Process struct {
	Name string
	URL  string
	// State is one word, as "ready" or "restarting".
	State string
	// Restarts counts the exits that nobody asked for, LastExit says how the
	// last of them happened.
	Restarts int
	LastExit string
	// NotReady is why a process that starts is not ready yet, if it says so.
	NotReady string
}

// Member is a process that evaluates rules, with what it says of itself. Nil
// means that it does not answer.
type Member struct {
	Process
	Status *web.MemberStatus
}

// Notification is one alert that Alertmanager notified of.
type Notification struct {
	At       time.Time
	Resolved bool
	// Name is the alert's name, Labels are the others as name=value, in order.
	Name   string
	Labels []string
}

func (n Notification) String() string {
	word := "FIRING"
	if n.Resolved {
		word = "RESOLVED"
	}
	return clean(strings.Join(append([]string{word, n.Name}, n.Labels...), " "))
}

// Style is how a line stands out on a terminal.
type Style int

// The styles of lines.
const (
	Plain Style = iota
	Heading
	Good
	Bad
)

// Line is one line of a block. Text contains no control characters.
type Line struct {
	Text  string
	Style Style
}

// Block returns the status block, every line at most width columns wide.
func Block(s State, width int) []Line {
	lines := []Line{{title(s), Heading}, {"Data, configuration and logs are in " + clean(s.DataDir), Plain}, {}}
	lines = append(lines, members(s.Members)...)
	lines = append(lines, Line{})
	lines = append(lines, others(s.Others)...)
	lines = append(lines, problemLines(s)...)
	lines = append(lines, notificationLines(s.Notifications)...)
	for i := range lines {
		lines[i].Text = fit(lines[i].Text, width)
	}
	return lines
}

func title(s State) string {
	switch s.Phase {
	case Starting:
		return "Tocsin is starting"
	case Stopping:
		return "Tocsin is stopping"
	default:
		return "Tocsin is running at " + s.Home + "; Ctrl-C stops it"
	}
}

func members(all []Member) []Line {
	rows := [][]string{{"MEMBER", "URL", "STATE", "GROUPS", "SLOTS", "MISSED", "LAG", "FIRING", "EXITS"}}
	styles := []Style{Heading}
	for _, m := range all {
		if m.State == "ready" && m.Status != nil && !m.Status.Ready {
			m.State = "not ready"
		}
		rows = append(rows, memberRow(m))
		styles = append(styles, styleOf(m.Process))
	}
	return table(rows, 3, styles)
}

func memberRow(m Member) []string {
	row := []string{m.Name, m.URL, m.State}
	if s := m.Status; s != nil {
		row = append(row, strconv.Itoa(s.Groups), strconv.FormatUint(s.SlotsEvaluated, 10),
			strconv.FormatUint(s.SlotsMissed, 10), seconds(s.LagSeconds), strconv.Itoa(s.Firing))
	} else {
		row = append(row, "-", "-", "-", "-", "-")
	}
	return append(row, strconv.Itoa(m.Restarts))
}

func others(all []Process) []Line {
	rows := [][]string{{"PROCESS", "URL", "STATE", "EXITS"}}
	styles := []Style{Heading}
	for _, p := range all {
		rows = append(rows, []string{p.Name, p.URL, p.State, strconv.Itoa(p.Restarts)})
		styles = append(styles, styleOf(p))
	}
	return table(rows, 3, styles)
}

func styleOf(p Process) Style {
	switch p.State {
	case "ready":
		return Good
	case "restarting", "not ready":
		return Bad
	default:
		return Plain
	}
}

func problemLines(s State) []Line {
	all := problems(s)
	if len(all) == 0 {
		return nil
	}
	lines := []Line{{}, {"PROBLEMS", Heading}}
	for _, p := range all[:min(len(all), maxProblems)] {
		lines = append(lines, Line{"  " + p, Bad})
	}
	if more := len(all) - maxProblems; more > 0 {
		lines = append(lines, Line{fmt.Sprintf("  and %d more", more), Bad})
	}
	return lines
}

func notificationLines(all []Notification) []Line {
	if len(all) == 0 {
		return nil
	}
	lines := []Line{{}, {"NOTIFICATIONS", Heading}}
	for _, n := range all[max(0, len(all)-maxNotifications):] {
		style := Bad
		if n.Resolved {
			style = Good
		}
		lines = append(lines, Line{"  " + n.At.Format(time.TimeOnly) + " " + n.String(), style})
	}
	return lines
}

// problems lists what is wrong now: processes that are away or not ready first.
func problems(s State) []string {
	var all []string
	for _, p := range processes(s) {
		if p.State == "restarting" || p.State == "starting" && p.LastExit != "" {
			all = append(all, clean(p.Name+" exited: "+p.LastExit))
		}
		if p.State == "starting" && p.NotReady != "" {
			all = append(all, clean(p.Name+" is not ready yet: "+p.NotReady))
		}
	}
	return append(all, ruleProblems(s)...)
}

// ruleProblems lists the faults of rules and rule files, without repetition:
// every member loads the same files.
func ruleProblems(s State) []string {
	var all []string
	for _, m := range s.Members {
		if m.Status == nil {
			continue
		}
		for _, e := range m.Status.FileErrors {
			all = append(all, clean("rule file "+e.File+": "+e.Error))
		}
		for _, e := range m.Status.RuleErrors {
			all = append(all, clean("rule "+e.Rule+" of group "+e.Group+": "+e.Error))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// processes lists all processes in the order in which they start.
func processes(s State) []Process {
	all := slices.Clone(s.Others)
	for _, m := range s.Members {
		all = append(all, m.Process)
	}
	return all
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) + "s" }

// clean makes text safe to print: no control characters, a bounded length.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, text)
	return fit(strings.TrimSpace(text), maxTextRunes)
}

// fit cuts text to at most width runes.
func fit(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string(runes[:width-1]) + "…"
}

// table aligns columns: the first left of them to the left, the others to the
// right.
func table(rows [][]string, left int, styles []Style) []Line {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for c, cell := range row {
			widths[c] = max(widths[c], len(cell))
		}
	}
	lines := make([]Line, len(rows))
	for r, row := range rows {
		cells := make([]string, len(row))
		for c, cell := range row {
			width := widths[c]
			if c < left {
				width = -width
			}
			cells[c] = fmt.Sprintf("%*s", width, cell)
		}
		lines[r] = Line{strings.TrimRight(strings.Join(cells, "  "), " "), styles[r]}
	}
	return lines
}
