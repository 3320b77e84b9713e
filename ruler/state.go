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
}

// encode encodes the state of the group after a slot.
func (g *group) encode(p schedule.Progress) (handoff.GroupState, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	enc := encodedGroup{Rules: make([]encodedRule, len(g.rules))}
	for i, s := range g.rules {
		e := encodedRule{ID: g.ids[i], Series: s.series}
		if t, ok := p.Behind[i]; ok {
			e.BehindMs = t.UnixMilli()
		}
		if g.def.Rules[i].Alert != "" {
			e.Alerts = &s.alerts
		}
		enc.Rules[i] = e
	}
	data, err := json.Marshal(enc)
	if err != nil {
		return handoff.GroupState{}, fmt.Errorf("encode state of group %q: %w", g.def.Key, err)
	}
	return handoff.GroupState{Key: g.def.Key, CommittedSlot: p.Committed, Data: data, Version: stateVersion}, nil
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
			s.series = e.Series
			if e.Alerts != nil {
				s.alerts = *e.Alerts
			}
		})
		if e.BehindMs != 0 {
			p.Behind[i] = time.UnixMilli(e.BehindMs).UTC()
		}
	}
	return p, nil
}
