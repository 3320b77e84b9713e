package alert_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

func verbatim(text string, _ promql.Sample) (string, error) { return text, nil }

func TestDecodeRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ encoded, err string }{
		"no JSON":                {`{"version":`, "unexpected end of JSON input"},
		"another version":        {`{"version":2}`, "version 2 is unknown, this member reads version 1"},
		"no version":             {`{}`, "version 0 is unknown"},
		"an unknown status":      {`{"version":1,"alerts":[{"labels":{"a":"1"},"status":"asleep","value":"1"}]}`, `alert {a="1"}: unknown status "asleep"`},
		"a value that is none":   {`{"version":1,"alerts":[{"labels":{"a":"1"},"status":"firing","value":"many"}]}`, "invalid syntax"},
		"the same alert twice":   {`{"version":1,"alerts":[{"labels":{},"status":"firing","value":"1"},{"labels":{},"status":"firing","value":"1"}]}`, "is there twice"},
		"restored and not":       {`{"version":1,"alerts":[{"status":"firing","value":"1"}],"restored":[{"status":"firing","value":"1"}]}`, "both alerts and restored"},
		"labels that are a list": {`{"version":1,"alerts":[{"labels":[]}]}`, "decode alert state"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s alert.State
			require.ErrorContains(t, json.Unmarshal([]byte(c.encoded), &s), c.err)
			require.Empty(t, s.Alerts())
		})
	}
}

// The encoding is read by other versions of this program: this one stays.
func TestEncodingIsStable(t *testing.T) {
	t.Parallel()
	const encoded = `{"version":1,"alerts":[{"labels":{"a":"1","alertname":"X"},"annotations":{"summary":"text"},` +
		`"status":"firing","value":"NaN","activeAt":1000000000000000001,"firedAt":1000000000000000002,` +
		`"keepFiringSince":1000000000000000003,"lastSentAt":1000000000000000004,"validUntil":1000000000000000005}]}`
	var s alert.State
	require.NoError(t, json.Unmarshal([]byte(encoded), &s))
	again, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, encoded, string(again))
	require.Equal(t, alert.Firing, s.Status())
	require.Equal(t, 1, s.Count(alert.Firing))
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"alerts":[{"labels":{"a":"1"},"status":"firing","value":"1","activeAt":-1}]}`))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var s alert.State
		if json.Unmarshal(encoded, &s) != nil {
			return
		}
		again, err := json.Marshal(s)
		require.NoError(t, err)
		var same alert.State
		require.NoError(t, json.Unmarshal(again, &same))
		require.Equal(t, s.String(), same.String())
	})
}

// A value that a caller holds is not changed by what comes after.
func TestStepAndToSendLeaveTheirInputsAlone(t *testing.T) {
	t.Parallel()
	rule := alert.Rule{Name: "X", Interval: time.Minute, ResendDelay: time.Minute}
	vector := promql.Vector{{Metric: labels.FromStrings("a", "2")}, {Metric: labels.FromStrings("a", "1")}}
	first, err := alert.Step(rule, alert.State{}, base, vector, verbatim)
	require.NoError(t, err)
	before := first.State.String()
	_, sent := alert.ToSend(rule, first.State, base)
	_, err = alert.Step(rule, sent, base.Add(time.Minute), nil, verbatim)
	require.NoError(t, err)
	require.Equal(t, before, first.State.String())
	require.Equal(t, "2", vector[0].Metric.Get("a"))
	require.Equal(t, 2, sent.Count(alert.Firing))
}
