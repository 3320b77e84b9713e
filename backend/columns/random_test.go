package columns_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/columns"
)

var (
	seedFlag  = flag.Uint64("columns.seed", 0, "seed of generated data and expressions; 0 runs the default one")
	slotsFlag = flag.Int("columns.slots", 40, "number of slots of a generated run")
)

const (
	interval = 30_000
	minutes  = 60_000
)

// world is a TSDB in which series come and go.
type world struct {
	*rand.Rand
	*testing.T
	db     *teststorage.TestStorage
	series []*member
	now    int64
}

// member is a series that is being written.
type member struct {
	labels labels.Labels
	kind   string
	value  float64
}

func newWorld(t *testing.T, seed uint64) *world {
	db := teststorage.New(t, int64(30*minutes))
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), T: t, db: db, now: 4 * 60 * minutes}
	for range 60 {
		w.join()
	}
	return w
}

// join makes one more series, at times one that was there before.
func (w *world) join() {
	name := w.pick("gauge", "gauge", "requests_total", "requests_total", "errors_total", "odd", "latency_bucket", "native", "info", "mixed")
	b := labels.NewScratchBuilder(5)
	b.Add(labels.MetricName, name)
	b.Add("instance", fmt.Sprint(w.IntN(6)))
	b.Add("job", w.pick("a", "b"))
	if name == "latency_bucket" {
		b.Add("le", w.pick("0.1", "1", "+Inf"))
	}
	if w.IntN(4) == 0 {
		b.Add("zone", w.pick("x", "y"))
	}
	b.Sort()
	m := &member{labels: b.Labels(), kind: name}
	for _, o := range w.series {
		if labels.Equal(o.labels, m.labels) {
			return
		}
	}
	w.series = append(w.series, m)
}

func (w *world) pick(options ...string) string { return options[w.IntN(len(options))] }

// slot lets an interval pass.
func (w *world) slot() {
	w.now += interval
	app := w.db.Appender(w.Context())
	for i := len(w.series) - 1; i >= 0; i-- {
		m := w.series[i]
		switch w.IntN(100) {
		case 0: // ends
			w.append(app, m, math.Float64frombits(value.StaleNaN))
			fallthrough
		case 1: // vanishes
			w.series = append(w.series[:i], w.series[i+1:]...)
		case 2, 3: // a gap
		default:
			w.append(app, m, w.next(m))
		}
	}
	require.NoError(w, app.Commit())
	if w.IntN(4) == 0 {
		w.join()
	}
	w.upkeep()
}

// next is the next value of a series.
func (w *world) next(m *member) float64 {
	switch m.kind {
	case "gauge":
		return math.Round(100*w.NormFloat64()) / 7
	case "odd":
		return []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 1e300, 5e-324}[w.IntN(7)]
	case "info":
		return 1
	}
	if m.value += w.Float64() * 50; w.IntN(40) == 0 {
		m.value = 0
	}
	return m.value
}

func (w *world) append(app storage.Appender, m *member, v float64) {
	at := w.now - 1000 - int64(w.IntN(500))
	if m.kind == "native" || m.kind == "mixed" && w.IntN(3) == 0 {
		if math.IsNaN(v) {
			return
		}
		h := tsdbutil.GenerateTestHistogram(int64(v))
		_, err := app.AppendHistogram(0, m.labels, at, h, nil)
		require.NoError(w, err)
		return
	}
	_, err := app.Append(0, m.labels, at, v)
	require.NoError(w, err)
}

// upkeep is what happens to a TSDB now and then.
func (w *world) upkeep() {
	switch w.IntN(30) {
	case 0:
		// From the beginning: the TSDB panics when it compacts what was deleted
		// in the middle.
		until := w.now - int64(w.IntN(10))*minutes
		require.NoError(w, w.db.Delete(w.Context(), 0, until, labels.MustNewMatcher(labels.MatchEqual, "instance", fmt.Sprint(w.IntN(6)))))
	case 1:
		require.NoError(w, w.db.CompactHead(tsdb.NewRangeHead(w.db.Head(), w.db.Head().MinTime(), w.now-6*minutes)))
	case 2: // late samples
		app := w.db.Appender(w.Context())
		for _, m := range w.series {
			if m.kind == "gauge" && w.IntN(3) == 0 {
				_, err := app.Append(0, m.labels, w.now-int64(2+w.IntN(8))*minutes+7, w.Float64())
				require.NoError(w, err)
			}
		}
		require.NoError(w, app.Commit())
	}
}

// ordered is a storage that has series in the order of their labels, whatever
// the time range: the TSDB's own order may depend on it, and which of equal
// samples topk takes on that.
type ordered struct{ storage.Queryable }

func (o ordered) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := o.Queryable.Querier(mint, maxt)
	return orderedQuerier{q}, err
}

type orderedQuerier struct{ storage.Querier }

func (q orderedQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	untrimmed := *hints // Trimming both ends of a series that is deleted in part makes the TSDB panic.
	untrimmed.DisableTrimming = true
	return q.Querier.Select(ctx, true, &untrimmed, ms...)
}

// expressions writes random expressions, most of which share parts.
type expressions struct{ *rand.Rand }

func (g expressions) pick(options ...string) string { return options[g.IntN(len(options))] }

func (g expressions) selector() string {
	return g.pick("gauge", "gauge", "requests_total", "errors_total", "odd", "info", "nothing", `{__name__=~"gauge|info"}`) +
		g.pick("", "", "", `{job="a"}`, `{job="a",instance!="1"}`, `{zone=""}`, `{zone=~"x|y"}`) + g.pick("", "", "", "", " offset 1m")
}

func (g expressions) ranged() string {
	function := g.pick("rate", "rate", "rate", "increase", "delta", "irate", "deriv", "changes", "resets", "avg_over_time", "max_over_time", "last_over_time",
		"count_over_time", "stddev_over_time", "present_over_time", "predict", "quantile")
	of := g.pick("requests_total", "requests_total", "errors_total", "gauge", "odd", "latency_bucket", "native", "mixed") +
		g.pick("", "", `{job="b"}`, `{instance=~"[0-3]"}`) + g.pick("[2m]", "[5m]", "[5m] offset 2m")
	switch function {
	case "predict":
		return fmt.Sprintf("predict_linear(%s, 60)", of)
	case "quantile":
		return fmt.Sprintf("quantile_over_time(scalar(count(gauge)) / 50, %s)", of)
	}
	return fmt.Sprintf("%s(%s)", function, of)
}

func (g expressions) grouping() string {
	return g.pick("", "by (job)", "by (instance, job)", "by (le, job)", "without (instance)", "without (instance, zone)", "by (zone)", "by (nothing)")
}

func (g expressions) vector(depth int) string {
	if depth == 0 {
		return g.pick(g.selector(), g.ranged(), g.ranged())
	}
	switch g.IntN(8) {
	case 0, 1, 2:
		op := g.pick("sum", "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk")
		if strings.HasSuffix(op, "k") {
			return fmt.Sprintf("%s %s (%s, %s)", op, g.grouping(), g.pick("1", "2", "5", "0", "scalar(count(gauge))"), g.vector(depth-1))
		}
		return fmt.Sprintf("%s %s (%s)", op, g.grouping(), g.vector(depth-1))
	case 3:
		return fmt.Sprintf("(%s %s %s)", g.vector(depth-1), g.pick("+", "/", "%", "^", ">", "<= bool", "==", "!="), g.scalar())
	case 4:
		return fmt.Sprintf("(%s %s %s)", g.scalar(), g.pick("-", "*", "atan2", "<", ">= bool"), g.vector(depth-1))
	case 5, 6:
		return g.binary(depth)
	}
	return g.function(depth)
}

func (g expressions) binary(depth int) string {
	op := g.pick("+", "/", "-", ">", "== bool", "and", "or", "unless")
	matching := g.pick("", "on (job)", "on (job, instance)", "ignoring (zone)", "ignoring (le)", "on ()")
	if matching != "" && !strings.Contains("and or unless", op) {
		matching += g.pick("", "", " group_left ()", " group_right ()", " group_left (zone)")
	}
	return fmt.Sprintf("(%s %s %s %s)", g.vector(depth-1), op, matching, g.vector(depth-1))
}

func (g expressions) scalar() string {
	return g.pick("2", "0", "-1.5", "100", "60 * 60", "time() / 1e6", "scalar(sum(gauge))", "scalar(nothing)")
}

func (g expressions) function(depth int) string {
	v := g.vector(depth - 1)
	return g.pick("abs("+v+")", "histogram_quantile(0.9, "+v+")", "-("+v+")", "absent("+v+")", "vector(scalar("+v+"))", "clamp_max("+v+", 1)",
		"histogram_count("+v+")", "round("+v+", 0.5)", "sort("+v+")", "timestamp("+v+")", "histogram_fraction(0, 1, "+v+")", "label_replace("+v+`, "x", "$1", "job", "(.*)")`)
}

func (g expressions) some(n int) []string {
	exprs := []string{"gauge", "rate(requests_total[5m])", "sum(rate(native[5m]))"}
	for len(exprs) < n {
		expr := g.vector(g.IntN(4))
		if _, err := parser.ParseExpr(expr); err == nil {
			exprs = append(exprs, expr)
		}
	}
	return exprs
}

// TestRandomBatchesOverTime evaluates the same batch slot after slot, while
// series come, go, reset, and samples are late, deleted and compacted, and
// demands Prometheus' results. To repeat a failure: go test
// ./backend/columns -run TestRandomBatchesOverTime -columns.seed=SEED.
func TestRandomBatchesOverTime(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	if *seedFlag != 0 {
		seed = *seedFlag
	}
	w := newWorld(t, seed)
	f := newFixture(t, ordered{w.db}, columns.Config{})
	exprs := expressions{w.Rand}.some(150)
	for range 12 {
		w.slot()
	}
	evaluated := 0
	for slot := range *slotsFlag {
		w.slot()
		evaluated += f.requireEqual(t, w.now, exprs...)
		require.False(t, t.Failed(), "seed %d, slot %d", seed, slot)
	}
	require.Greater(t, evaluated, *slotsFlag*len(exprs)/2)
}
