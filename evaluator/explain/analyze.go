package explain

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// Cost is what a part of an evaluation took.
type Cost struct {
	Series int `json:"series"`
	// Samples is the number of samples read, as the backend says or as they
	// were fetched; 0 if unknown.
	Samples uint64 `json:"samples"`
	// Bytes is the size of the answer on the wire; 0 if unknown.
	Bytes int `json:"bytes,omitempty"`
	// Seconds is, of a fragment, how long the backend was at work on it, or,
	// if the backend did not say, the time of the request that carried it; of
	// raw series, the time until all were read.
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// BackendCost is what a backend was asked in all.
type BackendCost struct {
	Requests  int    `json:"requests"`
	Fragments int    `json:"fragments"`
	Samples   uint64 `json:"samples"`
	Bytes     int    `json:"bytes"`
	// Seconds is the time of the requests, in which fragments may have been run
	// side by side.
	Seconds float64 `json:"seconds"`
}

// Result is what a rule's expression evaluated to.
type Result struct {
	Series   int      `json:"series"`
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`
}

// Unplanned is work that the plan does not show.
type Unplanned struct {
	// Backend is empty for raw series, which may come from several.
	Backend string `json:"backend,omitempty"`
	Expr    string `json:"expr"`
	Cost    Cost   `json:"cost"`
}

// Evaluator plans and evaluates.
type Evaluator interface {
	Planner
	Evaluate(ctx context.Context, ts time.Time, queries []evaluator.Query) []evaluator.Result
}

var _ Evaluator = (*evaluator.Evaluator)(nil)

// Analyze explains rules, evaluates them and adds what each part costs. Rules
// that differ only in their tenant are evaluated one by one, so that the costs
// are those of each. What an earlier stage would record is read as the backends
// have it: nothing is written.
func Analyze(ctx context.Context, e Evaluator, slot time.Time, rules []Rule) *Report {
	r := Explain(e, slot, rules)
	m := &measurement{report: r}
	for _, members := range batches(rules) {
		m.enter(members)
		at := slot.Add(-rules[members[0]].Batch.Offset)
		asked := queries(rules, members)
		for n, result := range e.Evaluate(evaluator.Observed(ctx, m), at, asked) {
			r.Rules[members[n]].Result = resultOf(result)
		}
	}
	return r
}

// Failed tells whether any rule cannot be planned or evaluated.
func (r *Report) Failed() bool {
	for _, rule := range r.Rules {
		if rule.Error != "" || rule.Result != nil && rule.Result.Error != "" {
			return true
		}
	}
	return false
}

func resultOf(r evaluator.Result) *Result {
	shown := &Result{Series: len(r.Vector)}
	if r.Err != nil {
		shown.Error = r.Err.Error()
	}
	warnings, infos := r.Warnings.AsStrings("", 0, 0)
	shown.Warnings = append(warnings, infos...)
	return shown
}

// measurement writes the costs of one batch after the other into a report.
type measurement struct {
	mu        sync.Mutex
	report    *Report
	fragments map[fragmentKey]int
	raw       map[string][]*Node
}

// enter begins a batch.
func (m *measurement) enter(members []int) {
	m.fragments, m.raw = map[fragmentKey]int{}, map[string][]*Node{}
	for _, i := range members {
		m.index(m.report.Rules[i].Tree)
		for _, s := range m.report.Rules[i].Scalars {
			m.index(s.Tree)
		}
	}
}

func (m *measurement) index(n *Node) {
	switch {
	case n == nil:
		return
	case n.Fragment != nil:
		m.fragments[m.report.Fragments[*n.Fragment].key] = *n.Fragment
	case n.Kind == KindRaw:
		m.raw[n.matchers] = append(m.raw[n.matchers], n)
	}
	for _, c := range n.Children {
		m.index(c)
	}
}

// Answered implements evaluator.Observer.
func (m *measurement) Answered(fragments []plan.Fragment, results []remote.Result, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, f := range fragments {
		cost := costOf(results[i], took)
		m.add(f.Backend, cost)
		n, planned := m.fragments[fragmentKey{f.Backend, f.Expr, f.Window}]
		if !planned {
			m.report.Unplanned = append(m.report.Unplanned, Unplanned{Backend: m.report.Backends[f.Backend].Name, Expr: f.Expr, Cost: cost})
			continue
		}
		m.report.Fragments[n].Cost = &cost
	}
	total := m.report.Backends[fragments[0].Backend].Cost
	total.Requests++
	total.Seconds += took.Seconds()
}

func (m *measurement) add(backend int, c Cost) {
	b := &m.report.Backends[backend]
	if b.Cost == nil {
		b.Cost = &BackendCost{}
	}
	b.Cost.Fragments++
	b.Cost.Samples += c.Samples
	b.Cost.Bytes += c.Bytes
}

// costOf is that of a fragment whose request took some time.
func costOf(r remote.Result, took time.Duration) Cost {
	c := Cost{Series: seriesIn(r.Value), Samples: r.SamplesRead, Bytes: r.Bytes, Seconds: cmp.Or(r.Took, took).Seconds()}
	if r.Err != nil {
		c.Error = r.Err.Error()
	}
	return c
}

func seriesIn(v parser.Value) int {
	switch v := v.(type) {
	case promql.Vector:
		return len(v)
	case promql.Matrix:
		return len(v)
	case promql.Scalar:
		return 1
	}
	return 0
}

// Fetched implements evaluator.Observer. A selector that occurs several times
// in a batch is fetched each time; the costs go to its occurrences in turn.
func (m *measurement) Fetched(f evaluator.Fetch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cost := Cost{Series: f.Series, Samples: f.Samples, Seconds: f.Took.Seconds()}
	if f.Err != nil {
		cost.Error = f.Err.Error()
	}
	text := matchersText(f.Matchers)
	nodes := m.raw[text]
	if len(nodes) == 0 {
		m.report.Unplanned = append(m.report.Unplanned, Unplanned{Expr: text, Cost: cost})
		return
	}
	nodes[0].Cost, m.raw[text] = &cost, nodes[1:]
}
