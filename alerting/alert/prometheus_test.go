package alert_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
)

var sequences = flag.Uint64("sequences", 1500, "number of generated sequences to compare with Prometheus' rules package")

// TestSameAsPrometheus runs generated rules over generated results, slot by
// slot, here and in Prometheus' rules package: states, recorded samples and
// notifications are equal. Not compared are the differences on purpose: a
// sequence ends where a limit is exceeded, and slots whose evaluation fails send
// nothing.
func TestSameAsPrometheus(t *testing.T) {
	t.Parallel()
	metrics := rules.NewGroupMetrics(nil)
	for seed := range *sequences {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(rnd, metrics)
			for range 5 + rnd.IntN(40) {
				if !w.slot(t, seed) {
					return
				}
			}
		})
	}
}

var (
	errQuery    = errors.New("query failed")
	externalURL = &url.URL{Scheme: "https", Host: "tocsin.example", Path: "/prefix"}
	external    = labels.FromStrings("fleet", "test", "severity", "external")
)

// world is one rule in both implementations, and the data it sees.
type world struct {
	rnd   *rand.Rand
	rule  alert.Rule
	state alert.State
	now   time.Time
	trace trace

	series []labels.Labels
	up     []bool

	theirs   *rules.Group
	vector   promql.Vector
	queryErr error
	recorded []string
	sent     []string
}

func newWorld(rnd *rand.Rand, metrics *rules.Metrics) *world {
	w := &world{rnd: rnd, rule: randomRule(rnd), now: base.Add(time.Duration(rnd.Int64N(int64(time.Minute))))}
	for i := range 1 + rnd.IntN(5) {
		w.series = append(w.series, randomSeries(rnd, i))
		w.up = append(w.up, rnd.IntN(2) == 0)
	}
	expr, err := parser.ParseExpr("x > 0")
	if err != nil {
		panic(err)
	}
	theirs := rules.NewAlertingRule(w.rule.Name, expr, w.rule.For, w.rule.KeepFiringFor,
		w.rule.Labels, w.rule.Annotations, external, externalURL.String(), true, slog.New(slog.DiscardHandler))
	w.theirs = rules.NewGroup(rules.GroupOptions{
		Name:        "group",
		Interval:    w.rule.Interval,
		QueryOffset: &w.rule.QueryOffset,
		Limit:       w.rule.Limit,
		Rules:       []rules.Rule{theirs},
		Opts: &rules.ManagerOptions{
			ExternalURL: externalURL,
			QueryFunc:   w.query,
			NotifyFunc:  w.notify,
			Appendable:  w,
			ResendDelay: w.rule.ResendDelay,
			Metrics:     metrics,
		},
	})
	return w
}

func pick[T any](rnd *rand.Rand, choices ...T) T { return choices[rnd.IntN(len(choices))] }

func randomRule(rnd *rand.Rand) alert.Rule {
	const s = time.Second
	plain := labels.EmptyLabels()
	return alert.Rule{
		Name:          "Generated",
		For:           pick(rnd, 0, 0, 30*s, 45*s, 60*s, 300*s),
		KeepFiringFor: pick(rnd, 0, 0, 60*s, 200*s),
		Interval:      pick(rnd, 15*s, 30*s, 60*s, 300*s),
		QueryOffset:   pick(rnd, 0, 0, 60*s),
		ResendDelay:   pick(rnd, 0, 30*s, 60*s, 300*s),
		Limit:         pick(rnd, 0, 0, 0, 0, 3),
		Labels: pick(rnd, plain, plain, plain, plain,
			labels.FromStrings("severity", "page", "job", "fixed", "alertname", "Other"),
			labels.FromStrings("severity", "{{ $externalLabels.severity }}", "empty", "{{ $labels.nope }}"),
			labels.FromStrings("level", "{{ if gt $value 50.0 }}high{{ else }}low{{ end }}"),
			labels.FromStrings("broken", "{{ $nope }}"),
			labels.FromStrings("instance", "{{ len $labels.instance }}")),
		Annotations: pick(rnd, plain, plain, plain, plain, plain, plain,
			labels.FromStrings("summary", "plain text", "empty", ""),
			labels.FromStrings("summary", `{{ $labels.job }} {{ $value | humanize }} {{ $externalURL }} {{ pathPrefix }} {{ now }}`),
			labels.FromStrings("queried", `{{ with query "y" }}{{ . | first | value }}{{ end }}`),
			labels.FromStrings("broken", "{{ template }}", "panics", `{{ reReplaceAll "(" "" "x" }}`)),
	}
}

func randomSeries(rnd *rand.Rand, i int) labels.Labels {
	b := labels.NewBuilder(labels.FromStrings("instance", fmt.Sprint(i)))
	if rnd.IntN(2) == 0 {
		b.Set(labels.MetricName, "x")
	}
	if rnd.IntN(3) == 0 {
		b.Set("job", pick(rnd, "api", "web"))
	}
	if rnd.IntN(6) == 0 {
		b.Set(pick(rnd, "alertstate", "alertname", "severity", "utf8.näme"), "data")
	}
	if rnd.IntN(20) == 0 {
		b.Del("instance")
	}
	return b.Labels()
}

// slot runs the next slot in both worlds and compares them; false ends the
// sequence.
func (w *world) slot(t *testing.T, seed uint64) bool {
	t.Helper()
	steps := pick(w.rnd, 1, 1, 1, 1, 1, 1, 1, 1, 2, 5, 40)
	w.now = w.now.Add(time.Duration(steps) * w.rule.Interval)
	w.churn()
	w.recorded, w.sent = nil, nil
	w.theirs.Eval(t.Context(), w.now)

	ours := w.stepOurs(t)
	theirs := outcome{state: w.theirState(), recorded: w.recorded, sent: w.sent}
	theirs.failed = w.theirs.Rules()[0].LastError() != nil
	w.trace = append(w.trace, traced{at: w.now, vector: w.vector, err: w.queryErr})
	if ours.failed && theirs.failed && w.rule.Limit > 0 && w.queryErr == nil {
		return false
	}
	require.Equal(t, theirs.String(), ours.String(),
		"differs from Prometheus; again with: go test ./alerting/alert -run 'TestSameAsPrometheus/seed=%d$' -sequences=%d\nrule: %+v\n%s",
		seed, seed+1, w.rule, w.trace)
	return true
}

// trace is what a sequence evaluated to, printed if it fails.
type trace []traced

type traced struct {
	at     time.Time
	vector promql.Vector
	err    error
}

func (t trace) String() string {
	var b strings.Builder
	for _, s := range t {
		fmt.Fprintf(&b, "%s: %v %v\n", s.at.Sub(base), s.vector, s.err)
	}
	return b.String()
}

func (w *world) churn() {
	w.vector, w.queryErr = nil, nil
	if w.rnd.IntN(15) == 0 {
		w.queryErr = errQuery
	}
	for i, series := range w.series {
		if w.rnd.IntN(5) == 0 {
			w.up[i] = !w.up[i]
		}
		if !w.up[i] {
			continue
		}
		sample := promql.Sample{Metric: series, F: pick(w.rnd, math.NaN(), math.Inf(1), 0, -0.5, w.rnd.Float64()*100, 1e9)}
		if w.rnd.IntN(20) == 0 {
			sample.F, sample.H = 0, &histogram.FloatHistogram{Count: 3, Sum: 7}
		}
		w.vector = append(w.vector, sample)
	}
	w.rnd.Shuffle(len(w.vector), func(i, j int) { w.vector[i], w.vector[j] = w.vector[j], w.vector[i] })
}

// outcome is what one implementation made of a slot, as sorted text.
type outcome struct {
	failed   bool
	state    []alert.Alert
	recorded []string
	sent     []string
}

func (o outcome) String() string {
	slices.SortFunc(o.state, func(a, b alert.Alert) int { return labels.Compare(a.Labels, b.Labels) })
	slices.Sort(o.recorded)
	slices.Sort(o.sent)
	return fmt.Sprintf("failed: %t\nstate:\n%srecorded:\n%ssent:\n%s", o.failed, lines(o.state), lines(o.recorded), lines(o.sent))
}

func (w *world) stepOurs(t *testing.T) outcome {
	t.Helper()
	if w.queryErr != nil {
		return outcome{failed: true, state: w.state.Alerts()}
	}
	expand := alerting.NewExpander(t.Context(), alerting.ExpanderConfig{
		Alert: w.rule.Name, Slot: w.now, ExternalLabels: external, ExternalURL: externalURL, Query: w.query,
	})
	result, err := alert.Step(w.rule, w.state, w.now, w.vector, expand)
	if err != nil {
		require.Equal(t, w.state, result.State, "an error changed the state")
		return outcome{failed: true, state: w.state.Alerts()}
	}
	w.state = result.State
	var o outcome
	for _, s := range result.Samples {
		o.recorded = append(o.recorded, formatSample(s))
	}
	var due []alert.Notification
	due, w.state = alert.ToSend(w.rule, w.state, w.now)
	for _, n := range due {
		o.sent = append(o.sent, fmt.Sprint(n, n.Annotations))
	}
	o.state = w.state.Alerts()
	return o
}

func (w *world) theirState() []alert.Alert {
	var alerts []alert.Alert
	w.theirs.Rules()[0].(*rules.AlertingRule).ForEachActiveAlert(func(a *rules.Alert) {
		alerts = append(alerts, alert.Alert{
			Labels:          a.Labels,
			Annotations:     a.Annotations,
			Status:          theirStatus[a.State],
			Value:           a.Value,
			ActiveAt:        a.ActiveAt,
			FiredAt:         a.FiredAt,
			ResolvedAt:      a.ResolvedAt,
			KeepFiringSince: a.KeepFiringSince,
			LastSentAt:      a.LastSentAt,
			ValidUntil:      a.ValidUntil,
		})
	})
	return alerts
}

var theirStatus = map[rules.AlertState]alert.Status{
	rules.StateInactive: alert.Inactive,
	rules.StatePending:  alert.Pending,
	rules.StateFiring:   alert.Firing,
}

// query answers the rule, and the query function of templates.
func (w *world) query(_ context.Context, q string, ts time.Time) (promql.Vector, error) {
	if q == "y" {
		return promql.Vector{{F: float64(ts.UnixMilli())}}, nil
	}
	return w.vector, w.queryErr
}

// notify is Prometheus' side of what ToSend says; upstream makes the end of a
// notification when it hands it to its notifier.
func (w *world) notify(_ context.Context, _ string, alerts ...*rules.Alert) {
	for _, a := range alerts {
		n := alert.Notification{Labels: a.Labels, StartsAt: a.FiredAt, EndsAt: a.ValidUntil}
		if !a.ResolvedAt.IsZero() {
			n.EndsAt, n.Resolved = a.ResolvedAt, true
		}
		w.sent = append(w.sent, fmt.Sprint(n, a.Annotations))
	}
}

func (w *world) Appender(context.Context) storage.Appender { return appender{world: w} }

// appender records what Prometheus' group appends, but for staleness markers.
type appender struct {
	storage.Appender
	world *world
}

func (a appender) Append(_ storage.SeriesRef, series labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	if !value.IsStaleNaN(v) {
		a.world.recorded = append(a.world.recorded, formatSample(promql.Sample{Metric: series, T: t, F: v}))
	}
	return 0, nil
}

func (appender) SetOptions(*storage.AppendOptions) {}
func (appender) Commit() error                     { return nil }
func (appender) Rollback() error                   { return nil }
