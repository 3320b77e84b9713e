package alert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
)

// The reasons for which Step refuses a result.
var (
	ErrDuplicate = errors.New("two results have the same labels once the rule's labels are set")
	ErrLimit     = errors.New("limit of alerts exceeded")
)

// Result is what came of a step.
type Result struct {
	State State
	// Samples are those of ALERTS and ALERTS_FOR_STATE, sorted by the labels of
	// their alerts.
	Samples []promql.Sample
	// TemplateErr is the first template that could not be expanded. The alert
	// fires all the same, with the error in the place of the text.
	TemplateErr error
}

// Step moves the rule's alerts to a slot, at which the expression returned
// vector. On an error, ErrDuplicate or ErrLimit, the state is what it was and
// nothing is recorded.
func Step(rule Rule, state State, slot time.Time, vector promql.Vector, expand Expander) (Result, error) {
	t := stepper{rule: rule, expand: expand}
	return t.step(state, slot, vector)
}

// StepPartial is Step for a vector that lacks a part of the data: whether the
// condition of an alert that is not in it holds is not known. Such an alert,
// pending or firing, stays as it is; it neither ripens nor is it resolved.
func StepPartial(rule Rule, state State, slot time.Time, vector promql.Vector, expand Expander) (Result, error) {
	t := stepper{rule: rule, expand: expand, partial: true}
	return t.step(state, slot, vector)
}

func (t *stepper) step(state State, slot time.Time, vector promql.Vector) (Result, error) {
	rule, seen := t.rule, t.raise(slot, vector)
	unchanged := Result{State: state, TemplateErr: t.err}
	if lset, found := duplicate(seen); found {
		return unchanged, fmt.Errorf("alert %q, labels %s: %w", rule.Name, lset, ErrDuplicate)
	}
	next := State{alerts: t.advance(t.known(state, seen), seen, slot)}
	if n := next.Count(Pending) + next.Count(Firing); rule.Limit > 0 && n > rule.Limit {
		return unchanged, fmt.Errorf("alert %q has %d alerts, its group's limit is %d: %w", rule.Name, n, rule.Limit, ErrLimit)
	}
	return Result{State: next, Samples: record(rule, next, slot), TemplateErr: t.err}, nil
}

// raise makes a new pending alert of every sample, sorted by labels.
func (t *stepper) raise(slot time.Time, vector promql.Vector) []Alert {
	alerts := make([]Alert, len(vector))
	for i, sample := range vector {
		alerts[i] = Alert{
			Labels:      t.labels(sample),
			Annotations: t.annotations(sample),
			Status:      Pending,
			Value:       sample.F,
			ActiveAt:    slot,
		}
	}
	sortAlerts(alerts)
	return alerts
}

// stepper does one step of a rule. It expands the templates and keeps the first
// error.
type stepper struct {
	rule   Rule
	expand Expander
	// partial means that there may be more alerts than the vector shows.
	partial bool
	err     error
}

func (t *stepper) text(template string, sample promql.Sample) string {
	text, err := t.expand(template, sample)
	if err != nil {
		if t.err == nil {
			t.err = err
		}
		text = fmt.Sprintf("<error expanding template: %s>", err)
	}
	return validText(text)
}

// validText replaces what is not UTF-8: it would not survive the encodings on
// its way, and the alert would come back as another one.
func validText(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// setValid sets the labels of a sample, with valid names and values.
func setValid(b *labels.Builder, series labels.Labels) {
	series.Range(func(l labels.Label) {
		if !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value) {
			b.Del(l.Name).Set(validText(l.Name), validText(l.Value))
		}
	})
}

func (t *stepper) labels(sample promql.Sample) labels.Labels {
	b := labels.NewBuilder(sample.Metric)
	setValid(b, sample.Metric)
	b.Del(labels.MetricName)
	t.rule.Labels.Range(func(l labels.Label) { b.Set(l.Name, t.text(l.Value, sample)) })
	b.Set(labels.AlertName, t.rule.Name)
	t.rule.Enforced.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

func (t *stepper) annotations(sample promql.Sample) labels.Labels {
	b := labels.NewScratchBuilder(t.rule.Annotations.Len())
	t.rule.Annotations.Range(func(l labels.Label) { b.Add(l.Name, t.text(l.Value, sample)) })
	return b.Labels()
}

// known are the alerts that there were: those of the last step or, in the first
// after a restoration, the restored ones whose condition holds or may hold, or
// that are kept firing without it. The annotations of the latter are expanded as if the alert
// itself were the sample, for that is all that is left of it.
func (t *stepper) known(s State, seen []Alert) []Alert {
	if len(s.restored) == 0 {
		return s.alerts
	}
	var confirmed []Alert
	for _, a := range s.restored {
		_, found := slices.BinarySearchFunc(seen, a.Labels, compareLabels)
		if !found && a.KeepFiringSince.IsZero() && !t.partial {
			continue
		}
		if !found {
			a.Annotations = t.annotations(promql.Sample{Metric: a.Labels, F: a.Value})
		}
		confirmed = append(confirmed, a)
	}
	return confirmed
}

func compareLabels(a Alert, lset labels.Labels) int { return labels.Compare(a.Labels, lset) }

// advance merges the alerts there were with those whose condition holds now;
// both are sorted by labels, and so is the outcome.
func (t *stepper) advance(old, seen []Alert, slot time.Time) []Alert {
	rule := t.rule
	next := make([]Alert, 0, max(len(old), len(seen)))
	for len(old) > 0 || len(seen) > 0 {
		switch order(old, seen) {
		case -1:
			a, keep := old[0], true
			if a.Status == Inactive || !t.partial {
				a, keep = lapse(rule, a, slot)
			}
			if keep {
				next = append(next, a)
			}
			old = old[1:]
		case 1:
			next = append(next, ripen(rule, seen[0], slot))
			seen = seen[1:]
		default:
			next = append(next, ripen(rule, renew(old[0], seen[0]), slot))
			old, seen = old[1:], seen[1:]
		}
	}
	return next
}

// order compares the first elements; an empty list comes last.
func order(old, seen []Alert) int {
	switch {
	case len(old) == 0:
		return 1
	case len(seen) == 0:
		return -1
	}
	c := labels.Compare(old[0].Labels, seen[0].Labels)
	return min(1, max(-1, c))
}

// renew is an alert whose condition holds on, or again: one that was resolved
// starts anew.
func renew(old, seen Alert) Alert {
	if old.Status == Inactive {
		return seen
	}
	old.Value = seen.Value
	old.Annotations = seen.Annotations
	old.KeepFiringSince = time.Time{}
	return old
}

// ripen fires a pending alert whose time has come.
func ripen(rule Rule, a Alert, slot time.Time) Alert {
	if a.Status == Pending && slot.Sub(a.ActiveAt) >= rule.For {
		a.Status = Firing
		a.FiredAt = slot
	}
	return a
}

// lapse is an alert whose condition does not hold; keep says whether it is
// still to be remembered.
func lapse(rule Rule, a Alert, slot time.Time) (_ Alert, keep bool) {
	switch a.Status {
	case Pending:
		return a, false
	case Inactive:
		return a, slot.Sub(a.ResolvedAt) <= ResolvedRetention
	}
	if rule.KeepFiringFor > 0 {
		if a.KeepFiringSince.IsZero() {
			a.KeepFiringSince = slot
		}
		if slot.Sub(a.KeepFiringSince) < rule.KeepFiringFor {
			return a, true
		}
	}
	a.Status = Inactive
	a.ResolvedAt = slot
	return a, true
}

// record returns the samples of all pending and firing alerts.
func record(rule Rule, state State, slot time.Time) []promql.Sample {
	t := timestamp.FromTime(slot.Add(-rule.QueryOffset))
	samples := make([]promql.Sample, 0, 2*len(state.alerts))
	for _, a := range state.alerts {
		if a.Status == Inactive {
			continue
		}
		samples = append(samples,
			promql.Sample{Metric: statusSeries(rule, a), T: t, F: 1},
			promql.Sample{Metric: forStateSeries(rule, a), T: t, F: float64(a.ActiveAt.Unix())},
		)
	}
	return samples
}

func statusSeries(rule Rule, a Alert) labels.Labels {
	b := seriesBuilder(rule, a)
	return b.Set(labels.MetricName, alertsMetric).Set(statusLabel, a.Status.String()).Labels()
}

func forStateSeries(rule Rule, a Alert) labels.Labels {
	return seriesBuilder(rule, a).Set(labels.MetricName, forStateMetric).Labels()
}

// seriesBuilder starts from the rule's labels as Prometheus does, which shows
// where a template came out empty: the series then has the template itself.
func seriesBuilder(rule Rule, a Alert) *labels.Builder {
	b := labels.NewBuilder(rule.Labels)
	a.Labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Set(labels.AlertName, rule.Name)
}
