package ruler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// Replay is one rule group outside of the evaluation loop: somebody else says
// which slots there are, answers the queries and writes what comes out. In
// between it does what the loop does. It sends no notifications, and leaves
// out the marker of how far the group has come, which is for members only.
//
// A Replay is used by one goroutine at a time.
type Replay struct {
	group    *group
	producer producer
}

// NewReplay returns the group before its first slot.
func NewReplay(def rule.Group, templates Templates, logger *slog.Logger) *Replay {
	resend := DefaultConfig().ResendDelay
	return &Replay{
		group:    newGroup(def, resend),
		producer: producer{templates: templates, resend: resend, log: logger},
	}
}

// Stages are the rules, by index, in the order of evaluation: those of a stage at
// once, and after what those before it recorded can be read.
func (r *Replay) Stages() [][]int {
	stages, _ := r.group.order()
	return stages
}

// Query is what has to be evaluated for a rule, at the slot less the group's
// query offset. It is not content with a part of the data, even if the group is:
// nobody is in a hurry.
func (r *Replay) Query(i int) Query {
	q := r.group.query(i)
	q.Partial = false
	return q
}

// Produce takes a rule to a slot, at which its query returned vector, and
// returns what is to be written: samples, and staleness markers of series that
// have ended. They count as written. After an error the rule is where it was.
func (r *Replay) Produce(ctx context.Context, i int, slot time.Time, vector promql.Vector) (write.Unit, error) {
	samples, markers, err := r.producer.produce(ctx, r.group, i, slot, Result{Vector: vector})
	if err != nil {
		return nil, err
	}
	r.group.update(i, func(s *ruleState) { s.setSeries(seriesOf(samples)) })
	return append(slices.Clone(write.Unit(samples)), markers...), nil
}

// Alerts are those of a rule after its last slot, resolved ones included,
// sorted by labels.
func (r *Replay) Alerts(i int) []alert.Alert { return r.group.get(i).alerts.Alerts() }

// MarshalJSON encodes the state after the last slot.
func (r *Replay) MarshalJSON() ([]byte, error) {
	state, err := r.group.encode(schedule.Progress{})
	if err != nil {
		return nil, err
	}
	return json.Marshal(encodedReplay{Version: state.Version, Rules: state.Data})
}

// UnmarshalJSON takes over a state that was encoded for the same group.
func (r *Replay) UnmarshalJSON(data []byte) error {
	var enc encodedReplay
	if err := json.Unmarshal(data, &enc); err != nil {
		return fmt.Errorf("decode state of group %q: %w", r.group.def.Key, err)
	}
	_, err := r.group.restore(handoff.GroupState{Key: r.group.def.Key, Version: enc.Version, Data: enc.Rules})
	return err
}

// encodedReplay is a handoff.GroupState without what only members need.
type encodedReplay struct {
	Version uint32 `json:"version"`
	Rules   []byte `json:"state"`
}
