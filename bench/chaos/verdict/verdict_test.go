package verdict

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
)

func series(name string, values ...float64) promql.Series {
	s := promql.Series{Metric: labels.FromStrings("__name__", name, "group", "g1", "cluster", "east")}
	for i, v := range values {
		if !math.IsInf(v, 0) { // a hole
			s.Floats = append(s.Floats, promql.FPoint{T: int64(i) * 1000, F: v})
		}
	}
	return s
}

var (
	hole  = math.Inf(1)
	stale = math.Float64frombits(value.StaleNaN)
)

func TestSamplesAreComparedOneByOne(t *testing.T) {
	t.Parallel()
	got := CompareSamples(
		[]promql.Series{series("a", 1, 2, stale, 3), series("b", 1)},
		[]promql.Series{series("a", 1, hole, stale, 4), series("c", 1)},
	)
	require.Equal(t, Samples{Expected: 5, Missing: 2, Different: 1, Unexpected: 1, Examples: []string{
		`missing {__name__="a", cluster="east", group="g1"} at 00:00:01`,
		`{__name__="a", cluster="east", group="g1"} at 00:00:03 is 4, not 3`,
		`missing {__name__="b", cluster="east", group="g1"} at 00:00:00`,
		`unexpected {__name__="c", cluster="east", group="g1"} at 00:00:00`,
	}}, got)
}

func TestASlotIsThereIfAnythingOfTheGroupIs(t *testing.T) {
	t.Parallel()
	expected, missing := Slots(
		[]promql.Series{series("a", 1, 1, 1), series("b", 1, 1, stale)},
		[]promql.Series{series("b", 1, hole, stale)},
	)
	require.Equal(t, []int{3, 2}, []int{expected, missing}, "a marker is no evaluation")
}

func TestAnAlertThatBecameActiveLaterStartedOver(t *testing.T) {
	t.Parallel()
	want := []promql.Series{series("ALERTS_FOR_STATE", 10, 10, 10, 10, 50)}
	require.Zero(t, Resets(want, want))
	require.Equal(t, 1, Resets(want, []promql.Series{series("ALERTS_FOR_STATE", 10, hole, 12, 12, 50)}))
	require.Zero(t, Resets(want, []promql.Series{series("ALERTS_FOR_STATE", hole, 12, 12, 12, 50)}), "it began late")
}

func TestNotificationsAreComparedAsASet(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	told := func(unit, status string, at time.Time) Notification {
		return Notification{Status: status, StartsAt: at, Labels: map[string]string{"alertname": "A", "cluster": "east", "unit": unit}}
	}
	want := []Notification{told("u1", "firing", start), told("u1", "resolved", start), told("u2", "firing", start)}
	got := []Notification{
		told("u1", "firing", start.Add(time.Second)), told("u1", "firing", start.Add(time.Second)),
		told("u1", "resolved", start.Add(signal.Period)), told("u2", "firing", start),
	}
	v := CompareNotifications(want, got, Window{From: start, Until: start.Add(2 * signal.Period)})
	require.Equal(t, 3, v.Expected)
	require.Equal(t, []int{1, 1, 1, 1}, []int{v.Missing, v.Unexpected, v.Later, v.Repeated}, "%+v", v)
	v = CompareNotifications(want, got, Window{From: start, Until: start.Add(time.Minute)})
	require.Zero(t, v.Unexpected, "it started after the window")
}
