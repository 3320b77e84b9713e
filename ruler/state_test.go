package ruler

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// stateV1 is the state of mixed(), as members of the first version encode it.
const stateV1 = `{"rules":[{"id":"r{}","behindMs":60000,"series":[{"__name__":"r","a":"1"}]},` +
	`{"id":"Down{}","alerts":{"version":1,"alerts":[{"labels":{"alertname":"Down"},"annotations":{},"status":"pending","value":"1","activeAt":120000000000}]}}]}`

// mixed has a recording rule that is behind and a pending alert.
func mixed() rule.Group {
	return rule.Group{Key: "g", Name: "g", Interval: time.Minute, Rules: []rule.Rule{
		{Record: "r", Expr: mustParse("x")},
		{Alert: "Down", Expr: mustParse("x > 0"), For: time.Hour},
	}}
}

func TestStatesOfTheFirstVersionAreRead(t *testing.T) {
	t.Parallel()
	g := newGroup(mixed(), time.Minute)
	p, err := g.restore(handoff.GroupState{Key: "g", CommittedSlot: time.Unix(120, 0), Data: []byte(stateV1), Version: 1})
	require.NoError(t, err)
	require.Equal(t, map[int]time.Time{0: time.Unix(60, 0).UTC()}, p.Behind)
	require.Equal(t, []labels.Labels{labels.FromStrings("__name__", "r", "a", "1")}, g.get(0).series)
	require.Equal(t, 1, g.get(1).alerts.Count(alert.Pending))
	state, err := g.encode(p)
	require.NoError(t, err)

	again := newGroup(mixed(), time.Minute)
	p2, err := again.restore(state)
	require.NoError(t, err)
	require.Equal(t, p.Behind, p2.Behind)
	for i := range g.rules {
		require.Equal(t, g.get(i).series, again.get(i).series)
		require.Equal(t, g.get(i).alerts.String(), again.get(i).alerts.String())
	}
	for _, bad := range []handoff.GroupState{{Data: state.Data, Version: 3}, {Data: state.Data[1:], Version: 2}, {Data: []byte("{"), Version: 1}} {
		_, err := again.restore(bad)
		require.ErrorContains(t, err, "decode state of group")
	}
}

func TestAStateIsEncodedAgainOnlyWhereItChanged(t *testing.T) {
	t.Parallel()
	g := newGroup(mixed(), time.Minute)
	progress := schedule.Progress{Committed: time.Unix(60, 0)}
	encode := func() string {
		state, err := g.encode(progress)
		require.NoError(t, err)
		return string(state.Data)
	}
	// afresh is what a group without memory encodes.
	afresh := func() string {
		other := newGroup(mixed(), time.Minute)
		for i := range g.rules {
			other.rules[i].series, other.rules[i].alerts = g.rules[i].series, g.rules[i].alerts
		}
		state, err := other.encode(progress)
		require.NoError(t, err)
		return string(state.Data)
	}
	series := func(values ...string) (all []labels.Labels) {
		for _, v := range values {
			all = append(all, labels.FromStrings("__name__", "r", "a", v))
		}
		return all
	}
	firing := func(at int64) alert.State {
		slot := time.Unix(at, 0)
		result, err := alert.Step(alertRule(g.def, g.def.Rules[1], time.Minute), g.get(1).alerts, slot, promql.Vector{{F: float64(at)}},
			func(text string, _ promql.Sample) (string, error) { return text, nil })
		require.NoError(t, err)
		return result.State
	}
	for name, step := range map[string]struct {
		change  func()
		changes bool
	}{
		"nothing":         {func() {}, false},
		"the same series": {func() { g.update(0, func(s *ruleState) { s.setSeries(series()) }) }, false},
		"health only":     {func() { g.update(0, func(s *ruleState) { s.duration = time.Second }) }, false},
		"other series":    {func() { g.update(0, func(s *ruleState) { s.setSeries(series("1", "2")) }) }, true},
		"an alert": {func() {
			next := firing(120)
			g.update(1, func(s *ruleState) { s.setAlerts(next) })
		}, true},
		"progress": {func() {
			progress.Behind = map[int]time.Time{0: time.Unix(60, 0)}
		}, true},
	} {
		g = newGroup(mixed(), time.Minute)
		progress.Behind = nil
		before := g.rules[0].encoded
		text := encode()
		require.NotEqual(t, before, g.rules[0].encoded)
		kept := g.encoded
		step.change()
		require.Equal(t, afresh(), encode(), name)
		require.Equal(t, step.changes, text != encode(), name)
		if !step.changes {
			require.Same(t, &kept[0], &g.encoded[0], "%s: the same bytes", name)
		}
	}
}

func BenchmarkEncodeAfterASlotWithoutChanges(b *testing.B) {
	def := mixed()
	for range 9 {
		def.Rules = append(def.Rules, def.Rules[0])
	}
	g := newGroup(def, time.Minute)
	for i := range g.rules {
		if def.Rules[i].Record != "" {
			g.rules[i].series = []labels.Labels{labels.FromStrings("__name__", "r", "cluster", "east", "namespace", "shop", "job", "api")}
		}
	}
	for name, forget := range map[string]bool{"all=false": false, "all=true": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if forget {
					g.encoded = nil
					for i := range g.rules {
						g.rules[i].encoded = nil
					}
				}
				if _, err := g.encode(schedule.Progress{Committed: time.Unix(60, 0)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
