package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// encodingVersion is raised when the meaning of an encoded field changes;
// fields that older members may ignore are added without.
const encodingVersion = 1

type encodedState struct {
	Version  int            `json:"version"`
	Alerts   []encodedAlert `json:"alerts,omitempty"`
	Restored []encodedAlert `json:"restored,omitempty"`
}

// encodedAlert holds times as nanoseconds since 1970, 0 for none, and the value
// as text, for JSON knows no NaN.
type encodedAlert struct {
	Labels          labels.Labels `json:"labels"`
	Annotations     labels.Labels `json:"annotations"`
	Status          string        `json:"status"`
	Value           string        `json:"value"`
	ActiveAt        int64         `json:"activeAt,omitempty"`
	FiredAt         int64         `json:"firedAt,omitempty"`
	ResolvedAt      int64         `json:"resolvedAt,omitempty"`
	KeepFiringSince int64         `json:"keepFiringSince,omitempty"`
	LastSentAt      int64         `json:"lastSentAt,omitempty"`
	ValidUntil      int64         `json:"validUntil,omitempty"`
}

// MarshalJSON encodes the state. Equal states have equal encodings.
func (s State) MarshalJSON() ([]byte, error) {
	return json.Marshal(encodedState{
		Version:  encodingVersion,
		Alerts:   encodeAlerts(s.alerts),
		Restored: encodeAlerts(s.restored),
	})
}

// UnmarshalJSON decodes what MarshalJSON encoded, on this member or another. It
// refuses encodings of a version that it does not know.
func (s *State) UnmarshalJSON(b []byte) error {
	var enc encodedState
	if err := json.Unmarshal(b, &enc); err != nil {
		return fmt.Errorf("decode alert state: %w", err)
	}
	if enc.Version != encodingVersion {
		return fmt.Errorf("decode alert state: version %d is unknown, this member reads version %d", enc.Version, encodingVersion)
	}
	alerts, err := decodeAlerts(enc.Alerts)
	if err != nil {
		return fmt.Errorf("decode alert state: %w", err)
	}
	restored, err := decodeAlerts(enc.Restored)
	if err != nil {
		return fmt.Errorf("decode alert state: restored: %w", err)
	}
	if len(alerts) > 0 && len(restored) > 0 {
		return errors.New("decode alert state: it has both alerts and restored alerts")
	}
	*s = State{alerts: alerts, restored: restored}
	return nil
}

func encodeAlerts(alerts []Alert) []encodedAlert {
	encoded := make([]encodedAlert, len(alerts))
	for i, a := range alerts {
		encoded[i] = encodedAlert{
			Labels:          a.Labels,
			Annotations:     a.Annotations,
			Status:          a.Status.String(),
			Value:           formatValue(a.Value),
			ActiveAt:        encodeTime(a.ActiveAt),
			FiredAt:         encodeTime(a.FiredAt),
			ResolvedAt:      encodeTime(a.ResolvedAt),
			KeepFiringSince: encodeTime(a.KeepFiringSince),
			LastSentAt:      encodeTime(a.LastSentAt),
			ValidUntil:      encodeTime(a.ValidUntil),
		}
	}
	return encoded
}

func decodeAlerts(encoded []encodedAlert) ([]Alert, error) {
	alerts := make([]Alert, len(encoded))
	for i, e := range encoded {
		a, err := e.decode()
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", e.Labels, err)
		}
		alerts[i] = a
	}
	sortAlerts(alerts)
	if lset, found := duplicate(alerts); found {
		return nil, fmt.Errorf("alert %s is there twice", lset)
	}
	return alerts, nil
}

func (e encodedAlert) decode() (Alert, error) {
	status := slices.Index(statusNames[:], e.Status)
	if status < 0 {
		return Alert{}, fmt.Errorf("unknown status %q", e.Status)
	}
	value, err := strconv.ParseFloat(e.Value, 64)
	if err != nil {
		return Alert{}, fmt.Errorf("value: %w", err)
	}
	return Alert{
		Labels:          e.Labels,
		Annotations:     e.Annotations,
		Status:          Status(status),
		Value:           value,
		ActiveAt:        decodeTime(e.ActiveAt),
		FiredAt:         decodeTime(e.FiredAt),
		ResolvedAt:      decodeTime(e.ResolvedAt),
		KeepFiringSince: decodeTime(e.KeepFiringSince),
		LastSentAt:      decodeTime(e.LastSentAt),
		ValidUntil:      decodeTime(e.ValidUntil),
	}, nil
}

func encodeTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func decodeTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
