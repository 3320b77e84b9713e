package evaluator_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

var (
	seedFlag  = flag.Uint64("evaluator.seed", 0, "seed of generated expressions; 0 runs the default ones")
	countFlag = flag.Int("evaluator.count", 300, "number of generated expressions a seed and mode")
)

// generator writes random expressions that parse.
type generator struct {
	*rand.Rand
}

func (g generator) pick(options ...string) string { return options[g.IntN(len(options))] }

// vector is an instant vector of at most the given depth.
func (g generator) vector(depth int) string {
	if depth <= 0 {
		return g.selector()
	}
	switch g.IntN(12) {
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
	}
	return g.selector()
}

func (g generator) selector() string {
	metric := g.pick("gauge", "gauge", "gauge2", "counter_total", "only_west", "info_metric", "nothing", "special", "native", "latency_bucket")
	return metric + g.matchers() + g.pick("", "", "", "", " offset 3m", " @ 1599999700")
}

func (g generator) matchers() string {
	var ms []string
	if g.IntN(3) == 0 {
		ms = append(ms, "cluster"+g.pick(`="east"`, `="west"`, `=""`, `=~"east|west"`, `!="west"`, `=~".+"`, `!~"e.*"`, `="north"`))
	}
	if g.IntN(3) == 0 {
		ms = append(ms, "job"+g.pick(`="a"`, `=~"a|b"`, `!="b"`))
	}
	if len(ms) == 0 {
		return ""
	}
	return "{" + strings.Join(ms, ",") + "}"
}

func (g generator) labels() string {
	var ls []string
	for _, l := range []string{"cluster", "job", "instance", "le"} {
		if g.IntN(3) == 0 {
			ls = append(ls, l)
		}
	}
	return strings.Join(ls, ", ")
}

func (g generator) aggregation(depth int) string {
	op := g.pick("sum", "sum", "avg", "min", "max", "count", "group", "stddev", "quantile", "count_values")
	grouping := g.pick("", fmt.Sprintf(" by (%s)", g.labels()), fmt.Sprintf(" without (%s)", g.labels()))
	param := ""
	switch op {
	case "quantile":
		param = g.pick("0.5, ", "0.9, ", "scalar(only_west) / 10, ")
	case "stddev":
		// Large values close to each other lose digits with the order.
		return fmt.Sprintf("stddev%s (%s)", grouping, g.selector())
	case "count_values":
		// Of values that do not depend on the order of summation.
		param = g.pick(`"v", `, `"v", `, `"v", `, `"cluster", `, `"job", `)
		return fmt.Sprintf("%s%s (%s%s)", op, grouping, param, g.selector())
	}
	return fmt.Sprintf("%s%s (%s%s)", op, grouping, param, g.vector(depth-1))
}

func (g generator) binary(depth int) string {
	if g.IntN(4) == 0 {
		return fmt.Sprintf("(%s %s %s)", g.vector(depth-1), g.pick("+", "*", "/", ">", "< bool", "!="), g.scalar(depth-1))
	}
	op := g.pick("+", "-", "*", "/", ">", "== bool", "and", "or", "unless", "and", "unless")
	matching := g.pick("", "", fmt.Sprintf(" on (%s)", g.labels()), fmt.Sprintf(" ignoring (%s)", g.labels()), " on (cluster, job)", " on (cluster, job, instance)", " ignoring (version)")
	if strings.HasPrefix(matching, " on") || strings.HasPrefix(matching, " ign") {
		if op != "and" && op != "or" && op != "unless" {
			matching += g.pick("", " group_left ()", " group_right ()", " group_left (version)")
		}
	}
	return fmt.Sprintf("(%s %s%s %s)", g.vector(depth-1), op, matching, g.vector(depth-1))
}

func (g generator) scalar(depth int) string {
	return g.pick("2", "0", "50", "-1", "time() / 1e9", fmt.Sprintf("scalar(%s)", g.vector(depth)))
}

func (g generator) function(depth int) string {
	switch g.IntN(4) {
	case 0:
		return fmt.Sprintf("histogram_quantile(0.9, %s)", g.vector(depth-1))
	case 1:
		return fmt.Sprintf("clamp_max(%s, %s)", g.vector(depth-1), g.scalar(depth-1))
	case 2:
		return fmt.Sprintf("-(%s)", g.vector(depth-1))
	}
	return fmt.Sprintf("%s(%s)", g.pick("abs", "ceil", "timestamp", "sqrt", "round", "histogram_count", "sgn"), g.vector(depth-1))
}

func (g generator) overTime(depth int) string {
	fn := g.pick("rate", "increase", "avg_over_time", "max_over_time", "sum_over_time", "count_over_time", "last_over_time", "delta", "changes", "present_over_time")
	if g.IntN(2) == 0 {
		return fmt.Sprintf("%s(%s%s[%s]%s)", fn, g.pick("gauge", "counter_total", "special", "native", "only_west"), g.matchers(), g.pick("2m", "5m"), g.pick("", " offset 1m"))
	}
	return fmt.Sprintf("%s((%s)[%s]%s)", fn, g.vector(depth-1), g.pick("3m:1m", "4m:30s", "2m:"), g.pick("", "", " offset 1m", " @ 1599999800"))
}

func (g generator) labelFunction(depth int) string {
	return g.pick(
		fmt.Sprintf(`label_replace(%s, "%s", "x-$1", "%s", "(.+)")`, g.vector(depth-1), g.pick("region", "job", "cluster"), g.pick("cluster", "job", "instance")),
		fmt.Sprintf(`label_join(%s, "%s", "-", "%s", "instance")`, g.vector(depth-1), g.pick("id", "cluster"), g.pick("cluster", "job")),
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
		"vector(1)",
	)
}

// generate returns n expressions, without the few that do not parse, such as
// those that match on a label and include it, too.
func generate(rng *rand.Rand, n int) []string {
	g := generator{rng}
	var exprs []string
	for len(exprs) < n {
		e := g.vector(1 + g.IntN(4))
		if _, err := parser.ParseExpr(e); err == nil {
			exprs = append(exprs, e)
		}
	}
	return exprs
}

// TestGeneratedExpressions compares random expressions over random data with
// one Prometheus. To repeat a failure: go test ./evaluator -run
// TestGeneratedExpressions -evaluator.seed=SEED.
func TestGeneratedExpressions(t *testing.T) {
	t.Parallel()
	seeds := []uint64{1}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		for _, m := range modes {
			t.Run(fmt.Sprintf("seed %d %s", seed, m), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(seed, 0))
				f := newFleet(t, m, sampleData(rng))
				differences := f.compare(t, generate(rng, *countFlag), slot)
				require.Empty(t, strings.Join(differences, "\n"), "seed %d", seed)
			})
		}
	}
}
