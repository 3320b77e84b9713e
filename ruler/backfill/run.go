package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/write"
)

// run is a plan on its way.
type run struct {
	plan    Plan
	cfg     Config
	deps    Deps
	members [][]*member // by set

	mu      sync.Mutex
	outcome Outcome
}

// member is a group with its state.
type member struct {
	rule.Group
	*ruler.Replay
	// readsResults tells which rules read what the job records.
	readsResults []bool
}

// Run carries out a plan, from where the state file says that an earlier run
// has come, and removes the file in the end. An error means that the plan is not
// finished; the outcome is that of what was done.
func Run(ctx context.Context, p Plan, cfg Config, deps Deps) (Outcome, error) {
	r := &run{plan: p, cfg: cfg, deps: deps}
	for _, s := range p.Sets {
		var members []*member
		for _, g := range s.Groups {
			members = append(members, r.newMember(g))
		}
		r.members = append(r.members, members)
	}
	next, err := r.load()
	if err != nil {
		return r.outcome, err
	}
	r.outcome.Total, r.outcome.Done = p.Total(), r.outcome.Resumed
	r.progress(func(*Outcome) {})
	for _, chunk := range p.chunks() {
		if chunk.Before(next) {
			continue
		}
		if err := r.chunk(ctx, chunk); err != nil {
			return r.outcome, err
		}
	}
	if err := deps.Output.Finish(); err != nil {
		return r.outcome, err
	}
	return r.outcome, r.forget()
}

// newMember leaves out annotations, which nobody gets to see and whose templates
// may ask queries.
func (r *run) newMember(g rule.Group) *member {
	g.Rules = slices.Clone(g.Rules)
	for i := range g.Rules {
		g.Rules[i].Annotations = labels.EmptyLabels()
	}
	return &member{
		Group:        g,
		Replay:       ruler.NewReplay(g, r.deps.Templates, r.deps.Logger),
		readsResults: r.plan.readsResults(g),
	}
}

// progress changes the outcome and tells of it.
func (r *run) progress(change func(*Outcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.outcome)
	r.deps.Progress(r.outcome.Progress)
}

// chunk evaluates all sets over a chunk, each as soon as those are through that
// it reads.
func (r *run) chunk(ctx context.Context, chunk time.Time) error {
	if err := r.deps.Output.Begin(chunk); err != nil {
		return err
	}
	through := make([]chan struct{}, len(r.plan.Sets))
	for i := range through {
		through[i] = make(chan struct{})
	}
	permits := make(chan struct{}, r.cfg.Concurrency)
	sets, ctx := errgroup.WithContext(ctx)
	for i, s := range r.plan.Sets {
		sets.Go(func() error {
			for _, other := range s.After {
				if err := receive(ctx, through[other]); err != nil {
					return err
				}
			}
			select {
			case permits <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer func() { <-permits }()
			defer close(through[i])
			return r.set(ctx, i, chunk)
		})
	}
	if err := sets.Wait(); err != nil {
		return err
	}
	if err := r.deps.Output.End(chunk); err != nil {
		return err
	}
	return r.save(chunk.Add(ChunkLength))
}

func receive(ctx context.Context, from <-chan struct{}) error {
	select {
	case <-from:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// set evaluates a set over a chunk: at once or slot by slot.
func (r *run) set(ctx context.Context, i int, chunk time.Time) error {
	members := r.members[i]
	if r.plan.Sets[i].SlotBySlot == "" {
		return r.steps(ctx, members[0], r.plan.slots(members[0].Group, chunk))
	}
	type slot struct {
		member *member
		at     time.Time
	}
	var slots []slot
	for _, m := range members {
		steps := r.plan.slots(m.Group, chunk)
		for n := range steps.Count {
			slots = append(slots, slot{m, steps.at(n)})
		}
	}
	slices.SortStableFunc(slots, func(a, b slot) int { return a.at.Compare(b.at) })
	for _, s := range slots {
		if err := r.steps(ctx, s.member, Steps{First: s.at, Every: s.member.Interval, Count: 1}); err != nil {
			return err
		}
	}
	return nil
}

// steps evaluates a group at some slots, stage by stage.
func (r *run) steps(ctx context.Context, m *member, slots Steps) error {
	if slots.Count == 0 {
		return nil
	}
	for _, stage := range m.Stages() {
		results, err := r.evaluate(ctx, m, stage, slots)
		if err != nil {
			return fmt.Errorf("group %q, %s: %w", m.Key, slots, err)
		}
		units := r.produce(ctx, m, stage, slots, results)
		if err := r.write(ctx, units); err != nil {
			return fmt.Errorf("group %q, %s: %w", m.Key, slots, err)
		}
	}
	r.progress(func(o *Outcome) { o.Done += int64(slots.Count) * int64(len(m.Rules)) })
	return nil
}

// String names the slots in errors.
func (s Steps) String() string {
	if s.Count == 1 {
		return "slot " + s.First.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("slots %s to %s", s.First.UTC().Format(time.RFC3339), s.at(s.Count-1).UTC().Format(time.RFC3339))
}

// evaluate answers the queries of a stage; those that read results ask whoever
// has the results.
func (r *run) evaluate(ctx context.Context, m *member, stage []int, slots Steps) ([][]ruler.Result, error) {
	at := slots
	at.First = at.First.Add(-m.QueryOffset)
	results := make([][]ruler.Result, len(stage))
	for _, part := range []struct {
		readsResults bool
		evaluator    Evaluator
	}{{false, r.deps.Evaluator}, {true, r.deps.Output.Evaluator()}} {
		var indexes []int
		for n, i := range stage {
			if m.readsResults[i] == part.readsResults {
				indexes = append(indexes, n)
			}
		}
		err := r.insist(ctx, func() (err error) {
			indexes, err = ask(ctx, part.evaluator, m, stage, at, indexes, results)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// ask evaluates some rules of a stage. It returns those that have to be asked
// for again, with the reason.
func ask(ctx context.Context, e Evaluator, m *member, stage []int, at Steps, indexes []int, results [][]ruler.Result) (again []int, err error) {
	if len(indexes) == 0 {
		return nil, nil
	}
	queries := make([]ruler.Query, len(indexes))
	for k, n := range indexes {
		queries[k] = m.Query(stage[n])
	}
	for k, byStep := range e.EvaluateSteps(ctx, at, queries) {
		results[indexes[k]] = byStep
		if i := slices.IndexFunc(byStep, func(res ruler.Result) bool { return res.Err != nil && res.Retryable }); i >= 0 {
			again, err = append(again, indexes[k]), byStep[i].Err
		}
	}
	return again, err
}

// insist repeats what may succeed later.
func (r *run) insist(ctx context.Context, try func() error) error {
	patience := r.cfg.Patience
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || errors.Is(err, ErrTooOld) || attempt >= r.cfg.Attempts || ctx.Err() != nil {
			return err
		}
		r.deps.Logger.Warn("trying again", "in", patience, "err", err)
		select {
		case <-time.After(patience):
		case <-ctx.Done():
			return ctx.Err()
		}
		patience *= 2
	}
}

// produce takes the rules of a stage from slot to slot.
func (r *run) produce(ctx context.Context, m *member, stage []int, slots Steps, results [][]ruler.Result) []write.Unit {
	var units []write.Unit
	for n := range slots.Count {
		for k, i := range stage {
			var unit write.Unit
			err := results[k][n].Err
			if err == nil {
				unit, err = m.Produce(ctx, i, slots.at(n), results[k][n].Vector)
			}
			if err != nil {
				r.failed(fmt.Errorf("rule %q at %s: %w", m.Rules[i].Name(), slots.at(n).UTC().Format(time.RFC3339), err))
				continue
			}
			if len(unit) > 0 {
				units = append(units, unit)
			}
		}
	}
	return units
}

func (r *run) failed(err error) {
	r.deps.Logger.Debug("evaluation failed", "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Failed++
	if r.outcome.First == nil {
		r.outcome.First = err
	}
}

// write writes units until all are acknowledged, or one is too old.
func (r *run) write(ctx context.Context, units []write.Unit) error {
	if len(units) == 0 {
		return nil
	}
	return r.insist(ctx, func() error {
		var again []write.Unit
		var failure error
		for i, result := range r.deps.Output.Write(ctx, units) {
			// Prometheus answers some of what is too old as if it had failed.
			if err := errors.Join(result.Err, result.Rejected); err != nil && tooOld(err) {
				return fmt.Errorf("%w: %w", err, ErrTooOld)
			}
			if result.Err != nil {
				again, failure = append(again, units[i]), result.Err
				continue
			}
			r.written(units[i], result.Rejected)
		}
		units = again
		return failure
	})
}

func (r *run) written(unit write.Unit, rejected error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Samples += int64(len(unit))
	if rejected == nil {
		return
	}
	r.outcome.Rejected++
	if r.outcome.FirstRejection == nil {
		r.outcome.FirstRejection = rejected
	}
}
