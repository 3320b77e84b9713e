package alert_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// TestRestoresAsPrometheusAfterAnOutage compares Restore with the restoration of
// Prometheus' rules package: over rules, times spent pending and outages, the
// alert is active from the same time on. Prometheus restores after its first
// evaluation, which is that of the slot before.
func TestRestoresAsPrometheusAfterAnOutage(t *testing.T) {
	t.Parallel()
	metrics := rules.NewGroupMetrics(nil)
	for _, hold := range []time.Duration{5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 40 * time.Minute} {
		for pending := time.Duration(0); pending <= 45*time.Minute; pending += 3 * time.Minute {
			for _, lost := range []int{1, 4, 11, 30} {
				t.Run(fmt.Sprintf("for %s, pending for %s, %d slots lost", hold, pending, lost), func(t *testing.T) {
					t.Parallel()
					c := outage{hold: hold, downAt: base.Add(pending)}
					c.slot = c.downAt.Add(time.Duration(lost+1) * time.Minute)
					require.Equal(t, c.theirs(t, metrics).String(), c.ours(t).String())
				})
			}
		}
	}
}

// outage is an alert that became active at base, the time of its last sample,
// and the first slot after an outage, of a rule with an interval of a minute.
type outage struct {
	hold   time.Duration
	downAt time.Time
	slot   time.Time
}

var (
	outageTolerance = alert.Tolerance{Outage: time.Hour, ForGracePeriod: 10 * time.Minute}
	forStateSeries  = labels.FromStrings("__name__", "ALERTS_FOR_STATE", "alertname", "X", "a", "1")
)

// ours is the time from which the alert is active, which is the slot's if
// nothing is restored, and the slot before in Prometheus.
func (c outage) ours(t *testing.T) time.Time {
	t.Helper()
	found := alert.Evidence{ForState: []promql.Sample{
		{Metric: forStateSeries, T: timestamp.FromTime(c.downAt), F: float64(base.Unix())},
	}}
	rule := alert.Rule{Name: "X", For: c.hold, Interval: time.Minute}
	restored := alert.Restore(rule, c.slot, found, outageTolerance)
	vector := promql.Vector{{Metric: labels.FromStrings("a", "1"), F: 1}}
	result, err := alert.Step(rule, restored, c.slot, vector, verbatim)
	require.NoError(t, err)
	activeAt := result.State.Alerts()[0].ActiveAt
	if activeAt.Equal(c.slot) {
		return c.slot.Add(-time.Minute)
	}
	return activeAt
}

func (c outage) theirs(t *testing.T, metrics *rules.Metrics) time.Time {
	t.Helper()
	expr, err := parser.ParseExpr("x > 0")
	require.NoError(t, err)
	rule := rules.NewAlertingRule("X", expr, c.hold, 0, labels.EmptyLabels(), labels.EmptyLabels(), labels.EmptyLabels(), "",
		false, slog.New(slog.DiscardHandler))
	stored := &prompb.QueryResult{Timeseries: []*prompb.TimeSeries{{
		Labels:  prompb.FromLabels(forStateSeries, nil),
		Samples: []prompb.Sample{{Timestamp: timestamp.FromTime(c.downAt), Value: float64(base.Unix())}},
	}}}
	group := rules.NewGroup(rules.GroupOptions{Name: "group", Interval: time.Minute, Rules: []rules.Rule{rule}, Opts: &rules.ManagerOptions{
		Context:         t.Context(),
		Metrics:         metrics,
		OutageTolerance: outageTolerance.Outage,
		ForGracePeriod:  outageTolerance.ForGracePeriod,
		Queryable: &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
			SelectMockFunction: func(bool, *storage.SelectHints, ...*labels.Matcher) storage.SeriesSet {
				return remote.FromQueryResult(false, stored)
			},
		}},
	}})
	query := func(context.Context, string, time.Time) (promql.Vector, error) {
		return promql.Vector{{Metric: labels.FromStrings("a", "1"), F: 1}}, nil
	}
	_, err = rule.Eval(t.Context(), 0, c.slot.Add(-time.Minute), query, &url.URL{}, 0)
	require.NoError(t, err)
	group.RestoreForState(c.slot.Add(-time.Minute))
	require.Len(t, rule.ActiveAlerts(), 1)
	return rule.ActiveAlerts()[0].ActiveAt
}
