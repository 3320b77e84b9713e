// Package web is the HTTP API of a rule-evaluator: any member answers for the
// whole cluster, in the shape of Prometheus' API.
//
// It asks the other members over the interface Cluster, merges, filters and
// encodes; it evaluates nothing. Handlers are safe for concurrent use.
package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/rules"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// Group is a rule group as /api/v1/rules shows it: Prometheus' fields, and
// the member that evaluates it.
type Group struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []Rule    `json:"rules"`
	Interval       float64   `json:"interval"`
	Limit          int       `json:"limit"`
	EvaluationTime float64   `json:"evaluationTime"`
	LastEvaluation time.Time `json:"lastEvaluation"`
	Key            string    `json:"key"`
	Owner          string    `json:"owner"`
}

// Rule is one of Prometheus' two kinds of rules.
type Rule struct {
	Alerting  *v1.AlertingRule
	Recording *v1.RecordingRule
}

// MarshalJSON encodes the rule that is set.
func (r Rule) MarshalJSON() ([]byte, error) {
	if r.Alerting != nil {
		return json.Marshal(r.Alerting)
	}
	return json.Marshal(r.Recording)
}

// UnmarshalJSON tells the kinds apart by the field type.
func (r *Rule) UnmarshalJSON(b []byte) error {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	switch head.Type {
	case "alerting":
		return json.Unmarshal(b, &r.Alerting)
	case "recording":
		return json.Unmarshal(b, &r.Recording)
	default:
		return fmt.Errorf("unknown type of rule %q", head.Type)
	}
}

// Groups puts what a member knows of its groups into the API's shape.
func Groups(member string, statuses []ruler.GroupStatus) []Group {
	groups := make([]Group, len(statuses))
	for i, s := range statuses {
		groups[i] = Group{
			Name:           s.Group.Name,
			File:           s.Group.File,
			Rules:          make([]Rule, len(s.Rules)),
			Interval:       s.Group.Interval.Seconds(),
			Limit:          s.Group.Limit,
			EvaluationTime: s.Duration.Seconds(),
			LastEvaluation: s.LastSlot,
			Key:            s.Group.Key,
			Owner:          member,
		}
		for j, rs := range s.Rules {
			groups[i].Rules[j] = newRule(s.Group.Rules[j], rs)
		}
	}
	return groups
}

func newRule(r rule.Rule, s ruler.RuleStatus) Rule {
	health, lastError := health(s)
	if r.Record != "" {
		return Rule{Recording: &v1.RecordingRule{
			Name:           r.Record,
			Query:          r.Expr.String(),
			Labels:         r.Labels,
			Health:         health,
			LastError:      lastError,
			EvaluationTime: s.Duration.Seconds(),
			LastEvaluation: s.Evaluated,
			Type:           "recording",
		}}
	}
	return Rule{Alerting: &v1.AlertingRule{
		State:          s.State.String(),
		Name:           r.Alert,
		Query:          r.Expr.String(),
		Duration:       r.For.Seconds(),
		KeepFiringFor:  r.KeepFiringFor.Seconds(),
		Labels:         r.Labels,
		Annotations:    r.Annotations,
		Alerts:         alerts(s.Alerts),
		Health:         health,
		LastError:      lastError,
		EvaluationTime: s.Duration.Seconds(),
		LastEvaluation: s.Evaluated,
		Type:           "alerting",
	}}
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

// alerts leaves out resolved ones, as Prometheus does.
func alerts(all []alert.Alert) []*v1.Alert {
	active := []*v1.Alert{}
	for _, a := range all {
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

// mergeGroups sorts the groups of all members and keeps, of a group that two
// members show while it changes hands, the one evaluated last.
func mergeGroups(groups []Group) []Group {
	slices.SortFunc(groups, func(a, b Group) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return b.LastEvaluation.Compare(a.LastEvaluation)
	})
	return slices.CompactFunc(groups, func(a, b Group) bool { return a.Key == b.Key })
}
