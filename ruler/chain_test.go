package ruler

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/web/promapi"
)

var chainSeeds = flag.Uint64("ruler.chains", 20, "number of generated groups whose rules read each other")

// chainSlots is the number of slots of each group.
const chainSlots = 12

// TestRulesReadWhatPrometheusRulesRead: groups of rules that read each other, at
// a backend that shows writes at once and at one that shows them some slots
// later, record what Prometheus' rules.Group records in one TSDB, staleness
// markers included. A seed that fails is run alone with -run and its name.
func TestRulesReadWhatPrometheusRulesRead(t *testing.T) {
	t.Parallel()
	for seed := range *chainSeeds {
		for delay := range 4 {
			t.Run(fmt.Sprintf("seed=%d delay=%d", seed, delay), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(seed, 1))
				g := randomChain(rnd)
				data := randomInput(rnd)
				want := prometheusRecords(t, g, data)
				got := tocsinRecords(t, g, data, delay)
				require.Equal(t, want, got, g.String())
			})
		}
	}
}

// randomChain is a group whose rules read each other's results, later ones' and
// their own too, in every way that there is to select series.
func randomChain(rnd *rand.Rand) rule.Group {
	g := rule.Group{Key: "g", Name: "g", Interval: 30 * time.Second, Rules: []rule.Rule{{Record: "r0", Expr: mustParse("sum by (i) (x > 1)")}}}
	n := 3 + rnd.IntN(5)
	name := func() string { return fmt.Sprintf("r%d", rnd.IntN(n)) }
	read := func() string {
		for _, format := range []string{
			`sum by (i) (%s)`, `sum by (i) (sum_over_time(%s[2m]))`, `sum by (i) (%s offset 1m)`, `sum by (i) (last_over_time(%s[90s:30s]))`,
			`count by (i) ({__name__=~"%s|x"})`, `count by (i) ({i=~".+",__name__!~"%s"})`, `absent(%s)`,
			`sum by (i) (increase(%s[3m]))`,
		} {
			if rnd.IntN(6) == 0 {
				return fmt.Sprintf(format, name())
			}
		}
		return pick(rnd,
			`sum by (i) (x > 4)`, `count by (i) ({i="0"})`, `count by (i) (ALERTS{alertstate="firing"})`, `sum by (i) (ALERTS_FOR_STATE) / 1000`,
			`sum by (i) (sum_over_time(ALERTS[5m]))`, `sum by (i) (x)`, `count by (alertname, alertstate) (ALERTS)`)
	}
	for i := 1; i < n; i++ {
		expr := read()
		if rnd.IntN(3) == 0 {
			expr = fmt.Sprintf("(%s) %s (%s)", expr, pick(rnd, "+", "and", "unless", "or"), read())
		}
		if rnd.IntN(4) == 0 {
			g.Rules = append(g.Rules, rule.Rule{
				Alert: fmt.Sprintf("A%d", i), Expr: mustParse("(" + expr + ") > 3"), For: time.Duration(rnd.IntN(3)) * 30 * time.Second,
				KeepFiringFor: time.Duration(rnd.IntN(2)) * time.Minute, Labels: labels.FromStrings("severity", "page"),
			})
			continue
		}
		g.Rules = append(g.Rules, rule.Rule{Record: fmt.Sprintf("r%d", i), Expr: mustParse(expr)})
	}
	return g
}

func pick[T any](rnd *rand.Rand, choices ...T) T { return choices[rnd.IntN(len(choices))] }

// randomInput are the samples of x: series that come, go and end.
func randomInput(rnd *rand.Rand) []promql.Sample {
	var all []promql.Sample
	for i := range 3 {
		for slot := range chainSlots {
			s := promql.Sample{Metric: labels.FromStrings(labels.MetricName, "x", "i", fmt.Sprint(i)), T: chainSlot(slot).UnixMilli() - 5000, F: float64(rnd.IntN(10))}
			switch rnd.IntN(8) {
			case 0:
				continue
			case 1:
				s.F = math.Float64frombits(0x7ff0000000000002) // ended
			}
			all = append(all, s)
		}
	}
	return all
}

func chainSlot(n int) time.Time {
	return time.Unix(1_700_000_000, 0).UTC().Add(time.Duration(n) * 30 * time.Second)
}

func chainStorage(t *testing.T, data []promql.Sample) *teststorage.TestStorage {
	t.Helper()
	db := teststorage.New(t)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	appendAll(t, db, data)
	return db
}

func appendAll(t *testing.T, db *teststorage.TestStorage, samples []promql.Sample) {
	t.Helper()
	app := db.Appender(context.Background())
	for _, s := range samples {
		_, err := app.Append(0, s.Metric, s.T, s.F)
		require.NoError(t, err, s)
	}
	require.NoError(t, app.Commit())
}

func chainEngine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() }, FeatureRegistry: features.NewRegistry(),
	})
}

// prometheusRecords runs the group as Prometheus does.
func prometheusRecords(t *testing.T, g rule.Group, data []promql.Sample) []string {
	t.Helper()
	db := chainStorage(t, data)
	opts := &rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(chainEngine(), db), Appendable: db, Queryable: db, Metrics: rules.NewGroupMetrics(nil),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, ExternalURL: &url.URL{}, Logger: slog.New(slog.DiscardHandler),
		Context: context.Background(),
	}
	theirs := make([]rules.Rule, len(g.Rules))
	for i, r := range g.Rules {
		if r.Alert != "" {
			theirs[i] = rules.NewAlertingRule(r.Alert, r.Expr, r.For, r.KeepFiringFor, r.Labels, labels.EmptyLabels(), labels.EmptyLabels(), "", true, opts.Logger)
			continue
		}
		theirs[i] = rules.NewRecordingRule(r.Record, r.Expr, r.Labels)
	}
	group := rules.NewGroup(rules.GroupOptions{Name: g.Name, Interval: g.Interval, Rules: theirs, Opts: opts})
	for n := range chainSlots {
		group.Eval(context.Background(), chainSlot(n))
		for _, r := range theirs {
			require.NoError(t, r.LastError(), "%s\n%s", r, g)
		}
	}
	return recordsIn(t, db)
}

// tocsinRecords runs the group over HTTP at a backend that shows writes some
// slots later.
func tocsinRecords(t *testing.T, g rule.Group, data []promql.Sample, delay int) []string {
	t.Helper()
	db := chainStorage(t, data)
	backend := &slowBackend{t: t, db: db, delay: delay}
	cfg := DefaultConfig()
	cfg.Member = "m"
	if delay > 0 {
		cfg.ReadDelay = time.Hour // Slots take no time here.
	}
	r, err := New(cfg, Deps{
		Evaluator: chainEvaluator(t, db, cfg.ReadDelay), Writer: backend, Notifier: backend, Templates: backend,
		Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	close(r.done) // There is no loop to tell of what is done.
	all := make([]int, len(g.Rules))
	for i := range all {
		all[i] = i
	}
	run := newGroup(g, cfg.ResendDelay)
	for n := range chainSlots {
		backend.show(n)
		job := schedule.Job{Key: g.Key, Slot: chainSlot(n), Rules: all}
		r.run(context.Background(), &batch{slot: chainSlot(n), tasks: []*task{{group: run, job: job}}}, 0)
		for i, s := range run.status().Rules {
			require.NoError(t, s.Err, "%s\n%s", g.Rules[i], g)
		}
	}
	backend.show(chainSlots + delay)
	return recordsIn(t, db)
}

// chainEvaluator asks Prometheus' API over a storage.
func chainEvaluator(t *testing.T, db *teststorage.TestStorage, delay time.Duration) Evaluator {
	t.Helper()
	srv := httptest.NewServer(promapi.New(promapi.Config{
		Engine: chainEngine(), Queryable: db, Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	}))
	t.Cleanup(srv.Close)
	base, err := url.Parse(srv.URL)
	require.NoError(t, err)
	cfg := evaluator.DefaultConfig()
	cfg.Backends = []evaluator.BackendConfig{{
		Name: "b", URL: config.URL{URL: base}, HTTPClientConfig: config.DefaultHTTPClientConfig, ReadDelay: model.Duration(delay),
	}}
	e, err := evaluator.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return overlaid{e}
}

// overlaid is an evaluator as the ruler takes it.
type overlaid struct{ *evaluator.Evaluator }

func (o overlaid) Evaluate(ctx context.Context, ts time.Time, queries []Query) []Result {
	asked, recorded := make([]evaluator.Query, len(queries)), make([][]promql.Sample, len(queries))
	for i, q := range queries {
		asked[i], recorded[i] = evaluator.Query{Name: q.Name, Expr: q.Expr}, q.Recorded
	}
	results := make([]Result, len(queries))
	for i, r := range o.EvaluateOver(ctx, ts, asked, recorded) {
		results[i] = Result{Vector: r.Vector, Err: r.Err}
	}
	return results
}

// slowBackend acknowledges writes and shows them some slots later.
type slowBackend struct {
	t       *testing.T
	db      *teststorage.TestStorage
	delay   int
	slot    int
	waiting []waitingUnit
}

type waitingUnit struct {
	slot    int
	samples write.Unit
}

// show begins a slot.
func (b *slowBackend) show(slot int) {
	b.slot = slot
	for len(b.waiting) > 0 && b.waiting[0].slot+b.delay <= slot {
		appendAll(b.t, b.db, b.waiting[0].samples)
		b.waiting = b.waiting[1:]
	}
}

// Write leaves out what only Tocsin records.
func (b *slowBackend) Write(_ context.Context, units []write.Unit) []write.Result {
	for _, u := range units {
		if u[0].Metric.Get(labels.MetricName) != committedMetric {
			b.waiting = append(b.waiting, waitingUnit{b.slot, u})
		}
	}
	b.show(b.slot)
	return make([]write.Result, len(units))
}

// Where is one place.
func (b *slowBackend) Where(units []write.Unit) []string { return make([]string, len(units)) }

func (b *slowBackend) Send(string, ...alert.Notification) {}

func (b *slowBackend) Expander(context.Context, rule.Group, string, time.Time) alert.Expander {
	return func(text string, _ promql.Sample) (string, error) { return text, nil }
}

// recordsIn lists what a group has recorded, sample by sample, sorted.
func recordsIn(t *testing.T, db *teststorage.TestStorage) []string {
	t.Helper()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "x"))
	var list []string
	for set.Next() {
		var b strings.Builder
		fmt.Fprint(&b, set.At().Labels())
		for it := set.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
			at, v := it.At()
			fmt.Fprintf(&b, " %d:%s", (at-chainSlot(0).UnixMilli())/30_000, shownValue(v))
		}
		list = append(list, b.String())
	}
	require.NoError(t, set.Err())
	slices.Sort(list)
	return list
}

func shownValue(v float64) string {
	if math.Float64bits(v) == 0x7ff0000000000002 {
		return "ended"
	}
	return fmt.Sprint(v)
}
