package evaluator

import (
	"context"
	"time"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// answers are the results of a plan's fragments, in their order. Each is there
// once its channel is closed.
type answers struct {
	results []remote.Result
	done    []chan struct{}
}

// wait returns when all of the given fragments are answered.
func (a answers) wait(fragments []int) {
	for _, f := range fragments {
		<-a.done[f]
	}
}

// ask sends every backend its fragments, those of the tenant first that asks for
// the least, and those with scalars when the values of these are known. It does
// not wait for the answers, which end with ctx at the latest.
func (m *merge) ask(ctx context.Context) {
	m.answers = answers{results: make([]remote.Result, len(m.plan.Fragments)), done: make([]chan struct{}, len(m.plan.Fragments))}
	requests := m.plan.Requests()
	finished := make([]chan struct{}, len(requests))
	for n, fragments := range requests {
		finished[n] = make(chan struct{})
		for _, i := range fragments {
			m.answers.done[i] = finished[n]
		}
	}
	for n, fragments := range requests {
		go func() {
			defer close(finished[n])
			m.request(ctx, m.evaluator.work.order(m.plan, fragments, m.batch.queries))
		}()
	}
}

// request gets the answers to some fragments of one backend.
func (m *merge) request(ctx context.Context, indexes []int) {
	var planned, sent []plan.Fragment
	var of []int
	for _, i := range indexes {
		f, err := m.withScalars(m.plan.Fragments[i])
		if err != nil {
			m.answers.results[i].Err = err
			continue
		}
		planned, sent, of = append(planned, m.plan.Fragments[i]), append(sent, f), append(of, i)
	}
	if len(sent) == 0 {
		return
	}
	e, b := m.evaluator, sent[0].Backend
	began := time.Now()
	results := e.clients[b].Execute(ctx, sent, remote.Options{Lookback: m.batch.lookback})
	took := time.Since(began)
	e.work.add(planned, results)
	e.metrics.answered(e.backends[b].Name, results, took)
	observeAnswer(ctx, planned, results, took)
	for n, i := range of {
		m.answers.results[i] = e.checked(sent[n], results[n])
	}
}
