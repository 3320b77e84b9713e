package alert

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Notification is what an Alertmanager is told of one alert.
type Notification struct {
	Labels      labels.Labels
	Annotations labels.Labels
	// Enforced are those of Labels that nobody may change on the way.
	Enforced labels.Labels
	// StartsAt is when the alert fired.
	StartsAt time.Time
	// EndsAt is when it was resolved or, for one that fires, when it is to be
	// taken as resolved unless a newer notification comes.
	EndsAt   time.Time
	Resolved bool
}

// Expiry is the time after which the notification is no longer worth
// delivering.
func (n Notification) Expiry() time.Time {
	if n.Resolved {
		return n.EndsAt.Add(ResolvedRetention)
	}
	return n.EndsAt
}

// String is one line, without the annotations.
func (n Notification) String() string {
	word := "firing"
	if n.Resolved {
		word = "resolved"
	}
	return fmt.Sprintf("%s %s starts=%s ends=%s", word, n.Labels,
		n.StartsAt.UTC().Format(time.RFC3339Nano), n.EndsAt.UTC().Format(time.RFC3339Nano))
}

// ToSend returns the notifications that are due at a time, and the state that
// remembers them as sent. The time is that of the slot; a shell that is behind
// its slots calls ToSend for the newest one alone, with the time it is now, for
// a notification stands from there. It is called after a failed evaluation too.
func ToSend(rule Rule, state State, at time.Time) ([]Notification, State) {
	var due []Notification
	next := State{alerts: slices.Clone(state.alerts), restored: state.restored}
	for i := range next.alerts {
		a := &next.alerts[i]
		if !owed(*a, at, rule.ResendDelay) {
			continue
		}
		a.LastSentAt = at
		a.ValidUntil = at.Add(rule.validity())
		due = append(due, notification(rule, *a))
	}
	return due, next
}

func owed(a Alert, at time.Time, resendDelay time.Duration) bool {
	switch {
	case a.Status == Pending:
		return false
	case a.ResolvedAt.After(a.LastSentAt):
		return true
	}
	return a.LastSentAt.Add(resendDelay).Before(at)
}

func notification(rule Rule, a Alert) Notification {
	n := Notification{
		Labels:      a.Labels,
		Annotations: a.Annotations,
		Enforced:    rule.Enforced,
		StartsAt:    a.FiredAt,
		EndsAt:      a.ValidUntil,
		Resolved:    a.Status == Inactive,
	}
	if n.Resolved {
		n.EndsAt = a.ResolvedAt
	}
	return n
}
