package ruler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// stateVersion is raised when the meaning of an encoded field changes. Version 2
// is a list of rules, each of them JSON that is compressed by itself, one after the
// other; version 1 was one JSON document.
const stateVersion = 2

// encodedGroup is version 1.
type encodedGroup struct {
	Rules []encodedRule `json:"rules"`
}

// encodedRule is what of a rule moves with its group from member to member.
// Rules are known by their identity, so that the state fits an edited group too.
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
	var data []byte
	for i := range g.rules {
		encoded, err := g.encodeRule(i, p.Behind[i])
		if err != nil {
			return handoff.GroupState{}, fmt.Errorf("encode state of group %q: %w", g.def.Key, err)
		}
		data = append(data, encoded...)
	}
	state.Data, g.encoded = data, data
	if len(p.Behind) > 0 {
		g.encoded = nil
	}
	return state, nil
}

// encodeRule returns an encodedRule, compressed. The lock is held.
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
		return compress(e)
	}
	var err error
	s.encoded, err = compress(e)
	return s.encoded, err
}

// What compresses and decompresses is expensive to make, and may be used by many.
// The options of both are such that making them does not fail.
var (
	encoder    = newEncoder()
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxStateBytes))
)

// newEncoder has a small window: the default would take 32 MiB of every member.
func newEncoder() *zstd.Encoder {
	e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	// It makes the channel that its users share when it is first used. That must
	// not be in the bubble of one test.
	e.EncodeAll(nil, nil)
	return e
}

// maxStateBytes bounds the state of one group when it is not compressed.
const maxStateBytes = 1 << 30

// compress makes a tenth of what an alert takes: its labels are mostly those of
// its neighbours.
func compress(e encodedRule) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return slices.Clip(encoder.EncodeAll(text, nil)), nil
}

// decodeRules reads the state of any version.
func decodeRules(s handoff.GroupState) ([]encodedRule, error) {
	switch s.Version {
	case 1:
		var enc encodedGroup
		err := json.Unmarshal(s.Data, &enc)
		return enc.Rules, err
	case stateVersion:
	default:
		return nil, fmt.Errorf("version %d is unknown, this member reads versions up to %d", s.Version, stateVersion)
	}
	text, err := decoder.DecodeAll(s.Data, nil)
	if err != nil {
		return nil, err
	}
	var rules []encodedRule
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var e encodedRule
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return rules, nil
		case err != nil:
			return nil, err
		}
		rules = append(rules, e)
	}
}

// restore takes over what another member knew of the group and returns how
// far the group had come.
func (g *group) restore(s handoff.GroupState) (schedule.Progress, error) {
	p := schedule.Progress{Committed: s.CommittedSlot}
	if len(s.Data) == 0 {
		return p, nil
	}
	rules, err := decodeRules(s)
	if err != nil {
		return p, fmt.Errorf("decode state of group %q: %w", s.Key, err)
	}
	byID := map[string]encodedRule{}
	for _, e := range rules {
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
