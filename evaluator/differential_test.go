package evaluator_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// slot is when everything is evaluated: not at a full second, as real slots.
var slot = time.UnixMilli(1_600_000_000_123).UTC()

const scrape = 15 * time.Second

// sampleData is a small fleet of everything: gauges, counters with resets,
// classic and native histograms, a metric in one partition only, series that
// go stale, NaN and Inf.
func sampleData(rng *rand.Rand) []promql.Series {
	var all []promql.Series
	for _, p := range partitions {
		for _, job := range []string{"a", "b"} {
			for _, instance := range []string{"0", "1", "2"} {
				ls := labels.FromMap(map[string]string{"cluster": p.labels["cluster"], "job": job, "instance": instance}).WithoutEmpty()
				all = append(all, instanceData(rng, ls)...)
			}
			ls := labels.FromMap(map[string]string{"cluster": p.labels["cluster"], "job": job, "version": "v" + fmt.Sprint(rng.IntN(2))}).WithoutEmpty()
			all = append(all, named(ls, "info_metric", gauge(rng, 1)))
		}
		if p.labels["cluster"] == "west" {
			all = append(all, named(labels.FromStrings("cluster", "west", "job", "a"), "only_west", gauge(rng, 5)))
		}
	}
	return all
}

func instanceData(rng *rand.Rand, ls labels.Labels) []promql.Series {
	all := []promql.Series{
		named(ls, "gauge", gauge(rng, 100)),
		named(ls, "gauge2", gauge(rng, 10)),
		named(ls, "counter_total", counter(rng)),
		named(ls, "errors_total", counter(rng)),
		named(ls, "special", special(rng)),
		{Metric: withName(ls, "native"), Histograms: native(rng)},
	}
	total := 0.0
	for _, le := range []string{"0.1", "1", "+Inf"} {
		total += float64(rng.IntN(10))
		bucket := labels.NewBuilder(ls).Set("le", le).Labels()
		points := counter(rng)
		for i := range points {
			points[i].F = total * float64(i+1)
		}
		all = append(all, named(bucket, "latency_bucket", points))
	}
	return all
}

func withName(ls labels.Labels, name string) labels.Labels {
	return labels.NewBuilder(ls).Set(labels.MetricName, name).Labels()
}

func named(ls labels.Labels, name string, points []promql.FPoint) promql.Series {
	return promql.Series{Metric: withName(ls, name), Floats: points}
}

// times are the scrapes of the 20 minutes before and the minute after slot.
func times(rng *rand.Rand) []int64 {
	var ts []int64
	from := slot.Add(-20 * time.Minute).Add(time.Duration(rng.IntN(15000)) * time.Millisecond)
	for at := from; at.Before(slot.Add(time.Minute)); at = at.Add(scrape) {
		ts = append(ts, timestamp.FromTime(at))
	}
	return ts
}

func gauge(rng *rand.Rand, limit int) (points []promql.FPoint) {
	for _, t := range times(rng) {
		points = append(points, promql.FPoint{T: t, F: float64(rng.IntN(4*limit)) / 4})
	}
	return points
}

func counter(rng *rand.Rand) (points []promql.FPoint) {
	v := 0.0
	for _, t := range times(rng) {
		if v += float64(rng.IntN(50)); rng.IntN(40) == 0 {
			v = 0
		}
		points = append(points, promql.FPoint{T: t, F: v})
	}
	return points
}

// special values, gaps and staleness.
func special(rng *rand.Rand) (points []promql.FPoint) {
	values := []float64{0, 1, -1, 2.5, inf(1), inf(-1), nan(), 7}
	for _, t := range times(rng) {
		if rng.IntN(4) == 0 {
			continue
		}
		v := values[rng.IntN(len(values))]
		if rng.IntN(10) == 0 {
			v = stale()
		}
		points = append(points, promql.FPoint{T: t, F: v})
	}
	return points
}

var (
	inf   = math.Inf
	nan   = math.NaN
	stale = func() float64 { return math.Float64frombits(value.StaleNaN) }
)

func native(rng *rand.Rand) (points []promql.HPoint) {
	h := &histogram.FloatHistogram{
		Schema: 1, ZeroThreshold: 0.001,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []float64{1, 2, 3},
		Count: 6, Sum: 10,
	}
	for _, t := range times(rng) {
		h = h.Copy()
		add := float64(rng.IntN(8))
		h.PositiveBuckets[rng.IntN(3)] += add
		h.Count += add
		h.Sum += add * 2
		points = append(points, promql.HPoint{T: t, H: h})
	}
	return points
}

// expressions are chosen by hand: each kind of decision that the planner and
// the virtualisation make.
var expressions = strings.Split(strings.TrimSpace(`
gauge
gauge{cluster="east"}
gauge{cluster=~"east|west"}
gauge{cluster!="west",job="a"}
gauge{cluster=""}
gauge{cluster="north"}
{__name__=~"gauge|gauge2",cluster=~".+"}
rate(counter_total[5m])
rate({__name__=~"counter_total|errors_total"}[5m])
sum(gauge)
sum by (cluster) (gauge)
sum by (job) (rate(counter_total[5m]))
sum without (instance) (gauge)
sum without (cluster, instance) (gauge)
sum by (job) (sum by (job, cluster) (gauge))
avg(gauge)
avg by (job) (gauge)
avg without (cluster) (gauge)
min by (job) (gauge)
max without (cluster, job) (gauge)
count(gauge)
count by (cluster) (gauge)
group by (job) (gauge)
stddev(gauge)
stdvar by (cluster) (gauge)
quantile(0.9, gauge)
quantile by (cluster) (0.5, gauge)
topk(4, rate(counter_total[10m]))
bottomk by (job) (2, rate(counter_total[10m]))
topk by (cluster) (1, rate(counter_total[10m]))
limit_ratio(0.5, gauge)
sum by (job) (limit_ratio by (job) (-0.4, gauge))
count_values("v", gauge2)
count_values by (job) ("v", gauge2)
count_values without (instance) ("v", gauge2)
count_values without (instance, cluster) ("v", gauge2)
count_values by (job) ("cluster", gauge2)
sum(special)
avg(special)
max(special)
min by (cluster) (special)
sum(native)
avg by (job) (native)
sum by (cluster) (rate(native[5m]))
histogram_quantile(0.9, sum(rate(native[5m])))
histogram_quantile(0.9, rate(native[5m]))
histogram_count(sum by (job) (native))
sum({__name__=~"native|gauge"})
avg({__name__=~"native|gauge",job="a"})
count({__name__=~"native|gauge"})
histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))
histogram_quantile(0.5, sum by (le, job) (rate(latency_bucket[5m])))
histogram_quantile(0.5, sum by (le, cluster) (rate(latency_bucket[5m])))
histogram_quantile(0.5, rate(latency_bucket[5m]))
gauge / gauge2
gauge / on (cluster, job, instance) gauge2
gauge / on (job, instance) gauge2
gauge / ignoring (cluster) gauge2
sum by (job) (gauge) / sum by (job) (gauge2)
sum by (job) (rate(errors_total[5m])) / sum by (job) (rate(counter_total[5m])) > 0.5
gauge * on (cluster, job) group_left (version) info_metric
gauge * on (job) group_left (version) info_metric
gauge * on (job) group_left (version, cluster) info_metric{cluster="east"}
info_metric * on (cluster, job) group_right (version) gauge
gauge > 50
gauge > bool 50
50 < gauge
gauge > gauge2
gauge == on (cluster, job, instance) gauge
gauge and gauge2
gauge and on (job) only_west
gauge and on (cluster) only_west
gauge unless on (cluster, job) only_west
gauge unless on (cluster) only_west{cluster="west"}
gauge unless only_west
gauge or gauge2
gauge or on (cluster) gauge2
gauge{cluster="east"} or gauge2{cluster="west"}
gauge{cluster="east"} or on (job) gauge2{cluster="west"}
gauge{cluster="east"} / on (job, instance) gauge{cluster="west"}
gauge{cluster="east"} / on (job, instance) gauge2{cluster="east"}
only_west or vector(0)
nothing or vector(0)
sum(nothing) or vector(0)
vector(1) unless on () gauge
vector(1) and on () gauge
gauge and on () (hour() >= 0)
gauge and on () vector(1)
gauge * on () group_left () vector(2)
gauge + on () vector(2)
vector(2) * on () group_right () gauge
gauge - vector(1)
absent(gauge)
absent(nothing)
absent(nothing{job="a"})
absent(nothing{cluster="east",job="a"})
absent(nothing{cluster=~"east|west",job="a"})
absent(nothing{cluster="north"})
absent(only_west)
absent(only_west{cluster="east"})
absent(only_west{cluster="west"})
absent(sum(nothing))
absent(sum(gauge))
absent(rate(nothing[5m]))
absent((nothing{job="a"}))
absent_over_time(nothing{job="a",cluster="west"}[5m])
absent_over_time(gauge[5m])
absent_over_time(sum(nothing)[5m:1m])
scalar(only_west)
scalar(gauge)
scalar(sum(gauge))
gauge > scalar(only_west)
clamp_max(gauge, scalar(only_west))
topk(scalar(only_west{cluster="west"}), rate(counter_total[10m]))
quantile by (cluster) (scalar(only_west) / 10, gauge)
quantile_over_time(scalar(only_west) / 10, gauge[5m])
predict_linear(gauge[10m], scalar(only_west))
sum by (job) (gauge * scalar(sum(gauge2)))
sum by (job) (gauge + scalar(nothing{cluster="north"}))
count(gauge < scalar(avg(gauge))) or count(gauge > bool scalar(nothing))
count(scalar(0 - avg(gauge2)) ^ gauge2) + sum(-scalar(-avg(gauge2)) - gauge)
count(gauge / scalar(sum(gauge) * -0) < 0)
count(gauge < scalar(sum(gauge) / 0)) - count(gauge > scalar(-sum(gauge) / 0))
gauge - scalar(avg(special)) > -Inf
topk(scalar(nothing), gauge)
topk(scalar(count(gauge)) - 3, gauge)
quantile by (job) (0.5, gauge{cluster="east"} > scalar(sum(gauge{cluster="west"}) / 100))
sum(native) * scalar(sum(gauge)) and on () count(native * scalar(avg(gauge)) != scalar(only_west))
histogram_quantile(scalar(count(gauge)) / 100, rate(native[5m])) > scalar(only_west) / 1e9
histogram_quantile(scalar(count(gauge)) / 100, sum by (le, cluster) (rate(latency_bucket[5m])))
sum(clamp(gauge, scalar(min(gauge)) + 1, scalar(max(gauge)) - time() / 1e10))
(gauge > scalar(avg(gauge))) / on (cluster, job, instance) group_left () (gauge2 * scalar(avg(gauge)))
gauge and on (cluster) vector(scalar(sum(gauge)))
max_over_time((gauge > scalar(avg(gauge)))[5m:1m])
sum(gauge * scalar(sum by (job) (gauge) / on () group_left () gauge))
vector(scalar(gauge{cluster="east",job="a",instance="0"}))
vector(time())
time()
1 + 2
scalar(only_west) + 1
-gauge
-(sum(gauge))
+gauge
label_replace(gauge, "region", "r-$1", "cluster", "(.*)")
label_replace(gauge, "cluster", "x", "job", "a")
label_replace(gauge, "job", "all", "job", ".*")
label_join(gauge, "id", "/", "cluster", "instance")
sum by (region) (label_replace(gauge, "region", "r-$1", "cluster", "(.+)"))
sum by (cluster) (label_replace(gauge, "cluster", "x", "job", "a"))
timestamp(gauge)
timestamp(gauge{cluster="east"}) - timestamp(gauge{cluster="east"})
timestamp(sum(gauge))
gauge offset 5m
gauge @ 1599999900
sum(gauge @ 1599999900.5 offset 1m)
sum(gauge @ end()) - sum(gauge)
rate(counter_total[5m] offset 2m)
max_over_time(gauge[5m:1m])
max_over_time(rate(counter_total[1m])[10m:30s])
max_over_time(sum(gauge)[10m:1m])
sum_over_time(sum by (job) (gauge)[10m:45s])
avg_over_time(sum by (job) (gauge)[10m:] offset 1m)
max_over_time(sum(gauge)[10m:1m] @ 1599999900)
max_over_time(count(special)[10m:20s])
count_over_time((sum(special) > 0)[10m:20s])
last_over_time(sum by (instance) (special)[5m:15s])
max_over_time((gauge and on (job) only_west)[5m:1m])
max_over_time(max_over_time(sum(gauge)[3m:30s])[5m:1m])
rate(sum(native)[5m:30s])
sum(max_over_time(sum by (job) (gauge)[5m:1m]))
sum(only_west)
avg(only_west)
sort(gauge)
sort_desc(sum by (job, cluster) (gauge))
sum(sort(gauge))
changes(gauge[5m]) > 3
deriv(gauge[5m])
day_of_week()
hour(timestamp(gauge))
round(gauge, 5)
count(count by (cluster) (gauge))
count(count by (job) (gauge))
sum(gauge) by (cluster) / on () group_left sum(gauge)
sum by (cluster) (gauge) / on (cluster) count by (cluster) (gauge)
sum by (cluster, job) (gauge) / ignoring (job) group_left sum by (cluster) (gauge)
sum by (job) (gauge) / ignoring (cluster) sum by (job) (gauge2)
max by (job) (gauge) == max by (job) (gauge)
(sum(rate(errors_total[5m])) by (cluster) / sum(rate(counter_total[5m])) by (cluster)) > 0.1 and sum(rate(counter_total[5m])) by (cluster) > 1
1 - avg by (job, cluster) (gauge2) / 10
sum(gauge) > sum(gauge2) or sum(gauge2)
count(gauge{cluster="east"}) + count(gauge{cluster="west"})
sum(gauge{cluster="east"}) + sum(gauge)
count(info({cluster="east"}, {__name__="info_metric"}))
`), "\n")

func TestMain(m *testing.M) {
	parser.EnableExperimentalFunctions = true
	os.Exit(m.Run())
}

// TestAnswersEqualOnePrometheus is the promise of the package, over every way
// to reach a backend. Later slots use the plans of the first.
func TestAnswersEqualOnePrometheus(t *testing.T) {
	t.Parallel()
	data := sampleData(rand.New(rand.NewPCG(1, 2)))
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, m, data)
			queries := parsed(t, expressions)
			for _, ts := range []time.Time{slot, slot.Add(-4 * scrape)} {
				require.Empty(t, strings.Join(f.compareQueries(t, queries, ts), "\n"))
			}
		})
	}
}
