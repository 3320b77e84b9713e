package evaluator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// scenario is a random fleet and what it is asked.
type scenario struct {
	mode       mode
	partitions []partition
	series     []promql.Series
	batch      []scopedExpr
	// instants at which the batch is evaluated, one after the other.
	instants []time.Time
	// ranges are expressions that are evaluated over a range.
	ranges []string
}

// scopedExpr is an expression, or that of a tenant.
type scopedExpr struct {
	expr  string
	scope labels.Labels
}

func (s scopedExpr) String() string { return strings.TrimPrefix(s.scope.String()+" "+s.expr, "{} ") }

// schemes are the ways to partition: one label or two, with or without a
// partition that lacks one.
var schemes = [][]map[string]string{
	{{"cluster": "east"}},
	{{"cluster": "east"}, {"cluster": "west"}},
	{{"cluster": "east"}, {"cluster": "west"}, {"cluster": ""}},
	{{"cluster": "east"}, {"cluster": "west"}, {"cluster": "north"}, {"cluster": ""}},
	{{"cluster": "east", "region": "a"}, {"cluster": "east", "region": "b"}, {"cluster": "west", "region": "a"}},
	{{"cluster": "east", "region": ""}, {"cluster": "west", "region": "b"}, {"cluster": "", "region": ""}},
	{{"region": "a"}, {"region": ""}},
}

func newScenario(rng *rand.Rand) scenario {
	g := generator{rng}
	s := scenario{mode: modes[min(rng.IntN(6), 2)]}
	for i, set := range schemes[rng.IntN(len(schemes))] {
		s.partitions = append(s.partitions, partition{fmt.Sprintf("p%d", i), set})
	}
	for _, p := range s.partitions {
		s.series = append(s.series, partitionData(rng, p)...)
	}
	for len(s.batch) < 40 {
		s.batch = append(s.batch, g.asked(s.partitions)...)
	}
	for i := range 3 {
		s.instants = append(s.instants, slot.Add(time.Duration(i)*2*scrape))
	}
	s.ranges = slices.DeleteFunc(generate(rng, 8), func(expr string) bool {
		e, err := parser.ParseExpr(expr)
		return err == nil && firstParameter(e)
	})
	return s
}

// firstParameter recognises aggregations with a parameter that depends on
// stored series and an argument at a fixed time: over the steps of a range or
// a subquery, Prometheus takes the parameter's first value for all of them.
func firstParameter(n parser.Node) (found bool) {
	parser.Inspect(n, func(n parser.Node, _ []parser.Node) error {
		agg, ok := n.(*parser.AggregateExpr)
		found = found || ok && agg.Param != nil && strings.Contains(agg.Param.String(), "scalar") && strings.Contains(agg.Expr.String(), "@")
		return nil
	})
	return found
}

// firstParameterInSubquery recognises firstParameter at an instant.
func firstParameterInSubquery(n parser.Node) (found bool) {
	parser.Inspect(n, func(n parser.Node, _ []parser.Node) error {
		sub, ok := n.(*parser.SubqueryExpr)
		found = found || ok && firstParameter(sub.Expr)
		return nil
	})
	return found
}

// asked is an expression of nobody, one of several tenants, or some that have
// something in common.
func (g generator) asked(parts []partition) []scopedExpr {
	switch g.IntN(6) {
	case 0:
		return g.tenants(g.expression(), labels.EmptyLabels())
	case 1:
		p := parts[g.IntN(len(parts))]
		return g.tenants(g.expression(), labels.FromMap(p.labels).WithoutEmpty())
	case 2:
		return g.related()
	}
	return []scopedExpr{{expr: g.expression()}}
}

func (g generator) tenants(expr string, in labels.Labels) (list []scopedExpr) {
	for _, tenant := range tenants {
		list = append(list, scopedExpr{expr, labels.NewBuilder(in).Set("job", tenant).Labels()})
	}
	return list
}

// related expressions are made of the same parts.
func (g generator) related() (list []scopedExpr) {
	op, inner := g.pick("sum", "count", "max", "avg", "group"), g.vector(1)
	by := g.pick("job", "job, cluster", "cluster", "")
	for _, e := range []string{
		fmt.Sprintf("%s by (job, instance, cluster) (%s)", op, inner),
		fmt.Sprintf("%s by (%s) (%s)", op, by, inner),
		fmt.Sprintf("%s by (%s) (%s) > 2", op, by, inner),
		fmt.Sprintf("topk(2, %s by (%s) (%s))", op, by, inner),
		fmt.Sprintf("%s(%s) / count(%s)", op, inner, inner),
		fmt.Sprintf("count(%s) or vector(0)", inner),
	} {
		if _, err := parser.ParseExpr(e); err == nil && g.IntN(3) > 0 {
			list = append(list, scopedExpr{expr: e})
		}
	}
	return list
}

// partitionData is a fifth less than what there could be.
func partitionData(rng *rand.Rand, p partition) (all []promql.Series) {
	own := labels.FromMap(p.labels).WithoutEmpty()
	add := func(metric string, floats []promql.FPoint, histograms []promql.HPoint, more ...string) {
		if rng.IntN(5) == 0 {
			return
		}
		b := labels.NewBuilder(own).Set(labels.MetricName, metric)
		for i := 0; i < len(more); i += 2 {
			b.Set(more[i], more[i+1])
		}
		all = append(all, promql.Series{Metric: b.Labels(), Floats: floats, Histograms: histograms})
	}
	for _, job := range tenants {
		add("info_metric", gauge(rng, 1), nil, "job", job, "version", fmt.Sprintf("v%d", rng.IntN(2)))
		for _, instance := range []string{"0", "1"} {
			add("gauge", gauge(rng, 100), nil, "job", job, "instance", instance)
			add("gauge2", gauge(rng, 3), nil, "job", job, "instance", instance)
			add("counter_total", counter(rng), nil, "job", job, "instance", instance)
			add("errors_total", counter(rng), nil, "job", job, "instance", instance)
			add("special", special(rng), nil, "job", job, "instance", instance)
			add("churning", churning(rng), nil, "job", job, "instance", instance)
			add("native", nil, native(rng), "job", job, "instance", instance)
			add("native_custom", nil, custom(rng), "job", job, "instance", instance)
			floats, histograms := mixed(rng)
			add("mixed", floats, histograms, "job", job, "instance", instance)
			for _, le := range []string{"0.1", "1", "+Inf"} {
				add("latency_bucket", counter(rng), nil, "job", job, "instance", instance, "le", le)
			}
		}
	}
	if p.labels["cluster"] == "west" {
		add("only_west", gauge(rng, 5), nil, "job", "a")
	}
	return all
}

// churning series begin late, end early, or pause.
func churning(rng *rand.Rand) []promql.FPoint {
	points := gauge(rng, 10)
	from, to := rng.IntN(len(points)), rng.IntN(len(points))
	if from > to {
		return append(points[:to:to], points[from:]...)
	}
	return points[from : to+1]
}

// custom are native histograms with custom buckets, which reset, and of which
// some have other bounds.
func custom(rng *rand.Rand) (points []promql.HPoint) {
	bounds := [][]float64{{1, 2, 5}, {1, 2, 5}, {1, 5}}[rng.IntN(3)]
	buckets := make([]float64, len(bounds)+1)
	for _, t := range times(rng) {
		if rng.IntN(30) == 0 {
			clear(buckets)
		}
		buckets[rng.IntN(len(buckets))] += float64(rng.IntN(4))
		h := &histogram.FloatHistogram{
			Schema: histogram.CustomBucketsSchema, CustomValues: bounds,
			PositiveSpans: []histogram.Span{{Length: uint32(len(buckets))}}, PositiveBuckets: slices.Clone(buckets),
		}
		for _, n := range buckets {
			h.Count += n
		}
		h.Sum = h.Count * 2
		points = append(points, promql.HPoint{T: t, H: h})
	}
	return points
}

// mixed changes from floats to histograms once, if at all.
func mixed(rng *rand.Rand) (floats []promql.FPoint, histograms []promql.HPoint) {
	at := slot.Add(-time.Duration(rng.IntN(20)) * time.Minute).UnixMilli()
	if rng.IntN(3) == 0 {
		at = slot.Add(time.Hour).UnixMilli()
	}
	for _, p := range gauge(rng, 10) {
		if p.T < at {
			floats = append(floats, p)
		}
	}
	for _, p := range native(rng) {
		if p.T > at {
			histograms = append(histograms, p)
		}
	}
	return floats, histograms
}

// queries are the scoped expressions that do not contradict their tenant.
func (s scenario) queries(t testing.TB) []evaluator.Query {
	var queries []evaluator.Query
	for _, q := range s.batch {
		expr, err := plan.Scope(mustParse(t, q.expr), q.scope)
		if err == nil && !ambiguous(expr) && !firstParameterInSubquery(expr) {
			queries = append(queries, evaluator.Query{Name: q.String(), Expr: expr, Scope: q.scope})
		}
	}
	return queries
}

// deviation is a case in which an evaluator and one Prometheus disagree.
type deviation struct {
	// scenario is what is left of it for this case.
	scenario scenario
	expr     string
	text     string
}

// score is what came out of comparing.
type score struct {
	cases int
	// undefined are those in which Prometheus' own answer depends on the order
	// in which it stores the series.
	undefined  int
	deviations []deviation
}

// run compares all answers with one Prometheus'. The evaluator has one batch
// for every instant and keeps its plans.
func (s scenario) run(t testing.TB) (result score) {
	sc := &scope{TB: t}
	defer sc.close()
	f := newFleetOf(sc, s.mode, s.partitions, s.series)
	whole := []*teststorage.TestStorage{f.whole}
	judge := func(expr, d string, at moment, only scenario) {
		result.cases++
		switch {
		case d == "":
		case s.undefined(sc, &whole, f.engine, expr, at):
			result.undefined++
		default:
			result.deviations = append(result.deviations, deviation{only, expr, d})
		}
	}
	queries := s.queries(t)
	for n, ts := range s.instants {
		for i, got := range f.evaluator.Evaluate(context.Background(), ts, queries) {
			text := queries[i].Expr.String()
			want, err := f.expected(sc, text, ts)
			only := s
			only.instants, only.ranges = s.instants[:n+1], nil
			judge(text, difference(text, want, err, got), moment{ts, ts, 0}, only)
		}
	}
	over := moment{slot.Add(-7 * time.Minute), slot.Add(10 * time.Second), 35 * time.Second}
	for _, expr := range s.ranges {
		only := s
		only.batch, only.instants, only.ranges = nil, nil, []string{expr}
		d := resultDifference(expr, over.ask(sc, f.engine, f.whole, expr), over.ask(sc, f.evaluator.QueryEngine(), nil, expr))
		judge(expr, d, over, only)
	}
	return result
}

// moment is when an expression is evaluated; a step of 0 makes an instant.
type moment struct {
	start, end time.Time
	step       time.Duration
}

// ask returns the result of a query that stays valid.
func (m moment) ask(t testing.TB, e promql.QueryEngine, data *teststorage.TestStorage, expr string) *promql.Result {
	ctx := context.Background()
	var q promql.Query
	var err error
	if m.step == 0 {
		q, err = e.NewInstantQuery(ctx, data, nil, expr, m.start)
	} else {
		q, err = e.NewRangeQuery(ctx, data, nil, expr, m.start, m.end, m.step)
	}
	require.NoError(t, err)
	t.Cleanup(q.Close)
	return q.Exec(ctx)
}

// arbitrary recognises a choice among counts, which are often equal,
// a choice among what was chosen by its labels' hash, which comes in no order,
// and equal labels for floats and histograms at a fixed time, of which
// Prometheus makes one series with two samples.
var arbitrary = regexp.MustCompile(`(topk|bottomk|limitk).*(count|limit_ratio)|label_(join|replace)\((mixed|{__name__=~)[^,]*@`)

// changesOfSums recognises resets and changes of what is made of sums: the last
// bit of a sum, which depends on the order of the series, makes or unmakes one.
func changesOfSums(n parser.Node) (found bool) {
	parser.Inspect(n, func(n parser.Node, path []parser.Node) error {
		agg, ok := n.(*parser.AggregateExpr)
		found = found || ok && agg.Op == parser.SUM && slices.ContainsFunc(path, func(above parser.Node) bool {
			call, ok := above.(*parser.Call)
			return ok && (call.Func.Name == "resets" || call.Func.Name == "changes")
		})
		return nil
	})
	return found
}

// undefined tells whether the answer of one Prometheus depends on the order of
// the series in its storage. whole are storages with different orders, made
// when they are needed.
func (s scenario) undefined(t testing.TB, whole *[]*teststorage.TestStorage, e promql.QueryEngine, expr string, m moment) bool {
	if arbitrary.MatchString(expr) || changesOfSums(mustParse(t, expr)) {
		return true
	}
	for i := range 6 {
		if i == len(*whole) {
			db := promserver.Storage(t)
			order := slices.Clone(s.series)
			if i == 1 {
				slices.Reverse(order) // Whatever is chosen among equals, this chooses the others.
			} else {
				rng := rand.New(rand.NewPCG(uint64(i), 0))
				rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
			}
			promserver.Append(t, db, order)
			*whole = append(*whole, db)
		}
		if resultDifference(expr, m.ask(t, e, (*whole)[0], expr), m.ask(t, e, (*whole)[i], expr)) != "" {
			return true
		}
	}
	return false
}
