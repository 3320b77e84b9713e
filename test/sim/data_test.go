package sim_test

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

const (
	interval = 15 * time.Second
	// wave is the period of the alerts' conditions, which hold for half of it.
	wave     = 4 * time.Minute
	backends = 2
)

// groupsOf are the rules of a cluster after some edits. Edits change rules
// whose name says so and leave the others alone.
func groupsOf(n, edits int) []rule.Group {
	list := make([]rule.Group, n)
	for i := range list {
		key := fmt.Sprintf("t%d/pack/g%02d", i/20, i)
		named := func(kind string) string { return fmt.Sprintf("%s_%02d", kind, i) }
		list[i] = rule.Group{
			Key: key, Name: named("g"), Interval: interval,
			Scope: labels.FromStrings("backend", backendOf(i)),
			Rules: []rule.Rule{
				{Record: named("walk"), Expr: expr(named("walk"))},
				{Record: named("chained"), Expr: expr(named("walk") + " * 2")},
				{Record: named("churn"), Expr: expr(named("churn"))},
				{Alert: named("Wave"), Expr: expr(named("wave")), For: 2 * interval, KeepFiringFor: interval},
				{Record: named("edited"), Expr: expr(named("walk")), Labels: labels.FromStrings("edit", fmt.Sprint(edits))},
			},
		}
		if edits > 0 && i%3 == edits%3 {
			list[i].Rules = append([]rule.Rule{{Alert: named("Edited"), Expr: expr(named("wave"))}}, list[i].Rules...)
		}
	}
	return list
}

func backendOf(group int) string { return fmt.Sprintf("b%d", group%backends) }

func expr(text string) parser.Expr {
	e, err := parser.ParseExpr(text)
	if err != nil {
		panic(err)
	}
	return e
}

// answer is what the raw series say: it follows from expression and time.
func answer(text string, at time.Time) promql.Vector {
	n := at.Unix() / int64(interval.Seconds())
	seed := number(text)
	sample := func(v float64, pairs ...string) promql.Sample {
		return promql.Sample{Metric: labels.FromStrings(pairs...), T: at.UnixMilli(), F: v}
	}
	switch {
	case holds(text, at):
		return promql.Vector{sample(1, "unit", "a")}
	case kind(text) == "wave":
		return nil
	case kind(text) == "churn":
		// Each of the series lives for some slots.
		return promql.Vector{sample(float64(n%7), "id", fmt.Sprint((n+seed)/5%100))}
	default:
		return promql.Vector{sample(float64((n*3+seed)%101), "id", "a"), sample(float64((n*5+seed)%89), "id", "b")}
	}
}

func kind(text string) string {
	for i, r := range text {
		if r == '_' {
			return text[:i]
		}
	}
	return text
}

// holds tells whether the condition of an alert holds.
func holds(text string, at time.Time) bool {
	if kind(text) != "wave" {
		return false
	}
	phase := number(text) % int64(wave/interval)
	return (at.Unix()/int64(interval.Seconds())+phase)%int64(wave/interval) >= int64(wave/interval)/2
}

func number(text string) int64 {
	h := fnv.New32a()
	h.Write([]byte(text))
	return int64(h.Sum32() % 1000)
}
