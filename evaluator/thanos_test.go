package evaluator_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/test/thanos"
)

// thanosData is the part of a sample fleet that carries a cluster, which every
// Thanos store does. Its counters are never reset; see differs.
func thanosData(seed uint64) []promql.Series {
	series := slices.DeleteFunc(sampleData(rand.New(rand.NewPCG(seed, 0))), func(s promql.Series) bool { return s.Metric.Get("cluster") == "" })
	for _, s := range series {
		if strings.HasSuffix(s.Metric.Get(labels.MetricName), "_total") {
			resetsAddedUp(s.Floats)
		}
	}
	return series
}

// resetsAddedUp raises what follows a reset by what was counted before it.
func resetsAddedUp(points []promql.FPoint) {
	before, last := 0.0, 0.0
	for i, p := range points {
		if p.F < last {
			before += last
		}
		last = p.F
		points[i].F += before
	}
}

// startStore stores the series of one cluster.
func startStore(t *testing.T, cluster, replica string, series []promql.Series) *thanos.Receiver {
	t.Helper()
	r := thanos.StartReceiver(t, labels.Label{Name: "cluster", Value: cluster}, replica)
	var own []promql.Series
	for _, s := range series {
		if s.Metric.Get("cluster") == cluster {
			s.Metric = labels.NewBuilder(s.Metric).Del("cluster").Labels()
			own = append(own, s)
		}
	}
	r.Write(t, own)
	return r
}

func thanosBackend(t *testing.T, name string, partition map[string]string, q *thanos.Process) evaluator.BackendConfig {
	t.Helper()
	b := backendConfig(t, name, "", "http://"+q.HTTP)
	b.PartitionLabels = partition
	b.Thanos = &evaluator.ThanosConfig{Address: q.GRPC}
	return b
}

// thanosFleet is an evaluator over backends, with the whole data beside it.
func thanosFleet(t *testing.T, series []promql.Series, backends ...evaluator.BackendConfig) *fleet {
	t.Helper()
	f := &fleet{engine: promserver.Engine(), whole: promserver.Storage(t), registry: prometheus.NewRegistry()}
	promserver.Append(t, f.whole, series)
	cfg := evaluator.DefaultConfig()
	cfg.Timeout = model.Duration(2 * time.Minute)
	cfg.Backends = backends
	var err error
	f.evaluator, err = evaluator.New(cfg, promslog.NewNopLogger(), f.registry)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.evaluator.Close()) })
	return f
}

// thanosExpressions need, in turn: instant queries, scalars, histograms, raw
// series with staleness markers, subqueries.
var thanosExpressions = []string{
	`gauge`, `sum(gauge)`, `avg by (job) (gauge2)`, `sum by (cluster) (rate(counter_total[5m]))`,
	`gauge{cluster="east"} / on (job) group_left () sum by (job) (gauge{cluster="east"})`,
	`scalar(only_west)`, `gauge > scalar(only_west)`, `time()`, `vector(1)`, `count(special)`, `special`, `native`, `sum(native)`,
	`histogram_quantile(0.9, sum(native))`, `histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))`,
	`quantile(0.5, gauge)`, `stddev(gauge)`, `topk(2, gauge)`, `absent(nothing)`, `nothing`,
	`max_over_time(sum(gauge)[5m:1m])`, `sum_over_time(sum(special)[5m:30s])`,
	`quantile_over_time(scalar(sum(gauge)) * 0 + 0.5, gauge[5m])`,
	`max_over_time(quantile_over_time(scalar(sum(gauge)) * 0 + 0.5, gauge[5m])[1s:1s])`,
	`max_over_time(quantile_over_time(scalar(sum(gauge)) * 0 + 0.5, native[5m])[1s:1s])`,
	`label_replace(gauge, "cluster", "x", "job", "a")`, `gauge offset 3m`, `sum(gauge @ 1599999700)`, `timestamp(gauge)`,
}

// TestThanos compares two Thanos queriers, each over a store of its own, with
// one Prometheus: at a full second over gRPC, and at other times, and over
// ranges.
func TestThanos(t *testing.T) {
	t.Parallel()
	series := thanosData(3)
	east, west := startStore(t, "east", "", series), startStore(t, "west", "", series)
	overEast, overWest := thanos.StartQuerier(t, []string{east.GRPC}), thanos.StartQuerier(t, []string{west.GRPC}, "--query.promql-engine=thanos")
	f := thanosFleet(t, series,
		thanosBackend(t, "east", map[string]string{"cluster": "east"}, overEast),
		thanosBackend(t, "west", map[string]string{"cluster": "west"}, overWest),
	)
	for _, at := range []time.Time{slot.Truncate(time.Second), slot, slot.Truncate(time.Second).Add(-time.Minute)} {
		require.Empty(t, strings.Join(f.compare(t, thanosExpressions, at), "\n"), "at %s", at)
	}
	exprs := slices.DeleteFunc(generate(rand.New(rand.NewPCG(11, 0)), 200), differs.MatchString)
	require.Empty(t, strings.Join(f.compare(t, exprs, slot.Truncate(time.Second)), "\n"))
	t.Run("a store is killed", func(t *testing.T) {
		west.Kill()
		r := evaluate(t, f.evaluator, `sum(gauge)`, `sum(gauge{cluster="east"})`, `max_over_time(quantile_over_time(scalar(sum(gauge)) * 0 + 0.5, gauge{cluster="west"}[5m])[1s:1s])`)
		requireError(t, r[0].Err, evaluator.KindBackend, "west")
		require.NoError(t, r[1].Err)
		requireError(t, r[2].Err, evaluator.KindBackend, "west")
	})
}

// differs recognises the two known differences. Below the functions that read
// counters Thanos takes every series for one and adds up its resets as it
// reads: a subquery then sees other samples, as do resets and the extrapolation
// of a rate, which ends where the counter was zero. Counters without resets
// and histograms are as they were. And limit_ratio chooses by a hash of the
// labels, which the build tag that Thanos needs changes.
var differs = regexp.MustCompile(`\b(rate|increase|irate|resets)\((\(|gauge|special|only_west|info_metric|mixed|churning)|limit_ratio`)

// TestThanosDistributed puts one querier in distributed mode on top of others.
// It is one backend, which holds everything.
func TestThanosDistributed(t *testing.T) {
	t.Parallel()
	series := thanosData(4)
	var leaves []string
	for _, cluster := range []string{"east", "west"} {
		leaves = append(leaves, thanos.StartQuerier(t, []string{startStore(t, cluster, "", series).GRPC}).GRPC)
	}
	root := thanos.StartQuerier(t, leaves, "--query.mode=distributed", "--query.promql-engine=thanos")
	f := thanosFleet(t, series, thanosBackend(t, "all", nil, root))
	require.Empty(t, strings.Join(f.compare(t, thanosExpressions, slot.Truncate(time.Second)), "\n"))
	r := evaluate(t, f.evaluator, `sum(gauge)`)
	require.Error(t, r[0].Err, "it evaluates at full seconds only, whatever it is asked for")
}

// TestThanosReplicas: a querier deduplicates two stores with the same series.
func TestThanosReplicas(t *testing.T) {
	t.Parallel()
	series := thanosData(5)
	var stores []string
	for _, replica := range []string{"0", "1"} {
		stores = append(stores, startStore(t, "east", replica, series).GRPC)
	}
	querier := thanos.StartQuerier(t, stores, "--query.replica-label=replica")
	east := slices.DeleteFunc(series, func(s promql.Series) bool { return s.Metric.Get("cluster") != "east" })
	f := thanosFleet(t, east, thanosBackend(t, "east", map[string]string{"cluster": "east"}, querier))
	exprs := []string{`gauge`, `sum(gauge)`, `count(special)`, `sum(rate(counter_total[5m]))`, `native`}
	require.Empty(t, strings.Join(f.compare(t, exprs, slot.Truncate(time.Second)), "\n"))
	raw, err := f.evaluator.Queryable().Querier(slot.Add(-time.Minute).UnixMilli(), slot.UnixMilli())
	require.NoError(t, err)
	set := raw.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "gauge"))
	require.False(t, set.Next())
	require.ErrorContains(t, set.Err(), "deduplicates replicas")
}
