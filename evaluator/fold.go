package evaluator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// What is known about failed folds, and for how long.
const (
	foldPause     = 10 * time.Minute
	maxFoldPauses = 10_000
)

// pauses remembers which folds failed, so that a tenant over whose data they
// fail does not cost all others two evaluations at every slot.
type pauses struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (p *pauses) has(template string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.until[template])
}

func (p *pauses) add(template string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil || len(p.until) >= maxFoldPauses {
		p.until = map[string]time.Time{}
	}
	p.until[template] = time.Now().Add(foldPause)
}

// folded evaluates a batch whose queries differ in part only in their tenant.
// Folds are planned together with the rest, with which they may share. All
// outcomes are as if every query had been evaluated alone: members of a fold
// that fails are evaluated again.
func (e *Evaluator) folded(ctx context.Context, b batch) []outcome {
	if isObserved(ctx) {
		return e.run(ctx, b)
	}
	f := e.Folding(b.queries)
	e.metrics.folded(f)
	outcomes := make([]outcome, len(b.queries))
	together := e.run(ctx, b.joint(f, time.Duration(e.cfg.Timeout)/2))
	for n, i := range f.Rest {
		outcomes[i] = together[len(f.Folds)+n]
	}
	var failed []plan.Fold
	for i, fold := range f.Folds {
		if err := spread(fold, together[i], outcomes); err != nil {
			failed = append(failed, fold)
			e.metrics.apart(fold, err)
		}
	}
	e.apart(ctx, b, failed, outcomes)
	return outcomes
}

// joint are the folds, each with no more time than given, and the rest.
func (b batch) joint(f *plan.Folding, timeout time.Duration) batch {
	if len(f.Folds) == 0 {
		return b
	}
	rest := b.only(f.Rest)
	queries := make([]Query, len(f.Folds), len(f.Folds)+len(f.Rest))
	for i, fold := range f.Folds {
		queries[i] = fold.Query
		if q := &queries[i]; q.Limits.Time == 0 || q.Limits.Time > timeout {
			q.Limits.Time = timeout
		}
	}
	b.queries = append(queries, rest.queries...)
	b.recorded = append(make([][]promql.Sample, len(f.Folds)), rest.recorded...)
	return b
}

// apart evaluates the members of failed folds alone. A fold is not tried again
// soon if that helped; if it did not, it costs one query more.
func (e *Evaluator) apart(ctx context.Context, b batch, failed []plan.Fold, outcomes []outcome) {
	var members []int
	for _, f := range failed {
		for _, m := range f.Members {
			members = append(members, m.Query)
		}
	}
	if len(members) == 0 {
		return
	}
	for n, o := range e.run(ctx, b.only(members)) {
		outcomes[members[n]] = o
	}
	for _, f := range failed {
		if slices.ContainsFunc(f.Members, func(m plan.Member) bool { return outcomes[m.Query].err == nil }) {
			e.pauses.add(f.Template)
		}
	}
}

// spread gives every member of a fold its part of the outcome. An error, which
// may be one tenant's only, is for nobody, and so is a warning, unless it is
// that data of all is missing.
func spread(f plan.Fold, o outcome, outcomes []outcome) error {
	vector, ok := o.value.(promql.Vector)
	switch {
	case o.err != nil:
		return o.err
	case !ok:
		return &Error{Kind: KindBackend, Err: fmt.Errorf("the answer is a %T", o.value)}
	}
	for _, w := range o.warnings {
		var missing *remote.Missing
		if !errors.Is(w, annotations.PromQLInfo) && !errors.As(w, &missing) {
			return w
		}
	}
	parts, err := split(f, vector)
	if err != nil {
		return err
	}
	for _, m := range f.Members {
		outcomes[m.Query] = outcome{value: parts[m.Value], warnings: o.warnings, cost: o.cost.share(len(f.Members))}
	}
	return nil
}

// split cuts the answer of a fold by the values of its label.
func split(f plan.Fold, v promql.Vector) (map[string]promql.Vector, error) {
	parts := make(map[string]promql.Vector, len(f.Members))
	for _, m := range f.Members {
		parts[m.Value] = promql.Vector{}
	}
	lb := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range v {
		value := s.Metric.Get(f.Label)
		if _, known := parts[value]; !known {
			return nil, &Error{Kind: KindBackend, Err: fmt.Errorf("series %s is of no tenant that was asked for: its label %q differs", s.Metric, f.Label)}
		}
		if f.Added {
			lb.Reset(s.Metric)
			s.Metric = lb.Del(f.Label).Labels()
		}
		parts[value] = append(parts[value], s)
	}
	return parts, nil
}
