package controller

import (
	"cmp"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// Reasons of conditions.
const (
	reasonScrape  = "ScrapeConfigError"
	reasonRules   = "RuleConfigError"
	reasonConfig  = "OperatorConfigError"
	reasonSecret  = "SecretError"
	reasonWarning = "Warning"
)

// maxMessageBytes bounds what a condition says, so that a resource with very
// many faults can still be written.
const maxMessageBytes = 8 << 10

// finding is what a reconciler has to say about a resource.
type finding struct {
	kind    v1.MonitoringConditionType
	ok      bool
	reason  string
	message string
}

// findingOf is a success if err is nil, and otherwise the error and its reason.
func findingOf(kind v1.MonitoringConditionType, reason string, err error) finding {
	if err == nil {
		return finding{kind: kind, ok: true}
	}
	if e := (*secretError)(nil); errors.As(err, &e) {
		reason = reasonSecret
	}
	return finding{kind: kind, reason: reason, message: shortened(err.Error())}
}

// shortened cuts a message between two of its lines if it is too long.
func shortened(message string) string {
	if len(message) <= maxMessageBytes {
		return message
	}
	const tail = "\n..."
	message = message[:maxMessageBytes-len(tail)]
	for i := len(message) - 1; i > 0; i-- {
		if message[i] == '\n' {
			return message[:i] + tail
		}
	}
	return message + tail
}

// report puts findings into a status and tells whether that changed it.
func report(s *v1.MonitoringStatus, generation int64, now time.Time, findings ...finding) bool {
	changed := s.ObservedGeneration != generation
	s.ObservedGeneration = generation
	for _, f := range findings {
		if f.put(s, metav1.NewTime(now)) {
			changed = true
		}
	}
	return changed
}

// put makes the finding a condition and tells whether anything but times
// changed.
func (f finding) put(s *v1.MonitoringStatus, now metav1.Time) bool {
	c := v1.MonitoringCondition{
		Type: f.kind, Status: corev1.ConditionFalse, Reason: f.reason, Message: f.message,
		LastUpdateTime: now, LastTransitionTime: now,
	}
	if f.ok {
		c.Status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(s.Conditions, func(c v1.MonitoringCondition) bool { return c.Type == f.kind })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		slices.SortFunc(s.Conditions, func(a, b v1.MonitoringCondition) int { return cmp.Compare(b.Type, a.Type) })
		return true
	}
	old := &s.Conditions[i]
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
		if old.Reason == c.Reason && old.Message == c.Message {
			return false
		}
	}
	*old = c
	return true
}
