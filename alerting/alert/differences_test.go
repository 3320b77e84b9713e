package alert_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// The tests of this file are about the places where Prometheus loses or resets
// the state of an alert and this package does not. Each shows both.

// The expression fails for five minutes. Prometheus keeps the alert and tells
// nobody, so that Alertmanager takes it as resolved.
func TestAFailedEvaluationDoesNotLetAlertsLapse(t *testing.T) {
	t.Parallel()
	p := newPair(t, alert.Rule{})
	p.slot("a")
	for range 5 {
		p.fail()
	}
	require.Equal(t, []string{"firing a since 0s until 4m0s"}, p.theirs.sent)
	require.Len(t, p.ours.sent, 6)
	require.Equal(t, "firing a since 0s until 9m0s", p.ours.sent[5])
}

// Prometheus forgets all alerts of a rule that has more than the limit: they
// lapse, and fire anew afterwards.
func TestAnExceededLimitKeepsTheAlertsThereWere(t *testing.T) {
	t.Parallel()
	p := newPair(t, alert.Rule{Limit: 1})
	p.slot("a")
	p.slot("a", "b")
	require.Empty(t, p.theirs.active())
	require.Equal(t, []string{"firing a since 0s"}, p.ours.active())
	p.slot("a")
	require.Equal(t, []string{"firing a since 2m0s"}, p.theirs.active())
	require.Equal(t, []string{"firing a since 0s"}, p.ours.active())
}

// Nobody hands anything over: all that is left is in the backend. Prometheus
// looks there for rules only whose for is no shorter than the grace period.
func TestAFiringAlertSurvivesARestartWhateverItsFor(t *testing.T) {
	t.Parallel()
	for _, hold := range []time.Duration{0, 2 * time.Minute, 5 * time.Minute} {
		t.Run(hold.String(), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, alert.Rule{For: hold})
			for range 8 {
				p.slot("a")
			}
			fires := []string{fmt.Sprintf("firing a since %s", hold)}
			require.Equal(t, fires, p.theirs.active())
			require.Equal(t, fires, p.ours.active())
			p.restart(2 * time.Minute)
			p.slot("a")
			require.NotEqual(t, fires, p.theirs.active())
			require.Equal(t, fires, p.ours.active())
		})
	}
}

// Prometheus knows no alert that its expression does not return, so one that is
// kept firing ends with the process.
func TestAnAlertThatIsKeptFiringSurvivesARestart(t *testing.T) {
	t.Parallel()
	p := newPair(t, alert.Rule{KeepFiringFor: 10 * time.Minute})
	p.slot("a")
	p.slot()
	p.restart(time.Minute)
	p.slot()
	p.slot()
	require.Empty(t, p.theirs.active())
	require.Equal(t, []string{"firing a since 0s"}, p.ours.active())
	for range 10 {
		p.slot()
	}
	require.Empty(t, p.ours.active(), "it ends in time")
	require.Contains(t, p.ours.sent, "resolved a since 0s until 11m0s")
	require.NotContains(t, p.theirs.sent, "resolved a since 0s until 11m0s")
}

// The backend can't be asked when the process starts. Prometheus takes that for
// an answer, once and for all; here, whoever owns the rule asks until there is one.
func TestARestorationThatFailsIsNoAnswer(t *testing.T) {
	t.Parallel()
	p := newPair(t, alert.Rule{For: 30 * time.Minute})
	for range 20 {
		p.slot("a")
	}
	p.backendErr = errQuery
	p.restart(time.Minute)
	p.slot("a")
	p.slot("a")
	p.backendErr = nil
	for range 15 {
		p.slot("a")
	}
	require.Equal(t, []string{"pending a"}, p.theirs.active(), "for is waited out again")
	require.Equal(t, []string{"firing a since 33m0s"}, p.ours.active(), "what was lost is the outage")
}

// The rule moves to another member just after the alert ended. In Prometheus a
// resolution that nobody was told is never told.
func TestAResolutionThatIsStillOwedIsHandedOver(t *testing.T) {
	t.Parallel()
	p := newPair(t, alert.Rule{})
	p.slot("a")
	p.slot()
	p.ours.sent, p.theirs.sent = nil, nil
	p.move()
	for range 3 {
		p.slot()
	}
	require.Empty(t, p.theirs.sent)
	require.Equal(t, []string{
		"resolved a since 0s until 1m0s", "resolved a since 0s until 1m0s", "resolved a since 0s until 1m0s",
	}, p.ours.sent, "it is repeated for as long as an Alertmanager may have missed it")
}

// A move is not a reason to tell again what was told a moment ago, nor to wait
// again for what was waited out.
func TestTimersSurviveAMove(t *testing.T) {
	t.Parallel()
	p := newPair(t, alert.Rule{For: 3 * time.Minute, ResendDelay: 10 * time.Minute})
	for range 4 {
		p.move()
		p.slot("a")
	}
	require.Equal(t, []string{"pending a"}, p.theirs.active())
	require.Equal(t, []string{"firing a since 3m0s"}, p.ours.active())
	p.slot("a")
	require.Equal(t, []string{"firing a since 3m0s until 43m0s"}, p.ours.sent, "once")
}

// pair is one rule in both implementations, whose slots are a minute apart.
type pair struct {
	t          *testing.T
	now        time.Time
	rule       alert.Rule
	vector     promql.Vector
	queryErr   error
	backendErr error
	ours       *oursRule
	theirs     *theirsRule
}

// memory is what a backend knows: the last sample of each series.
type memory map[string]promql.Sample

func (m memory) add(s promql.Sample) { m[s.Metric.String()] = s }

func newPair(t *testing.T, rule alert.Rule) *pair {
	t.Helper()
	rule.Name, rule.Interval = "X", time.Minute
	if rule.ResendDelay == 0 {
		rule.ResendDelay = 30 * time.Second
	}
	p := &pair{t: t, rule: rule, now: base.Add(-time.Minute)}
	p.ours = &oursRule{pair: p, backend: memory{}}
	p.theirs = &theirsRule{pair: p, backend: memory{}}
	p.theirs.start(true)
	return p
}

// slot evaluates the next slot, at which the expression returns series by the
// names given.
func (p *pair) slot(names ...string) {
	p.t.Helper()
	p.vector, p.queryErr = nil, nil
	for _, name := range names {
		p.vector = append(p.vector, promql.Sample{Metric: labels.FromStrings("name", name), F: 1})
	}
	p.evaluate()
}

// fail is a slot whose expression can't be evaluated.
func (p *pair) fail() {
	p.t.Helper()
	p.queryErr = errQuery
	p.evaluate()
}

func (p *pair) evaluate() {
	p.t.Helper()
	p.now = p.now.Add(time.Minute)
	p.ours.eval()
	p.theirs.eval()
}

// restart ends both processes; the next slot is the first after the outage.
func (p *pair) restart(outage time.Duration) {
	p.now = p.now.Add(outage)
	p.ours.state, p.ours.lost = alert.State{}, true
	p.theirs.start(false)
}

// move gives the rule to another process, which in Prometheus means a new one.
func (p *pair) move() {
	p.ours.state = handedOver(p.t, p.ours.state)
	p.theirs.start(false)
}

type oursRule struct {
	*pair

	state   alert.State
	backend memory
	// lost tells that the state has to be restored.
	lost bool
	sent []string
}

func (o *oursRule) eval() {
	if o.lost && o.backendErr != nil {
		return // nobody runs the rule before its state is known
	}
	if o.lost {
		o.restore()
	}
	if o.queryErr == nil {
		result, err := alert.Step(o.rule, o.state, o.now, o.vector, verbatim)
		if err != nil {
			require.ErrorIs(o.t, err, alert.ErrLimit)
		}
		o.state = result.State
		for _, s := range result.Samples {
			o.backend.add(s)
		}
	}
	var due []alert.Notification
	due, o.state = alert.ToSend(o.rule, o.state, o.now)
	for _, n := range due {
		o.sent = append(o.sent, told(n.Resolved, n.Labels, n.StartsAt, n.EndsAt))
	}
}

func (o *oursRule) restore() {
	var found alert.Evidence
	for _, s := range o.backend {
		switch {
		case s.Metric.Get(labels.MetricName) == "ALERTS_FOR_STATE":
			found.ForState = append(found.ForState, s)
		case s.Metric.Get("alertstate") == "firing":
			found.Firing = append(found.Firing, s)
		}
	}
	o.state, o.lost = alert.Restore(o.rule, o.now, found, outageTolerance), false
}

func (o *oursRule) active() []string {
	var active []string
	for _, a := range o.state.Alerts() {
		if a.Status != alert.Inactive {
			active = append(active, shown(a.Status, a.Labels, a.FiredAt))
		}
	}
	return active
}

// theirsRule runs a rule as Prometheus' manager does: it is restored after the
// second evaluation.
type theirsRule struct {
	*pair

	rule    *rules.AlertingRule
	group   *rules.Group
	evals   int
	backend memory
	sent    []string
}

func (p *theirsRule) start(restored bool) {
	expr, err := parser.ParseExpr("x > 0")
	require.NoError(p.t, err)
	r := p.pair.rule
	p.rule = rules.NewAlertingRule(r.Name, expr, r.For, r.KeepFiringFor, r.Labels, r.Annotations, labels.EmptyLabels(), "",
		restored, slog.New(slog.DiscardHandler))
	p.evals = 0
	p.group = rules.NewGroup(rules.GroupOptions{
		Name: "group", Interval: r.Interval, Limit: r.Limit, Rules: []rules.Rule{p.rule},
		Opts: &rules.ManagerOptions{
			Context:         p.t.Context(),
			Logger:          slog.New(slog.DiscardHandler),
			ExternalURL:     externalURL,
			ResendDelay:     r.ResendDelay,
			OutageTolerance: outageTolerance.Outage,
			ForGracePeriod:  outageTolerance.ForGracePeriod,
			Appendable:      p,
			Queryable:       &storage.MockQueryable{MockQuerier: &storage.MockQuerier{SelectMockFunction: p.forState}},
			QueryFunc: func(context.Context, string, time.Time) (promql.Vector, error) {
				return p.vector, p.queryErr
			},
			NotifyFunc: p.notify,
			Metrics:    rules.NewGroupMetrics(nil),
		},
	})
}

func (p *theirsRule) eval() {
	p.group.Eval(p.t.Context(), p.now)
	if p.evals++; p.evals == 2 && !p.rule.Restored() {
		p.group.RestoreForState(p.now)
	}
}

func (p *theirsRule) forState(_ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if p.backendErr != nil {
		return storage.ErrSeriesSet(p.backendErr)
	}
	for _, s := range p.backend {
		if matches(s.Metric, ms) {
			return storage.TestSeriesSet(promql.NewStorageSeries(promql.Series{Metric: s.Metric, Floats: []promql.FPoint{{T: s.T, F: s.F}}}))
		}
	}
	return storage.EmptySeriesSet()
}

func matches(series labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(series.Get(m.Name)) {
			return false
		}
	}
	return true
}

func (p *theirsRule) notify(_ context.Context, _ string, alerts ...*rules.Alert) {
	for _, a := range alerts {
		end := a.ValidUntil
		if !a.ResolvedAt.IsZero() {
			end = a.ResolvedAt
		}
		p.sent = append(p.sent, told(!a.ResolvedAt.IsZero(), a.Labels, a.FiredAt, end))
	}
}

func (p *theirsRule) active() []string {
	var active []string
	for _, a := range p.rule.ActiveAlerts() {
		active = append(active, shown(theirStatus[a.State], a.Labels, a.FiredAt))
	}
	return active
}

func (p *theirsRule) Appender(context.Context) storage.Appender {
	return memoryAppender{memory: p.backend}
}

type memoryAppender struct {
	appender

	memory memory
}

func (a memoryAppender) Append(_ storage.SeriesRef, series labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	a.memory.add(promql.Sample{Metric: series, T: t, F: v})
	return 0, nil
}

func shown(status alert.Status, lset labels.Labels, firedAt time.Time) string {
	text := fmt.Sprintf("%s %s", status, lset.Get("name"))
	if status == alert.Firing {
		text += " since " + firedAt.Sub(base).String()
	}
	return text
}

func told(resolved bool, lset labels.Labels, from, to time.Time) string {
	word := "firing"
	if resolved {
		word = "resolved"
	}
	return fmt.Sprintf("%s %s since %s until %s", word, lset.Get("name"), from.Sub(base), to.Sub(base))
}
