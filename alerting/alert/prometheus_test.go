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

	"github.com/prometheus/client_golang/prometheus"
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

var sequences = flag.Uint64("sequences", 400, "number of generated sequences to compare with Prometheus' rules package")

// TestSameAsPrometheus runs groups of generated rules over generated results,
// slot by slot, here and in Prometheus' rules package: states, recorded samples
// and notifications are equal. In between rules are edited, moved, dropped and
// added, and now and then ours move to another member. Not compared are the
// differences on purpose, which are in differences_test.go: a sequence ends where
// a limit is exceeded, and slots whose evaluation fails send nothing.
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
	templates   = alerting.NewTemplates(alerting.TemplatesConfig{ExternalLabels: external, ExternalURL: externalURL}, prometheus.NewRegistry())
)

// world is one group in both implementations, and the data it sees.
type world struct {
	rnd     *rand.Rand
	metrics *rules.Metrics
	group   alert.Rule // what the rules of the group have in common
	rules   []alert.Rule
	states  []alert.State
	now     time.Time
	trace   trace

	series []labels.Labels
	up     []bool

	theirs   *rules.Group
	vector   promql.Vector
	queryErr error
	recorded []string
	sent     []string
}

func newWorld(rnd *rand.Rand, metrics *rules.Metrics) *world {
	w := &world{rnd: rnd, metrics: metrics, now: base.Add(time.Duration(rnd.Int64N(int64(time.Minute))))}
	w.group = randomGroup(rnd)
	for range 1 + rnd.IntN(3) {
		w.rules = append(w.rules, w.randomRule())
	}
	w.states = make([]alert.State, len(w.rules))
	for i := range 1 + rnd.IntN(5) {
		w.series = append(w.series, randomSeries(rnd, i))
		w.up = append(w.up, rnd.IntN(2) == 0)
	}
	w.theirs = w.newTheirs()
	return w
}

// newTheirs is the group as it is now, in Prometheus.
func (w *world) newTheirs() *rules.Group {
	expr, err := parser.ParseExpr("x > 0")
	if err != nil {
		panic(err)
	}
	var theirs []rules.Rule
	for _, r := range w.rules {
		theirs = append(theirs, rules.NewAlertingRule(r.Name, expr, r.For, r.KeepFiringFor,
			r.Labels, r.Annotations, external, externalURL.String(), true, slog.New(slog.DiscardHandler)))
	}
	return rules.NewGroup(rules.GroupOptions{
		Name:        "group",
		Interval:    w.group.Interval,
		QueryOffset: &w.group.QueryOffset,
		Limit:       w.group.Limit,
		Rules:       theirs,
		Opts: &rules.ManagerOptions{
			ExternalURL: externalURL,
			QueryFunc:   w.query,
			NotifyFunc:  w.notify,
			Appendable:  w,
			ResendDelay: w.group.ResendDelay,
			Metrics:     w.metrics,
		},
	})
}

// edit changes the definition of the group. Rules that keep their identity keep
// their state.
func (w *world) edit() {
	old, ids := w.states, alert.Identities(w.rules)
	switch w.rnd.IntN(5) {
	case 0:
		w.rnd.Shuffle(len(w.rules), func(i, j int) { w.rules[i], w.rules[j] = w.rules[j], w.rules[i] })
	case 1:
		w.rules = w.rules[:len(w.rules)-1]
	case 2:
		w.rules = append([]alert.Rule{w.randomRule()}, w.rules...)
	case 3:
		w.group = randomGroup(w.rnd)
	default:
		i := w.rnd.IntN(len(w.rules))
		edited := w.randomRule()
		edited.Name, edited.Labels = w.rules[i].Name, w.rules[i].Labels
		w.rules[i] = edited
	}
	if len(w.rules) == 0 {
		w.rules = []alert.Rule{w.randomRule()}
	}
	for i := range w.rules {
		w.rules[i] = w.inGroup(w.rules[i])
	}
	w.states = make([]alert.State, len(w.rules))
	for i, id := range alert.Identities(w.rules) {
		if n := slices.Index(ids, id); n >= 0 {
			w.states[i] = old[n]
		}
	}
	next := w.newTheirs()
	next.CopyState(w.theirs)
	w.theirs = next
	w.trace = append(w.trace, fmt.Sprintf("edited: %+v", w.rules))
}

func pick[T any](rnd *rand.Rand, choices ...T) T { return choices[rnd.IntN(len(choices))] }

func randomGroup(rnd *rand.Rand) alert.Rule {
	const s = time.Second
	return alert.Rule{
		Interval:    pick(rnd, 15*s, 30*s, 60*s, 300*s),
		QueryOffset: pick(rnd, 0, 0, 60*s),
		ResendDelay: pick(rnd, 0, 30*s, 60*s, 300*s),
		Limit:       pick(rnd, 0, 0, 0, 0, 3),
	}
}

// inGroup is a rule with the settings of the group.
func (w *world) inGroup(r alert.Rule) alert.Rule {
	r.Interval, r.QueryOffset, r.ResendDelay, r.Limit = w.group.Interval, w.group.QueryOffset, w.group.ResendDelay, w.group.Limit
	return r
}

func (w *world) randomRule() alert.Rule {
	const s = time.Second
	rnd, plain := w.rnd, labels.EmptyLabels()
	return w.inGroup(alert.Rule{
		Name:          pick(rnd, "Generated", "Generated", "Other"),
		For:           pick(rnd, 0, 0, 30*s, 45*s, 60*s, 300*s),
		KeepFiringFor: pick(rnd, 0, 0, 60*s, 200*s),
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
	})
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
	if w.rnd.IntN(12) == 0 {
		w.edit()
	}
	steps := pick(w.rnd, 1, 1, 1, 1, 1, 1, 1, 1, 2, 5, 40)
	w.now = w.now.Add(time.Duration(steps) * w.group.Interval)
	w.churn()
	w.recorded, w.sent = nil, nil
	w.theirs.Eval(t.Context(), w.now)

	ours := w.stepOurs(t)
	theirs := outcome{recorded: w.recorded, sent: w.sent}
	limited := false
	for i, r := range w.theirs.Rules() {
		theirs.states = append(theirs.states, theirState(r.(*rules.AlertingRule)))
		theirs.failed = append(theirs.failed, r.LastError() != nil)
		limited = limited || ours.failed[i] && theirs.failed[i] && w.group.Limit > 0 && w.queryErr == nil
	}
	w.trace = append(w.trace, fmt.Sprintf("%s: %v %v", w.now.Sub(base), w.vector, w.queryErr))
	if limited {
		return false
	}
	require.Equal(t, theirs.String(), ours.String(),
		"differs from Prometheus; again with: go test ./alerting/alert -run 'TestSameAsPrometheus/seed=%d$' -sequences=%d\nrules: %+v\n%s",
		seed, seed+1, w.rules, lines(w.trace))
	return true
}

// trace is what a sequence was made of, printed if it fails.
type trace []string

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
	failed   []bool
	states   [][]alert.Alert
	recorded []string
	sent     []string
}

func (o outcome) String() string {
	slices.Sort(o.recorded)
	slices.Sort(o.sent)
	var b strings.Builder
	for i, alerts := range o.states {
		slices.SortFunc(alerts, func(a, b alert.Alert) int { return labels.Compare(a.Labels, b.Labels) })
		fmt.Fprintf(&b, "rule %d failed: %t\n%s", i+1, o.failed[i], lines(alerts))
	}
	return fmt.Sprintf("%srecorded:\n%ssent:\n%s", b.String(), lines(o.recorded), lines(o.sent))
}

func (w *world) stepOurs(t *testing.T) outcome {
	t.Helper()
	var o outcome
	for i, r := range w.rules {
		if w.rnd.IntN(4) == 0 {
			w.states[i] = handedOver(t, w.states[i])
		}
		recorded, sent, failed := w.stepRule(t, r, &w.states[i])
		o.recorded = append(o.recorded, recorded...)
		o.sent = append(o.sent, sent...)
		o.failed = append(o.failed, failed)
		o.states = append(o.states, w.states[i].Alerts())
	}
	return o
}

func (w *world) stepRule(t *testing.T, r alert.Rule, state *alert.State) (recorded, sent []string, failed bool) {
	t.Helper()
	if w.queryErr != nil {
		return nil, nil, true
	}
	expand := templates.Expander(t.Context(), alerting.RuleTemplates{Alert: r.Name, Slot: w.now, Query: w.query})
	result, err := alert.Step(r, *state, w.now, w.vector, expand)
	if err != nil {
		require.Equal(t, *state, result.State, "an error changed the state")
		return nil, nil, true
	}
	for _, s := range result.Samples {
		recorded = append(recorded, formatSample(s))
	}
	due, next := alert.ToSend(r, result.State, w.now)
	for _, n := range due {
		sent = append(sent, fmt.Sprint(n, n.Annotations))
	}
	*state = next
	return recorded, sent, false
}

func theirState(r *rules.AlertingRule) []alert.Alert {
	var alerts []alert.Alert
	r.ForEachActiveAlert(func(a *rules.Alert) {
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
