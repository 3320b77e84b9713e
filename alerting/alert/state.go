package alert

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Status says where an alert, or a rule as a whole, stands.
type Status int

// The order is that of urgency.
const (
	// Inactive is an alert that fired and is resolved, or a rule without
	// pending and firing alerts.
	Inactive Status = iota
	// Pending is an alert whose condition has not held for long enough.
	Pending
	// Firing is an alert that people are told about.
	Firing
)

var statusNames = [...]string{"inactive", "pending", "firing"}

func (s Status) String() string { return statusNames[s] }

// Alert is one instance of a rule. Times are zero while what they stand for has
// not happened.
type Alert struct {
	// Labels identify the alert.
	Labels      labels.Labels
	Annotations labels.Labels
	Status      Status
	// Value is that of the expression when its condition last held.
	Value float64
	// ActiveAt is the slot at which the condition began to hold.
	ActiveAt time.Time
	// FiredAt and ResolvedAt are the slots at which it became firing, and
	// inactive again.
	FiredAt    time.Time
	ResolvedAt time.Time
	// KeepFiringSince is the first slot without the condition of an alert that
	// is kept firing.
	KeepFiringSince time.Time
	// LastSentAt is when a notification was last owed, ValidUntil when it
	// lapses unless renewed.
	LastSentAt time.Time
	ValidUntil time.Time
}

// State is all that has to be remembered of an alerting rule from one slot to
// the next. The zero value is the state of a rule that has no alerts.
type State struct {
	// alerts is sorted by labels, which are unique.
	alerts []Alert
	// restored are alerts that await their confirmation by the first step; they
	// are sorted as well. There are none together with alerts.
	restored []Alert
}

// IsEmpty tells that there are no alerts at all.
func (s State) IsEmpty() bool { return len(s.alerts)+len(s.restored) == 0 }

// Alerts returns the alerts, resolved ones included, sorted by labels. The slice
// is the state's own and not to be changed.
func (s State) Alerts() []Alert { return s.alerts }

// Status is the most urgent status of all alerts.
func (s State) Status() Status {
	status := Inactive
	for _, a := range s.alerts {
		status = max(status, a.Status)
	}
	return status
}

// Count is the number of alerts of a status.
func (s State) Count(status Status) int {
	n := 0
	for _, a := range s.alerts {
		if a.Status == status {
			n++
		}
	}
	return n
}

// String lists the alerts, one a line, with all that is set. It begins with
// those that were restored and not yet seen.
func (s State) String() string {
	var b strings.Builder
	for _, a := range s.restored {
		fmt.Fprintf(&b, "restored %s\n", a)
	}
	for _, a := range s.alerts {
		b.WriteString(a.String())
		b.WriteByte('\n')
	}
	return b.String()
}

func (a Alert) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s value=%s", a.Status, a.Labels, formatValue(a.Value))
	for _, t := range []struct {
		name string
		at   time.Time
	}{
		{"active", a.ActiveAt},
		{"fired", a.FiredAt},
		{"resolved", a.ResolvedAt},
		{"kept-since", a.KeepFiringSince},
		{"sent", a.LastSentAt},
		{"valid-until", a.ValidUntil},
	} {
		if !t.at.IsZero() {
			fmt.Fprintf(&b, " %s=%s", t.name, t.at.UTC().Format(time.RFC3339Nano))
		}
	}
	if !a.Annotations.IsEmpty() {
		fmt.Fprintf(&b, " annotations=%s", a.Annotations)
	}
	return b.String()
}

func formatValue(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// sortAlerts puts alerts into the order of a State.
func sortAlerts(alerts []Alert) {
	slices.SortStableFunc(alerts, func(a, b Alert) int { return labels.Compare(a.Labels, b.Labels) })
}

// duplicate returns the labels that two neighbours of sorted alerts share.
func duplicate(alerts []Alert) (labels.Labels, bool) {
	for i := 1; i < len(alerts); i++ {
		if labels.Equal(alerts[i-1].Labels, alerts[i].Labels) {
			return alerts[i].Labels, true
		}
	}
	return labels.EmptyLabels(), false
}
