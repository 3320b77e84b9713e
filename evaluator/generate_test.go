package evaluator_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// generator writes random expressions that parse.
type generator struct {
	*rand.Rand
}

// metrics that selectors name; the data has all but one of them.
var metrics = []string{
	"gauge", "gauge", "gauge2", "counter_total", "errors_total", "only_west", "info_metric", "nothing",
	"special", "native", "native_custom", "mixed", "latency_bucket", "churning",
}

// labelValues are what the labels of the data have, and a few more.
var labelValues = map[string][]string{
	"cluster":  {`="east"`, `="west"`, `=""`, `=~"east|west"`, `!="west"`, `=~".+"`, `!~"e.*"`, `="north"`},
	"region":   {`="a"`, `=~"a|b"`, `=""`, `!="b"`},
	"job":      {`="a"`, `=~"a|b"`, `!="b"`, `=~".*"`},
	"instance": {`="0"`, `!="1"`, `=~"[01]"`},
}

func (g generator) pick(options ...string) string { return options[g.IntN(len(options))] }

// vector is an instant vector of at most the given depth.
func (g generator) vector(depth int) string {
	if depth <= 0 {
		return g.selector()
	}
	switch g.IntN(13) {
	case 0, 1, 2:
		return g.aggregation(depth)
	case 3, 4, 5:
		return g.binary(depth)
	case 6, 7:
		return g.function(depth)
	case 8:
		return g.overTime(depth)
	case 9:
		return g.labelFunction(depth)
	case 10:
		return g.odd(depth)
	case 11:
		return g.rulelike()
	}
	return g.selector()
}

func (g generator) selector() string {
	selector := g.pick(metrics...) + g.matchers()
	if g.IntN(20) == 0 {
		selector = fmt.Sprintf(`{__name__=~"%s|%s"}`, g.pick(metrics...), g.pick(metrics...))
	}
	return selector + g.pick("", "", "", "", "", "", " offset 3m", " offset -30s", " @ 1599999700", " @ end()", " @ start() offset 1m")
}

func (g generator) matchers() string {
	var ms []string
	for _, label := range []string{"cluster", "job", "region", "instance"} {
		if g.IntN(4) == 0 {
			ms = append(ms, label+g.pick(labelValues[label]...))
		}
	}
	if len(ms) == 0 {
		return ""
	}
	return "{" + strings.Join(ms, ",") + "}"
}

func (g generator) labels() string {
	var ls []string
	for _, l := range []string{"cluster", "region", "job", "instance", "le"} {
		if g.IntN(3) == 0 {
			ls = append(ls, l)
		}
	}
	return strings.Join(ls, ", ")
}

func (g generator) grouping() string {
	return g.pick("", fmt.Sprintf(" by (%s)", g.labels()), fmt.Sprintf(" without (%s)", g.labels()))
}

func (g generator) aggregation(depth int) string {
	op := g.pick(
		"sum", "sum", "sum", "avg", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile", "count_values",
		"topk", "bottomk", "limitk", "limit_ratio",
	)
	param := ""
	switch op {
	case "quantile":
		param = g.pick("0.5, ", "0.9, ", "1.5, ", "NaN, ", "scalar(only_west) / 10, ")
	case "topk", "bottomk", "limitk":
		param = g.pick("1, ", "2, ", "5, ", "0, ", "-1, ", "scalar(only_west), ")
	case "limit_ratio":
		param = g.pick("0.5, ", "-0.3, ", "1, ", "2, ")
	case "count_values":
		// Of values that do not depend on the order of summation.
		param = g.pick(`"v", `, `"v", `, `"v", `, `"cluster", `, `"job", `)
		return fmt.Sprintf("%s%s (%s%s)", op, g.grouping(), param, g.selector())
	}
	return fmt.Sprintf("%s%s (%s%s)", op, g.grouping(), param, g.vector(depth-1))
}

func (g generator) binary(depth int) string {
	if g.IntN(4) == 0 {
		op := g.pick("+", "*", "/", "%", "^", ">", "< bool", "!=", ">=", "atan2")
		if g.IntN(2) == 0 {
			return fmt.Sprintf("(%s %s %s)", g.scalar(depth-1), op, g.vector(depth-1))
		}
		return fmt.Sprintf("(%s %s %s)", g.vector(depth-1), op, g.scalar(depth-1))
	}
	op := g.pick("+", "-", "*", "/", ">", "== bool", "and", "or", "unless", "and", "unless")
	matching := g.pick(
		"", "", fmt.Sprintf(" on (%s)", g.labels()), fmt.Sprintf(" ignoring (%s)", g.labels()),
		" on (cluster, job)", " on (cluster, region, job, instance)", " ignoring (version)",
	)
	if matching != "" && op != "and" && op != "or" && op != "unless" {
		matching += g.pick("", " group_left ()", " group_right ()", " group_left (version)", " group_left (cluster)")
	}
	return fmt.Sprintf("(%s %s%s %s)", g.vector(depth-1), op, matching, g.vector(depth-1))
}

func (g generator) scalar(depth int) string {
	return g.pick("2", "0", "50", "-1", "NaN", "-Inf", "time() / 1e9", fmt.Sprintf("scalar(%s)", g.vector(depth)), fmt.Sprintf("(1 - scalar(%s))", g.selector()))
}

func (g generator) function(depth int) string {
	switch g.IntN(6) {
	case 0:
		return fmt.Sprintf("histogram_quantile(%s, %s)", g.pick("0.9", "0.5", "1.2", "scalar(only_west) / 10"), g.vector(depth-1))
	case 1:
		return fmt.Sprintf("clamp_max(%s, %s)", g.vector(depth-1), g.scalar(depth-1))
	case 2:
		return fmt.Sprintf("-(%s)", g.vector(depth-1))
	case 3:
		return fmt.Sprintf("histogram_fraction(0, %s, %s)", g.pick("1", "3", "+Inf"), g.vector(depth-1))
	case 4:
		return fmt.Sprintf("clamp(%s, %s, %s)", g.vector(depth-1), g.scalar(depth-1), g.scalar(depth-1))
	}
	return fmt.Sprintf("%s(%s)", g.pick(
		"abs", "ceil", "timestamp", "sqrt", "round", "histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev",
		"sgn", "exp", "ln", "hour", "sort", "sort_desc", "deg",
	), g.vector(depth-1))
}

var overTimeFunctions = []string{
	"rate", "increase", "irate", "delta", "idelta", "deriv", "changes", "resets", "avg_over_time", "max_over_time", "min_over_time",
	"sum_over_time", "count_over_time", "last_over_time", "first_over_time", "present_over_time", "stddev_over_time", "mad_over_time",
}

func (g generator) overTime(depth int) string {
	fn := g.pick(overTimeFunctions...)
	switch g.IntN(5) {
	case 0, 1:
		metric := g.pick("gauge", "counter_total", "special", "native", "only_west", "mixed", "churning")
		return fmt.Sprintf("%s(%s%s[%s]%s)", fn, metric, g.matchers(), g.pick("2m", "5m"), g.pick("", " offset 1m", " @ 1599999800"))
	case 2:
		return fmt.Sprintf("%s(%s, gauge%s[5m])", "quantile_over_time", g.scalar(depth-1), g.matchers())
	case 3:
		return fmt.Sprintf("predict_linear(gauge%s[5m], %s)", g.matchers(), g.scalar(depth-1))
	}
	return fmt.Sprintf("%s((%s)[%s]%s)", fn, g.vector(depth-1), g.pick("3m:1m", "4m:30s", "2m:"), g.pick("", "", " offset 1m", " @ 1599999800", " @ end()"))
}

func (g generator) labelFunction(depth int) string {
	return g.pick(
		fmt.Sprintf(`label_replace(%s, "%s", "x-$1", "%s", "(.+)")`, g.vector(depth-1), g.pick("zone", "job", "cluster"), g.pick("cluster", "job", "instance", "region")),
		fmt.Sprintf(`label_join(%s, "%s", "-", "%s", "instance")`, g.vector(depth-1), g.pick("id", "cluster"), g.pick("cluster", "job")),
		fmt.Sprintf(`sort_by_label(%s, "job")`, g.vector(depth-1)),
	)
}

func (g generator) odd(depth int) string {
	return g.pick(
		fmt.Sprintf("absent(%s)", g.vector(depth-1)),
		fmt.Sprintf("absent_over_time((%s)[3m:1m])", g.vector(depth-1)),
		fmt.Sprintf("vector(scalar(%s))", g.vector(depth-1)),
		fmt.Sprintf("(%s or vector(0))", g.vector(depth-1)),
		fmt.Sprintf("(%s and on () (hour() > 1))", g.vector(depth-1)),
		fmt.Sprintf("absent(nothing%s)", g.matchers()),
		fmt.Sprintf("absent_over_time(special%s[2m])", g.matchers()),
		"vector(1)",
	)
}

// rulelike has the shapes that rules have.
func (g generator) rulelike() string {
	by := g.pick("job", "job, cluster", "cluster", "job, instance", "")
	return g.pick(
		fmt.Sprintf("sum by (%s) (rate(errors_total[5m])) / sum by (%s) (rate(counter_total[5m]))", by, by),
		fmt.Sprintf("sum by (%s) (rate(errors_total[5m])) / sum by (%s) (rate(counter_total[5m])) > 0.5", by, by),
		fmt.Sprintf("histogram_quantile(0.9, sum by (le, job) (rate(latency_bucket%s[5m])))", g.matchers()),
		fmt.Sprintf("histogram_quantile(0.9, sum by (job) (rate(native%s[5m])))", g.matchers()),
		"gauge * on (cluster, region, job) group_left (version) info_metric",
		fmt.Sprintf("sum by (version) (gauge%s * on (cluster, region, job) group_left (version) info_metric)", g.matchers()),
		fmt.Sprintf("max by (%s) (gauge) > 1.5 * avg by (%s) (gauge)", by, by),
		fmt.Sprintf("count by (%s) (gauge%s == 0) > 1", by, g.matchers()),
		"avg_over_time(gauge[5m]) - stddev_over_time(gauge[5m])",
		fmt.Sprintf("max_over_time(sum by (%s) (rate(counter_total[1m]))[5m:30s])", by),
	)
}

// expression is one that parses. A few do not, such as those that match on a
// label and include it, too.
func (g generator) expression() string {
	for {
		e := g.vector(1 + g.IntN(4))
		if _, err := parser.ParseExpr(e); err == nil {
			return e
		}
	}
}

// generate returns n expressions.
func generate(rng *rand.Rand, n int) []string {
	exprs := make([]string, n)
	for i := range exprs {
		exprs[i] = generator{rng}.expression()
	}
	return exprs
}
