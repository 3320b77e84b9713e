package evaluator_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/prometheus/prometheus/util/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/test/program"
)

// corpusRuns are the ways in which Prometheus' own tests of PromQL run against
// an evaluator: over how many backends, how they are reached, and how the series
// are spread.
var corpusRuns = []corpusRun{
	{mode: overNative, backends: 1},
	{mode: overNative, backends: 2},
	{mode: overNative, backends: 3},
	{mode: overVirtual, backends: 1},
	{mode: overVirtual, backends: 2},
	{mode: overHTTP, backends: 3},
	{mode: overProcesses, backends: 1},
	{mode: overProcesses, backends: 2},
	{mode: overProcesses, backends: 3},
	{mode: overNative, backends: 2, scattered: true},
	{mode: overVirtual, backends: 3, scattered: true},
}

// corpusRun is one of them. The series are spread by labels that they have
// anyway, so that the expectations of the corpus hold as they are. Where no
// labels have so many different values, there are fewer backends. If scattered,
// each series goes anywhere and gets a label that says where; one Prometheus
// with the same series says then what is right.
type corpusRun struct {
	mode      mode
	backends  int
	scattered bool
}

// exception is why queries of the corpus are answered otherwise than it expects.
type exception string

const (
	// delayedNames: the corpus expects what Prometheus answers with its feature
	// promql-delayed-name-removal. The answer here is that without it.
	delayedNames exception = "Prometheus itself needs promql-delayed-name-removal for this"
	// resets: the values are right, but Prometheus' remark that a counter reset
	// and none meet in one sum of histograms is missing if they do not meet at a
	// backend.
	resets exception = "a remark about counter resets of histograms at different backends"
	// cancelling: the values cancel each other to less than the precision of a
	// float, so that a sum depends on the order of summation. Only if scattered.
	cancelling exception = "a sum that depends on its order"
	// durations: subqueries with arithmetic on durations, an experimental feature
	// that is never switched on here, are refused.
	durations exception = "promql-duration-expr is off"
	// smoothed: over a range at a fixed time, Prometheus gives such a sample a
	// timestamp that is not of the range, which is taken for a malformed answer.
	smoothed exception = "promql-extended-range-selectors is off"
)

// corpusExceptions are all of them.
var corpusExceptions = map[exception][]string{
	delayedNames: {
		`histogram_quantile(0.8, series)`,
		`histogram_fraction(-Inf, 1, series)`,
		`label_replace(rate({env="1"}[10m]), "my_name", "rate_$1", "__name__", "(.+)")`,
		`label_replace(rate({env="1"}[10m]), "__name__", "rate_$1", "__name__", "(.+)")`,
		`label_join(rate({env="1"}[10m]), "my_name", "_", "__name__")`,
		`label_join(rate({env="1"}[10m]), "__name__", "_", "__name__", "env")`,
		`sum(rate({env="1"}[10m])) by (env)`,
		`label_replace(sum by (__name__) (rate(metric_total{env="2"}[5m])), "__name__", "$1", "__name__", "(.+)")`,
		`sum by (__name__) (metric_total{env="1"} or rate(metric_total{env="2"}[5m]))`,
		`sum by (__name__) (rate(metric_total{env="2"}[5m]) or metric_total{env="1"})`,
		`histogram_quantile(1, histogram_nan)`,
		`histogram_quantile(0.81, histogram_nan)`,
		`histogram_quantile(0.8, histogram_nan{case="100% NaNs"})`,
		`histogram_quantile(0.8, histogram_nan{case="20% NaNs"})`,
		`histogram_quantile(0.4, histogram_nan{case="100% NaNs"})`,
		`histogram_quantile(0.4, histogram_nan{case="20% NaNs"})`,
		`histogram_fraction(-Inf, 0.7071067811865475, histogram_nan)`,
		`histogram_fraction(-Inf, +Inf, histogram_nan)`,
		`histogram_quantile(0.5, nonmonotonic_bucket)`,
		`histogram_quantile(0.5, myHistogram1)`,
		`histogram_quantile(0.5, myHistogram2)`,
		`histogram_quantile(0.5, mixedHistogram)`,
		`(http_requests_total{group="canary"} + 1) and http_requests_total{instance="0"}`,
		`(http_requests_total{group="canary"} + 1) or http_requests_total{instance="1"}`,
	},
	resets: {
		`histogram_count(sum(reset))`,
		`histogram_count(avg(reset))`,
	},
	cancelling: {
		`sum(data{test="ten"})`,
		`avg(data{test="ten"})`,
	},
	durations: {
		`sum_over_time(metric1_total[29s+1s:5s+5s])`,
		`sum_over_time(metric1_total[29s+1s:((((8 - 2) / 3) * 7s) % 4) + 8000ms])`,
		`sum_over_time(metric1_total[29s+1s:20*500ms] offset (20*(((((8 - 2) / 3) * 7s) % 4) + 8000ms)))`,
		`sum_over_time(metric1_total[29s+1s:20*500ms] offset -(20*(((((8 - 2) / 3) * 7s) % 4) + 8000ms)))`,
	},
	smoothed: {
		`metric smoothed`,
		`withreset smoothed`,
		`notregular smoothed`,
	},
}

// TestPrometheusCorpus is about the promise of the package for all that
// Prometheus tests of its language.
func TestPrometheusCorpus(t *testing.T) {
	// The corpus switches features of the parser on, and all of them off.
	t.Cleanup(func() { parser.EnableExperimentalFunctions = true })
	for _, run := range corpusRuns {
		t.Run(fmt.Sprintf("%s %d scattered=%t", run.mode, run.backends, run.scattered), func(t *testing.T) {
			if testing.Short() && run != corpusRuns[2] {
				t.Skip("run without -short")
			}
			if run.mode == overProcesses {
				program.Prometheus().Build(t)
			}
			c := newCorpus(t, run)
			promqltest.RunBuiltinTestsWithStorage(t, c, c.open)
			t.Logf("queries by number of backends: %v, exceptions: %v", c.queries, c.excepted)
			require.Greater(t, c.queries[run.backends], 3000)
		})
	}
}

// corpus is the engine and the storage that the corpus runs on.
type corpus struct {
	corpusRun

	tb testing.TB
	// reference is Prometheus' engine as it is by default, flagged with the
	// features that the corpus expects.
	reference, flagged *promql.Engine
	// queries counts those that ran over so many backends.
	queries  [4]int
	excepted map[exception]int
	// exceptions by the canonical text of the query.
	exceptions map[string]exception
}

func newCorpus(t *testing.T, run corpusRun) *corpus {
	c := &corpus{
		corpusRun: run, tb: t, reference: promserver.Engine(),
		flagged:  promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery),
		excepted: map[exception]int{}, exceptions: map[string]exception{},
	}
	parser.EnableExtendedRangeSelectors, parser.ExperimentalDurationExpr = true, true
	for why, queries := range corpusExceptions {
		for _, q := range queries {
			c.exceptions[canonical(q)] = why
		}
	}
	return c
}

func (c *corpus) open(t testutil.T) storage.Storage {
	return &corpusStorage{TestStorage: teststorage.New(t), corpus: c, scope: scope{TB: t.(testing.TB)}}
}

// NewInstantQuery implements promql.QueryEngine.
func (c *corpus) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, ts time.Time) (promql.Query, error) {
	return c.query(q.(*corpusStorage), expr, func(e promql.QueryEngine, q storage.Queryable) (promql.Query, error) {
		return e.NewInstantQuery(ctx, q, opts, expr, ts)
	})
}

// NewRangeQuery implements promql.QueryEngine.
func (c *corpus) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return c.query(q.(*corpusStorage), expr, func(e promql.QueryEngine, q storage.Queryable) (promql.Query, error) {
		return e.NewRangeQuery(ctx, q, opts, expr, start, end, step)
	})
}

type newQuery func(promql.QueryEngine, storage.Queryable) (promql.Query, error)

// query answers a query of the corpus, which judges the answer itself unless
// it can't know it.
func (c *corpus) query(s *corpusStorage, expr string, query newQuery) (promql.Query, error) {
	s.start()
	c.queries[len(s.parts)]++
	why, excepted := c.exceptions[canonical(expr)]
	excepted = excepted && (why != cancelling || c.scattered)
	if excepted {
		c.excepted[why]++
	}
	if c.scattered && !excepted || why == delayedNames || why == resets {
		c.compare(s, expr, query)
	}
	if c.scattered || excepted {
		return query(c.flagged, s)
	}
	q, err := query(s.evaluator.QueryEngine(), s)
	if err != nil {
		return nil, err
	}
	return bareErrors{q}, nil
}

// compare compares an answer with one Prometheus'.
func (c *corpus) compare(s *corpusStorage, expr string, query newQuery) {
	want, wantErr := query(c.reference, s.spread)
	got, gotErr := query(s.evaluator.QueryEngine(), nil)
	if wantErr != nil || gotErr != nil {
		require.Equal(c.tb, wantErr == nil, gotErr == nil, "%s: want %v, got %v", expr, wantErr, gotErr)
		return
	}
	defer want.Close()
	defer got.Close()
	ctx := context.Background()
	if d := resultDifference(expr, want.Exec(ctx), got.Exec(ctx)); d != "" {
		c.tb.Errorf("%s\n%s", expr, d)
	}
}

// bareErrors takes the names of backends off the texts of errors, which the
// corpus compares.
type bareErrors struct{ promql.Query }

// Exec implements promql.Query.
func (q bareErrors) Exec(ctx context.Context) *promql.Result {
	res := q.Query.Exec(ctx)
	var e *evaluator.Error
	if errors.As(res.Err, &e) {
		res.Err = e.Err
	}
	return res
}

// canonical is the text of an expression without @ modifiers.
func canonical(expr string) string {
	e, err := parser.ParseExpr(expr)
	if err != nil {
		return expr
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			n.Timestamp = nil
		case *parser.SubqueryExpr:
			n.Timestamp = nil
		}
		return nil
	})
	return e.String()
}

// corpusStorage remembers what is written in order to spread it over backends
// when it is queried.
type corpusStorage struct {
	*teststorage.TestStorage

	corpus *corpus
	series []promql.Series
	index  map[string]int

	// Of the series so far.
	scope     scope
	parts     []partition
	evaluator *evaluator.Evaluator
	// spread has all series as the backends have them together.
	spread storage.Queryable
}

// Close implements storage.Storage.
func (s *corpusStorage) Close() error {
	s.scope.close()
	return s.TestStorage.Close()
}

// Appender implements storage.Appendable.
func (s *corpusStorage) Appender(ctx context.Context) storage.Appender {
	s.scope.close()
	s.evaluator = nil
	return corpusAppender{s.TestStorage.Appender(ctx), s}
}

type corpusAppender struct {
	storage.Appender

	storage *corpusStorage
}

// Append implements storage.Appender.
func (a corpusAppender) Append(ref storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	s := a.storage.of(l)
	s.Floats = append(s.Floats, promql.FPoint{T: t, F: v})
	return a.Appender.Append(ref, l, t, v)
}

// AppendHistogram implements storage.Appender.
func (a corpusAppender) AppendHistogram(ref storage.SeriesRef, l labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	s := a.storage.of(l)
	s.Histograms = append(s.Histograms, promql.HPoint{T: t, H: fh})
	return a.Appender.AppendHistogram(ref, l, t, h, fh)
}

func (s *corpusStorage) of(metric labels.Labels) *promql.Series {
	key := metric.String()
	i, known := s.index[key]
	if !known {
		if s.index == nil {
			s.index = map[string]int{}
		}
		i = len(s.series)
		s.index[key] = i
		s.series = append(s.series, promql.Series{Metric: metric})
	}
	return &s.series[i]
}

// start starts the backends and the evaluator if they are not running.
func (s *corpusStorage) start() {
	if s.evaluator != nil {
		return
	}
	series := s.series
	s.spread = s.TestStorage
	if s.corpus.scattered {
		s.parts, series = scatter(s.series, s.corpus.backends)
		whole := promserver.Storage(&s.scope)
		promserver.Append(&s.scope, whole, series)
		s.spread = whole
	} else {
		s.parts = partitionsOf(s.series, s.corpus.backends)
	}
	var configs []evaluator.BackendConfig
	for _, p := range s.parts {
		configs = append(configs, startPartition(&s.scope, s.corpus.mode, p, series))
	}
	s.evaluator, _ = evaluatorOf(&s.scope, configs)
}

// scatter gives every series a label that says which of n partitions it is in.
func scatter(series []promql.Series, n int) ([]partition, []promql.Series) {
	var parts []partition
	for i := range n {
		shard := fmt.Sprint(i)
		parts = append(parts, partition{"shard " + shard, map[string]string{"shard": shard}})
	}
	scattered := slices.Clone(series)
	for i, s := range series {
		shard := fmt.Sprint(s.Metric.Hash() % uint64(n))
		scattered[i].Metric = labels.NewBuilder(s.Metric).Set("shard", shard).Labels()
	}
	return parts, scattered
}

// partitionsOf finds one or two labels that have together n different values
// in a set of series, and as evenly spread as possible; fewer values if need be.
// They are then partition labels.
func partitionsOf(series []promql.Series, n int) []partition {
	best, least := []partition{{name: "all"}}, 0
	names := labelNames(series)
	for i, a := range names {
		for _, b := range names[i:] {
			sizes := sizesBy(series, a, b)
			smallest := slices.Min(slices.Collect(maps.Values(sizes)))
			if len(sizes) > n || cmp.Or(cmp.Compare(len(sizes), len(best)), cmp.Compare(smallest, least)) <= 0 {
				continue
			}
			best, least = nil, smallest
			for key := range sizes {
				best = append(best, partition{fmt.Sprintf("%s=%s,%s=%s", a, key[0], b, key[1]), map[string]string{a: key[0], b: key[1]}})
			}
		}
	}
	slices.SortFunc(best, func(p, q partition) int { return strings.Compare(p.name, q.name) })
	return best
}

// labelNames are the labels of a set of series that may be partition labels.
func labelNames(series []promql.Series) []string {
	names := map[string]bool{}
	for _, s := range series {
		s.Metric.Range(func(l labels.Label) { names[l.Name] = !strings.HasPrefix(l.Name, "__") && l.Name != labels.BucketLabel })
	}
	maps.DeleteFunc(names, func(_ string, may bool) bool { return !may })
	return slices.Sorted(maps.Keys(names))
}

// sizesBy counts series by their values of two labels.
func sizesBy(series []promql.Series, a, b string) map[[2]string]int {
	sizes := map[[2]string]int{}
	for _, s := range series {
		sizes[[2]string{s.Metric.Get(a), s.Metric.Get(b)}]++
	}
	return sizes
}
