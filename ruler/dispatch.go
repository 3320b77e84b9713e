package ruler

import (
	"context"
	"time"

	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// batchKey is what the tasks of a batch have in common.
type batchKey struct {
	slot   time.Time
	offset time.Duration
	repeat bool
}

// dispatch starts a batch for every slot that is due.
func (r *Ruler) dispatch(ctx context.Context) {
	now := r.now()
	jobs, missed := r.sched.Due(now)
	r.missed(missed)
	r.mu.Lock()
	r.counts.Lag = max(0, r.sched.Lag(now))
	r.mu.Unlock()
	for _, b := range r.assemble(jobs, now) {
		r.background(func() { r.run(ctx, b, 0) })
	}
}

// assemble puts jobs into batches, in the order of the jobs.
func (r *Ruler) assemble(jobs []schedule.Job, now time.Time) []*batch {
	var batches []*batch
	byKey := map[batchKey]*batch{}
	for _, j := range jobs {
		run := r.running[j.Key]
		run.jobs++
		k := batchKey{slot: j.Slot, offset: run.def.QueryOffset, repeat: j.Repeat}
		b, ok := byKey[k]
		if !ok {
			b = &batch{slot: k.slot, offset: k.offset}
			byKey[k] = b
			batches = append(batches, b)
		}
		b.tasks = append(b.tasks, &task{
			group:  run.group,
			job:    j,
			notify: !j.Repeat && j.Slot.Add(run.def.Interval).After(now),
		})
	}
	return batches
}

// finished tells the schedule how the jobs of a batch, or of a part of one, ended
// and the handoff core what is committed.
func (r *Ruler) finished(b *batch) {
	now := r.now()
	var states []handoff.GroupState
	for _, t := range b.tasks {
		run := r.running[t.job.Key]
		run.jobs--
		r.sched.Done(t.job, schedule.Outcome{Failed: t.failed}, now)
		r.count(t)
		states = append(states, r.snapshot(run))
	}
	r.events = append(r.events, handoff.Committed{States: states})
	for _, t := range b.tasks {
		run := r.running[t.job.Key]
		r.applyEdit(run)
		r.finishStop(run)
	}
}

func (r *Ruler) count(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.job.Repeat {
		r.counts.Repeated++
		return
	}
	r.counts.Evaluated++
}
