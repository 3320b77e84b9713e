package ruler

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// stateVersion is raised when the meaning of an encoded field changes.
const stateVersion = 1

// encodedGroup is what moves with a group from member to member. Rules are
// known by their identity, so that the state fits an edited group too.
type encodedGroup struct {
	Rules []encodedRule `json:"rules"`
}

type encodedRule struct {
	ID string `json:"id"`
	// BehindMs is the first slot that a rule which lags behind the group
	// still has to be evaluated for, in milliseconds.
	BehindMs int64           `json:"behindMs,omitempty"`
	Series   []labels.Labels `json:"series,omitempty"`
	Alerts   *alert.State    `json:"alerts,omitempty"`
	// Unwritten are samples of an alerting rule that wait for a backend.
	Unwritten unwritten `json:"unwritten,omitempty"`
}

// encode encodes the state of the group after a slot. What has not changed since
// the last time is not encoded again: after most slots of most groups that is
// everything, and the bytes are the same ones.
func (g *group) encode(p schedule.Progress) (handoff.GroupState, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	state := handoff.GroupState{Key: g.def.Key, CommittedSlot: p.Committed, Data: g.encoded, Version: stateVersion}
	if g.encoded != nil && len(p.Behind) == 0 {
		return state, nil
	}
	enc := struct {
		Rules []json.RawMessage `json:"rules"`
	}{make([]json.RawMessage, len(g.rules))}
	for i := range g.rules {
		var err error
		if enc.Rules[i], err = g.encodeRule(i, p.Behind[i]); err != nil {
			return handoff.GroupState{}, fmt.Errorf("encode state of group %q: %w", g.def.Key, err)
		}
	}
	data, err := json.Marshal(enc)
	if err != nil {
		return handoff.GroupState{}, fmt.Errorf("encode state of group %q: %w", g.def.Key, err)
	}
	state.Data, g.encoded = data, data
	if len(p.Behind) > 0 {
		g.encoded = nil
	}
	return state, nil
}

// encodeRule returns an encodedRule. The lock is held.
func (g *group) encodeRule(i int, behind time.Time) ([]byte, error) {
	s := &g.rules[i]
	if s.encoded != nil && behind.IsZero() {
		return s.encoded, nil
	}
	e := encodedRule{ID: g.ids[i], Series: s.series}
	if g.def.Rules[i].Alert != "" {
		e.Alerts, e.Unwritten = &s.alerts, s.unwritten
	}
	if !behind.IsZero() {
		e.BehindMs = behind.UnixMilli()
		return json.Marshal(e)
	}
	var err error
	s.encoded, err = json.Marshal(e)
	return s.encoded, err
}

// restore takes over what another member knew of the group and returns how
// far the group had come.
func (g *group) restore(s handoff.GroupState) (schedule.Progress, error) {
	p := schedule.Progress{Committed: s.CommittedSlot}
	if len(s.Data) == 0 {
		return p, nil
	}
	if s.Version != stateVersion {
		return p, fmt.Errorf("decode state of group %q: version %d is unknown, this member reads version %d", s.Key, s.Version, stateVersion)
	}
	var enc encodedGroup
	if err := json.Unmarshal(s.Data, &enc); err != nil {
		return p, fmt.Errorf("decode state of group %q: %w", s.Key, err)
	}
	byID := map[string]encodedRule{}
	for _, e := range enc.Rules {
		byID[e.ID] = e
	}
	p.Behind = map[int]time.Time{}
	for i, id := range g.ids {
		e, ok := byID[id]
		if !ok {
			continue
		}
		g.update(i, func(s *ruleState) {
			s.setSeries(e.Series)
			s.setUnwritten(e.Unwritten)
			if e.Alerts != nil {
				s.setAlerts(*e.Alerts)
			}
		})
		if e.BehindMs != 0 {
			p.Behind[i] = time.UnixMilli(e.BehindMs).UTC()
		}
	}
	return p, nil
}
