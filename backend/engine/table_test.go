package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/engine"
)

// load holds floats, counters with resets, gaps, staleness markers, NaN and
// infinities, native histograms of every kind, and series that change from one
// type to another.
const load = `
load 30s
  requests_total{job="a", instance="0", cluster="east"} 0+10x80
  requests_total{job="a", instance="1", cluster="east"} 0+20x20 0+20x60
  requests_total{job="b", instance="0", cluster="west"} 5 5 5 _ _ stale 1 2 3 4 5 6 7 8 9
  requests_total{job="b", instance="1", cluster="west"} _x40 0+7x40
  errors_total{job="a", instance="0", cluster="east"} 0+1x80
  errors_total{job="b", instance="1", cluster="west"} _x40 0+2x20 stale
  up{job="a", instance="0"} 1x80
  up{job="a", instance="1"} 1x30 0x50
  up{job="b", instance="0"} 1 stale 1x30 stale 0x40
  info{instance="0", version="1"} 1x80
  info{instance="1", version="2"} 1x80
  temperature{room="x"} NaN Inf -Inf -0 1.5 2.5 NaN NaN 1e300 5e-324
  temperature{room="y"} 1-1x80
  limit{job="a"} 90x80
  limit{job="b"} 10x80
  requests_bucket{job="a", le="0.1"} 0+1x80
  requests_bucket{job="a", le="1"} 0+5x80
  requests_bucket{job="a", le="+Inf"} 0+6x80
  requests_bucket{job="b", le="0.1"} 0+2x80
  requests_bucket{job="b", le="+Inf"} 0+2x80
  latency{job="a"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}+{{schema:0 sum:5 count:4 buckets:[1 2 1]}}x80
  latency{job="b"} {{schema:1 sum:5 count:6 z_bucket:2 z_bucket_w:0.01 buckets:[1 2 1]}}+{{schema:1 sum:5 count:4 buckets:[1 2 1]}}x80
  level{job="a"} {{schema:1 sum:5 count:6 z_bucket:2 z_bucket_w:0.01 counter_reset_hint:gauge buckets:[1 2 1] n_buckets:[0]}}x80
  custom{job="a"} {{schema:-53 sum:5 count:4 custom_values:[1 5] buckets:[1 2 1]}}+{{schema:-53 sum:5 count:4 custom_values:[1 5] buckets:[1 2 1]}}x80
  mixed{job="a"} 0+1x30 {{schema:0 sum:5 count:4 buckets:[1 2 1]}}+{{schema:0 sum:5 count:4 buckets:[1 2 1]}}x40
  mixed{job="b"} 1x80
`

// What functions and aggregations are applied to below.
var (
	vectors = []string{"requests_total", "up", "temperature", "latency", "level", "custom", "mixed", `{__name__=~"up|info"}`, "nothing", "up offset 1m", "up @ 60", "up @ end()"}
	ranges  = []string{"requests_total[5m]", "up[90s]", "temperature[5m]", "latency[5m]", "level[5m]", "custom[5m]", "mixed[5m]", "nothing[5m]", "requests_total[30s]", "requests_total[5m:1m]", "requests_total[5m] offset 1m", "up[5m:]"}
)

// expressions returns expressions of every kind.
func expressions() []string {
	exprs := append([]string{
		"1", "1 + 2 * 3", "-up", "time()", "vector(1)", `"text"`, "pi()", "scalar(limit{job=\"a\"})", "minute()", "day_of_week(up)",
		"requests_total - on (job) group_left () limit", "requests_total > on (job) group_left () limit", "up == bool 0", "up and on (instance) info",
		"up or requests_total", "up unless on (job) errors_total", "requests_total * on (instance) group_left (version) info",
		"up * on () up", "latency + custom", "latency * 2", "latency - latency", "latency == latency", "latency / limit", "up + latency",
		"up ^ 2 % 3", "up atan2 limit", "sum(requests_total) / count(up)", "errors_total / ignoring (job) requests_total",
		"sum by (job) (rate(errors_total[5m])) / sum by (job) (rate(requests_total[5m])) > 0.01",
		"histogram_quantile(0.9, sum by (le, job) (rate(requests_bucket[5m])))", "histogram_quantile(0.5, rate(latency[5m]))", "histogram_quantile(0.5, custom)",
		"histogram_quantile(2, latency)", "histogram_quantile(NaN, requests_bucket)", "histogram_fraction(0, 1, rate(latency[5m]))",
		"histogram_count(latency)", "histogram_sum(rate(latency[5m]))", "histogram_avg(latency)", "histogram_stddev(latency)", "histogram_stdvar(level)",
		`label_replace(up, "x", "$1", "instance", "(.*)")`, `label_join(up, "x", "-", "job", "instance")`, `label_replace(up, "instance", "", "", "")`,
		`label_replace({__name__=~"up|info"}, "__name__", "same", "", "")`, "absent(nothing{a=\"b\"})", "absent(up)", "absent_over_time(nothing[5m])", "absent_over_time(up[5m])",
		"round(temperature, 0.5)", "clamp(temperature, -1, 2)", "clamp_min(up, 1)", "clamp_max(up, 0)", "clamp(up, 2, 1)", "timestamp(up)", "timestamp(up offset 1m)", "timestamp(up @ start() offset 1m)", "timestamp(up @ 600 offset 1m)", "timestamp(up @ end())", `count_values without (room) ("room", temperature)`, `count_values without (room) (("room"), temperature)`, `count_values by (room) ("room", temperature)`, `requests_total unless ({__name__=~"errors_total|requests_total"} == bool on (instance) group_left (version) info)`, `label_join(mixed @ 2000, "job", "-", "x")`, `label_replace(mixed @ 2000, "job", "", "", "")`, `label_join(mixed, "job", "-", "x")`, `timestamp(latency or requests_total)`, `limit / ignoring (room) group_right () latency`, `avg(label_replace(custom, "job", "x", "", "") or label_replace(latency, "job", "x", "", ""))`, "timestamp(up + 0)",
		"predict_linear(requests_total[5m], 600)", "predict_linear(requests_total[5m], scalar(limit{job=\"a\"}))", "quantile_over_time(0.5, requests_total[5m])", "quantile_over_time(scalar(up{instance=\"1\"}), requests_total[5m])",
		"topk(2, requests_total)", "bottomk by (job) (1, requests_total)", "topk(0, up)", "topk(scalar(up{instance=\"1\"}), requests_total)", "quantile(0.5, requests_total)", "quantile by (job) (2, requests_total)",
		`count_values("v", up)`, `count_values by (job) ("v", latency)`, "sum without (instance) (requests_total)", "group by (job) (mixed)", "sum(mixed)", "avg(mixed)", "sum by (job) ({__name__=~\"mixed|up\"})",
		"sort(requests_total)", "sort_desc(up)", `absent(sort_by_label(nothing{a="b"}, "a"))`, "max_over_time(sum(rate(requests_total[1m]))[5m:30s])", "rate((requests_total - 1)[5m:])", "avg_over_time((latency - latency)[5m:])", "sum_over_time(rate(requests_total[5m])[10m:1m] offset 2m)",
		"max_over_time(max_over_time(up[2m:30s])[4m:1m])", "up offset -1m", "rate(requests_total[5m] @ start())", "up @ start() + up @ end()", "vector(scalar(up))", "scalar(nothing)", "up * scalar(nothing)",
		"requests_total{job!=\"a\"} > 3 and up", "sum(requests_total > bool 100)", "count(up == 0) or vector(0)", "(up == 1) == on (instance) group_right () info", "requests_total % 0", "1 / (up - up)", "up[5m]", "requests_total[2m:30s]", "up and", "foo(",
	}, applied("rate", "irate", "increase", "delta", "idelta", "deriv", "changes", "resets", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time",
		"count_over_time", "last_over_time", "present_over_time", "stddev_over_time", "stdvar_over_time")(ranges)...)
	exprs = append(exprs, applied("abs", "ceil", "exp", "ln", "sgn", "sqrt", "sin", "rad", "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar",
		"sum by (job) ", "avg by (job) ", "max without (instance) ", "count by (cluster) ", "-", "2 * ", "1 > ")(vectors)...)
	return append(exprs, vectors...)
}

// applied returns what applies every function to every argument.
func applied(functions ...string) func(args []string) []string {
	return func(args []string) []string {
		var exprs []string
		for _, f := range functions {
			for _, arg := range args {
				exprs = append(exprs, fmt.Sprintf("%s(%s)", f, arg))
			}
		}
		return exprs
	}
}

func TestEveryKindOfExpressionEqualsPrometheus(t *testing.T) {
	t.Parallel()
	db := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	reg := prometheus.NewRegistry()
	ours, reference := engine.New(engine.Config{}, reg, promslog.NewNopLogger()), newReference(t)
	instants := []int64{0, 45, 150, 300, 930, 1215, 2400, 3000}
	exprs := expressions()
	for _, expr := range exprs {
		for _, at := range instants {
			compare(t, fmt.Sprintf("%s @ %d", expr, at), ours, reference, func(e promql.QueryEngine) (promql.Query, error) {
				return e.NewInstantQuery(t.Context(), db, nil, expr, time.Unix(at, 0))
			})
		}
		compare(t, expr+" as a range", ours, reference, func(e promql.QueryEngine) (promql.Query, error) {
			return e.NewRangeQuery(t.Context(), db, nil, expr, time.Unix(0, 0), time.Unix(2700, 0), 47*time.Second)
		})
	}
	// promql-engine must have done most of the work on ranges, although a good
	// part of it is about native histograms.
	require.Less(t, fallbacks(t, reg), len(exprs)/3)
}

func compare(t *testing.T, name string, ours, reference promql.QueryEngine, newQuery func(promql.QueryEngine) (promql.Query, error)) {
	t.Helper()
	if want, got := run(newQuery, reference), run(newQuery, ours); want != got {
		t.Errorf("%s\nours:      %s\nreference: %s", name, got, want)
	}
}

func fallbacks(t *testing.T, reg *prometheus.Registry) int {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	var sum int
	for _, family := range families {
		if family.GetName() == "tocsin_backend_engine_fallback_total" {
			for _, m := range family.GetMetric() {
				sum += int(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}
