package web

import (
	"strconv"
	"time"

	"github.com/prometheus/prometheus/rules"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// group is a rule group as /api/v1/rules shows it: Prometheus' fields, and
// the key and the member that evaluates it.
type group struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []v1.Rule `json:"rules"`
	Interval       float64   `json:"interval"`
	Limit          int       `json:"limit"`
	EvaluationTime float64   `json:"evaluationTime"`
	LastEvaluation time.Time `json:"lastEvaluation"`
	Key            string    `json:"key"`
	Owner          string    `json:"owner"`
}

// newGroup shows a group with the rules that pass the filter.
func newGroup(member string, s ruler.GroupStatus, f filter) group {
	g := group{
		Name:           s.Group.Name,
		File:           s.Group.File,
		Interval:       s.Group.Interval.Seconds(),
		Limit:          s.Group.Limit,
		EvaluationTime: s.Duration.Seconds(),
		LastEvaluation: s.LastSlot,
		Key:            s.Group.Key,
		Owner:          member,
	}
	for i, rs := range s.Rules {
		if def := s.Group.Rules[i]; f.passes(def) {
			g.Rules = append(g.Rules, newRule(def, rs, f.excludeAlerts))
		}
	}
	return g
}

// alertingRule and recordingRule are Prometheus' with what was remarked on the
// result of the last evaluation, which was used all the same: that data is
// missing, for one.
type alertingRule struct {
	v1.AlertingRule
	Warnings []string `json:"warnings,omitempty"`
}

type recordingRule struct {
	v1.RecordingRule
	Warnings []string `json:"warnings,omitempty"`
}

func newRule(r rule.Rule, s ruler.RuleStatus, excludeAlerts bool) v1.Rule {
	health, lastError := health(s)
	if r.Record != "" {
		return recordingRule{v1.RecordingRule{
			Name:           r.Record,
			Query:          r.Expr.String(),
			Labels:         r.Labels,
			Health:         health,
			LastError:      lastError,
			EvaluationTime: s.Duration.Seconds(),
			LastEvaluation: s.Evaluated,
			Type:           "recording",
		}, s.Warnings}
	}
	shown := v1.AlertingRule{
		State:          s.Alerts.Status().String(),
		Name:           r.Alert,
		Query:          r.Expr.String(),
		Duration:       r.For.Seconds(),
		KeepFiringFor:  r.KeepFiringFor.Seconds(),
		Labels:         r.Labels,
		Annotations:    r.Annotations,
		Health:         health,
		LastError:      lastError,
		EvaluationTime: s.Duration.Seconds(),
		LastEvaluation: s.Evaluated,
		Type:           "alerting",
	}
	if !excludeAlerts {
		shown.Alerts = activeAlerts(s.Alerts)
	}
	return alertingRule{shown, s.Warnings}
}

func health(s ruler.RuleStatus) (rules.RuleHealth, string) {
	switch {
	case s.Evaluated.IsZero():
		return rules.HealthUnknown, ""
	case s.Err != nil:
		return rules.HealthBad, s.Err.Error()
	default:
		return rules.HealthGood, ""
	}
}

// activeAlerts leaves out resolved ones, as Prometheus does.
func activeAlerts(state alert.State) []*v1.Alert {
	active := []*v1.Alert{}
	for _, a := range state.Alerts() {
		if a.Status == alert.Inactive {
			continue
		}
		shown := &v1.Alert{
			Labels:      a.Labels,
			Annotations: a.Annotations,
			State:       a.Status.String(),
			ActiveAt:    &a.ActiveAt,
			Value:       strconv.FormatFloat(a.Value, 'e', -1, 64),
		}
		if !a.KeepFiringSince.IsZero() {
			shown.KeepFiringSince = &a.KeepFiringSince
		}
		active = append(active, shown)
	}
	return active
}
