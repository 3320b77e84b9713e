package evaluator

import (
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// maxWork bounds the fragments whose times are known. When there are more, all
// are forgotten.
const maxWork = 100_000

// work remembers how long backends took for fragments the last time, at whatever
// instant. It is for several goroutines.
type work struct {
	mu   sync.Mutex
	took map[workKey]time.Duration
}

type workKey struct {
	backend int
	expr    string
}

func (w *work) add(fragments []plan.Fragment, results []remote.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.took == nil || len(w.took) > maxWork {
		w.took = map[workKey]time.Duration{}
	}
	for i, r := range results {
		if r.Took > 0 { // It was run.
			w.took[workKey{fragments[i].Backend, fragments[i].Expr}] = r.Took
		}
	}
}

// order is that in which fragments of a batch are sent.
func (w *work) order(p *plan.Plan, fragments []int, queries []Query) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.Order(fragments, queries, func(f plan.Fragment) time.Duration { return w.took[workKey{f.Backend, f.Expr}] })
}
