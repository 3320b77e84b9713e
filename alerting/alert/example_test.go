package alert_test

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// One slot of one rule, in the order that a shell keeps to.
func Example() {
	rule := alert.Rule{Name: "Down", Interval: time.Minute, ResendDelay: time.Minute, Labels: labels.FromStrings("severity", "page")}
	slot := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

	// No other member has handed a state over: what does the backend know?
	tolerance := alert.Tolerance{Outage: time.Hour, ForGracePeriod: 10 * time.Minute}
	state := alert.Restore(rule, slot, alert.Evidence{}, tolerance)

	// The expression was evaluated at the slot. Had that failed, the state would
	// stay as it is and sending would go on with it.
	vector := promql.Vector{{Metric: labels.FromStrings("instance", "a"), F: 0}}
	result, err := alert.Step(rule, state, slot, vector, verbatim)
	if err != nil {
		fmt.Println("the rule's health:", err)
	}

	// Samples are written; whether that succeeds or not, people are told.
	due, state := alert.ToSend(rule, result.State, slot)
	fmt.Println(len(result.Samples), "samples")
	fmt.Println(due[0])
	fmt.Print(state)
	// Output:
	// 2 samples
	// firing {alertname="Down", instance="a", severity="page"} starts=2026-01-02T03:04:00Z ends=2026-01-02T03:08:00Z
	// firing {alertname="Down", instance="a", severity="page"} value=0 active=2026-01-02T03:04:00Z fired=2026-01-02T03:04:00Z sent=2026-01-02T03:04:00Z valid-until=2026-01-02T03:08:00Z
}
