package ruler

import (
	"context"
	"time"

	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// batchKey is what the tasks of a batch have in common.
type batchKey struct {
	slot   time.Time
	offset time.Duration
	repeat bool
	lane   int
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
		k := batchKey{slot: j.Slot, offset: run.def.QueryOffset, repeat: j.Repeat, lane: r.lanes.Of(tenant(run.def))}
		b, ok := byKey[k]
		if !ok {
			b = &batch{slot: k.slot, offset: k.offset, lane: k.lane}
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

// tenant is who a group delays: its scope, or the group itself if it has none.
func tenant(def rule.Group) string {
	if def.Scope.IsEmpty() {
		return def.Key
	}
	return def.Scope.String()
}

// observe lets a tenant whose rules are slow delay only itself from now on.
func (r *Ruler) observe(b *batch, took time.Duration) {
	e := schedule.Evaluated{Slot: b.slot, Took: took}
	for _, t := range b.tasks {
		def := t.group.def
		e.Tenants = append(e.Tenants, tenant(def))
		if e.Shortest == 0 || def.Interval < e.Shortest {
			e.Shortest = def.Interval
		}
		e.Longest = max(e.Longest, def.Interval)
	}
	if slow := r.lanes.Observe(e); slow != "" {
		r.log.Warn("rules are slow, they are evaluated apart from those of other tenants", "tenant", slow, "took", took)
	}
	r.metrics.tenantsApart.Set(float64(r.lanes.Apart()))
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
