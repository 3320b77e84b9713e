// Package alert decides what the alerts of one alerting rule are: inactive,
// pending, firing, resolved; which series they record and which notifications
// they owe. It behaves as Prometheus' rules package does, rule for rule, except
// where that package forgets what people on call rely on:
//
//   - a failed evaluation or an exceeded limit changes nothing: no function here
//     clears alerts;
//   - alerts that a partial result does not show keep their state;
//   - every timer is part of State, which is encoded, handed from member to
//     member and decoded again, so that for, keep_firing_for and the time of the
//     last notification survive a change of ownership;
//   - sending is separate from stepping, so that alerts which keep their state
//     through a failed evaluation are still re-sent and do not lapse in
//     Alertmanager;
//   - alerts are restored from the backend before the first step, not after it,
//     and those that are kept firing are, too.
//
// One slot of one rule goes: Restore (only if no state was handed over), Step
// with what the expression returned (only if it was evaluated; StepPartial if
// data was missing), ToSend. The
// shell writes Result.Samples, delivers the notifications and checkpoints the
// last State.
//
// The package is pure: it reads no clock, does no I/O, starts no goroutine.
// Inputs are never changed, outputs are new values; all values are safe for
// concurrent use. The scripts of its tests are in testdata.
package alert

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	alertsMetric   = "ALERTS"
	forStateMetric = "ALERTS_FOR_STATE"
	statusLabel    = "alertstate"

	// ResolvedRetention is how long a resolved alert is remembered and its
	// resolution re-sent, so that an Alertmanager that was away learns of it.
	ResolvedRetention = 15 * time.Minute
	// validityFactor times the longer of interval and resend delay is how long
	// a notification stands without being renewed: room for failed sends.
	validityFactor = 4
	// maxValidity keeps absurd intervals from overflowing the end of a
	// notification into the past.
	maxValidity = 100 * 365 * 24 * time.Hour
)

// Rule is what the state machine has to know of an alerting rule.
type Rule struct {
	// Name becomes the label alertname.
	Name string
	// For is how long an alert is pending before it fires.
	For time.Duration
	// KeepFiringFor is how long an alert fires on after its condition ended.
	KeepFiringFor time.Duration
	// Interval is the time between two slots of the group.
	Interval time.Duration
	// QueryOffset is how far before the slot the expression was evaluated;
	// recorded samples carry that earlier time.
	QueryOffset time.Duration
	// ResendDelay is the shortest time between two notifications that say the
	// same.
	ResendDelay time.Duration
	// Limit is the greatest number of pending and firing alerts; 0 means none.
	Limit int
	// Labels and Annotations hold templates as values.
	Labels      labels.Labels
	Annotations labels.Labels
	// Enforced are the labels of the rule's tenancy. They are set after all
	// others, so that neither data nor templates can change them.
	Enforced labels.Labels
}

// validity is how long a notification stands.
func (r Rule) validity() time.Duration {
	renewed := max(r.Interval, r.ResendDelay)
	return validityFactor * min(renewed, maxValidity/validityFactor)
}

// Expander expands one template of a rule with the labels and the value of the
// sample that raised the alert.
type Expander func(text string, sample promql.Sample) (string, error)

// Identity is what makes two versions of a rule the same, so that the state of
// one is the state of the other: its name and its labels. Expression, times and
// annotations may change.
func Identity(rule Rule) string { return rule.Name + rule.Labels.String() }

// Identities returns the identities of a group's rules, made unique: the n-th
// rule of equal identity in the old version of a group hands its state to the
// n-th in the new one.
func Identities(rules []Rule) []string {
	seen := make(map[string]int, len(rules))
	ids := make([]string, len(rules))
	for i, r := range rules {
		id := Identity(r)
		ids[i] = id
		if n := seen[id]; n > 0 {
			ids[i] = fmt.Sprintf("%s#%d", id, n+1)
		}
		seen[id]++
	}
	return ids
}

// EvidenceSelectors returns the selectors of the series that Restore works
// with: the rule's ALERTS_FOR_STATE, and those of its ALERTS that were firing.
// Labels with templates are not matched, for their values are not known.
func (r Rule) EvidenceSelectors() (forState, firing *parser.VectorSelector) {
	b := labels.NewBuilder(labels.EmptyLabels())
	r.Labels.Range(func(l labels.Label) {
		if !isTemplate(l.Value) {
			b.Set(l.Name, l.Value)
		}
	})
	b.Set(labels.AlertName, r.Name)
	r.Enforced.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	forState = selector(forStateMetric, b.Labels())
	firing = selector(alertsMetric, b.Set(statusLabel, Firing.String()).Labels())
	return forState, firing
}

func selector(metric string, match labels.Labels) *parser.VectorSelector {
	vs := &parser.VectorSelector{Name: metric}
	match.Range(func(l labels.Label) {
		vs.LabelMatchers = append(vs.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	name := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, metric)
	vs.LabelMatchers = append(vs.LabelMatchers, name)
	return vs
}

func isTemplate(text string) bool { return strings.Contains(text, "{{") }
