package ruler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/ruler/write"
)

// committedMetric is the series that tells how far a group has come: its value
// is the last slot, in seconds, up to which every rule of the group was
// evaluated and acknowledged. A member that nobody hands the group over to
// resumes after it.
const (
	committedMetric = "TOCSIN_COMMITTED_SLOT"
	groupLabel      = "rule_group"
)

// maxAlertSamples is how many samples an alerting rule writes in one slot of
// those that it could not write before.
const maxAlertSamples = 20_000

// task is one job of a batch.
type task struct {
	group *group
	job   schedule.Job
	// notify tells that the slot is the group's newest, so that what is sent
	// is about now.
	notify bool
	failed []int
	// work is what it cost, see group; incomplete if a rule failed.
	work       int
	incomplete bool
}

// batch is a set of tasks that share a slot and a query offset, so that one
// evaluation serves them all.
type batch struct {
	slot   time.Time
	offset time.Duration
	lane   int // see schedule.Lanes
	tasks  []*task
	begun  time.Time
}

// evaluation is one rule at one slot on its way through a batch.
type evaluation struct {
	task *task
	rule int
	err  error // of the evaluation
	// samples were produced, unit is what is to be written: also the markers of
	// series that ended, and what an alerting rule could not write before.
	samples []promql.Sample
	unit    write.Unit
	until   int64 // the newest timestamp in the unit of an alerting rule
	partial bool  // what is not among the samples may be missing
}

// run evaluates a stage of a batch and the stages after it: rules that read what
// others of their group record come after the acknowledged write of those.
//
// Once a stage is evaluated, the batch goes on in parts, by where they write, so
// that a slow backend keeps nobody waiting but those who write there.
func (r *Ruler) run(ctx context.Context, b *batch, stage int) {
	evaluations := b.stage(stage)
	if evaluations == nil {
		r.conclude(ctx, b)
		return
	}
	if !r.evaluateWhenFree(ctx, b, evaluations) {
		return
	}
	var parts sync.WaitGroup
	for _, p := range r.parts(b, evaluations) {
		parts.Go(func() {
			r.commit(ctx, p.evaluations)
			r.run(ctx, p.batch, stage+1)
		})
	}
	parts.Wait()
}

// evaluateWhenFree waits until less than the allowed number of batches are being
// evaluated; false if ctx ended before. Writing does not count: a backend that
// takes its time would take that of all batches. Neither do batches of tenants
// that are evaluated apart: they have places of their own.
func (r *Ruler) evaluateWhenFree(ctx context.Context, b *batch, evaluations []*evaluation) bool {
	places := r.batches
	if b.lane != 0 {
		places = r.batchesApart
	}
	b.enter(waiting)
	select {
	case places <- struct{}{}:
	default:
		r.metrics.batchesFull.Inc()
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	defer func() { <-places }()
	start := time.Now()
	if b.begun.IsZero() {
		b.begun = start
	}
	b.enter(evaluating)
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	r.evaluate(ctx, b, evaluations)
	took := time.Since(start)
	b.enter(writing)
	r.do(func() { r.observe(b, took) })
	return true
}

// conclude ends a batch: all its stages are written.
func (r *Ruler) conclude(ctx context.Context, b *batch) {
	r.mark(ctx, b)
	took := time.Since(b.begun)
	for _, t := range b.tasks {
		t.finish(took)
		r.metrics.iteration(t, took)
	}
	r.do(func() { r.finished(b) })
}

// part is what of a batch writes to the same backends.
type part struct {
	*batch
	evaluations []*evaluation
}

// parts divides a batch whose stage was evaluated.
func (r *Ruler) parts(b *batch, evaluations []*evaluation) []*part {
	units := make([]write.Unit, len(b.tasks))
	of := map[*task]int{}
	for i, t := range b.tasks {
		of[t], units[i] = i, write.Unit{r.marker(t)}
	}
	for _, e := range evaluations {
		i := of[e.task]
		units[i] = slices.Concat(units[i], e.unit)
	}
	var parts []*part
	where := r.deps.Writer.Where(units)
	byWhere := map[string]*part{}
	for i, t := range b.tasks {
		p, ok := byWhere[where[i]]
		if !ok {
			p = &part{batch: &batch{slot: b.slot, offset: b.offset, lane: b.lane, begun: b.begun}}
			byWhere[where[i]] = p
			parts = append(parts, p)
		}
		p.tasks = append(p.tasks, t)
	}
	for _, e := range evaluations {
		p := byWhere[where[of[e.task]]]
		p.evaluations = append(p.evaluations, e)
	}
	return parts
}

// stage lists the rules of one stage over all tasks; nil if no group has that
// many stages.
func (b *batch) stage(n int) []*evaluation {
	var evaluations []*evaluation
	more := false
	for _, t := range b.tasks {
		stages, _ := t.group.order()
		if n >= len(stages) {
			continue
		}
		more = true
		for _, i := range stages[n] {
			if slices.Contains(t.job.Rules, i) {
				evaluations = append(evaluations, &evaluation{task: t, rule: i})
			}
		}
	}
	if more && evaluations == nil {
		return []*evaluation{}
	}
	return evaluations
}

func (r *Ruler) evaluate(ctx context.Context, b *batch, evaluations []*evaluation) {
	evaluations = r.withWhatTheyRead(evaluations)
	if len(evaluations) == 0 {
		return
	}
	queries := make([]Query, len(evaluations))
	for i, e := range evaluations {
		queries[i] = e.task.group.query(e.rule)
		queries[i].Recorded = e.task.group.recent.samples()
	}
	at := b.slot.Add(-b.offset)
	start := time.Now()
	results := r.deps.Evaluator.Evaluate(ctx, at, queries)
	took := time.Since(start)
	for i, e := range evaluations {
		e.task.work += ruleWork + len(results[i].Vector)
		e.err = results[i].Err
		if e.err == nil {
			e.partial = results[i].Partial
			e.err = r.produce(ctx, e, results[i])
		}
		e.task.group.update(e.rule, func(s *ruleState) { s.warnings = results[i].Warnings })
		r.evaluated(e, results[i].Retryable, took/time.Duration(len(evaluations)))
	}
}

// evaluated notes how the evaluation of a rule ended.
func (r *Ruler) evaluated(e *evaluation, retryable bool, took time.Duration) {
	e.task.incomplete = e.task.incomplete || e.err != nil
	if e.err != nil && retryable {
		e.task.failed = append(e.task.failed, e.rule)
	}
	if e.isAlert() {
		e.unit, e.until = e.task.group.get(e.rule).unwritten.oldest(maxAlertSamples)
	}
	e.finish(took)
	r.metrics.evaluation(e, took)
	if e.isAlert() && e.task.notify {
		r.notify(e)
	}
}

// withWhatTheyRead returns the evaluations that have their slot's records to
// read. The others fail as what they read did, and are repeated after it: they
// would take what is not there yet for what does not exist.
func (r *Ruler) withWhatTheyRead(evaluations []*evaluation) []*evaluation {
	return slices.DeleteFunc(slices.Clone(evaluations), func(e *evaluation) bool {
		g := e.task.group
		_, reads := g.order()
		for _, i := range reads[e.rule] {
			if e.task.lacks(i) {
				e.err = fmt.Errorf("rule %q, which this one reads, is not evaluated for this slot yet", g.def.Rules[i].Name())
				r.evaluated(e, true, 0)
				return true
			}
		}
		return false
	})
}

// lacks tells whether what a rule records is not there for the slot. A rule
// that a repeat leaves out was done before; a live slot leaves out those that
// are behind.
func (t *task) lacks(rule int) bool {
	return slices.Contains(t.failed, rule) || !t.job.Repeat && !slices.Contains(t.job.Rules, rule)
}

func (e *evaluation) isAlert() bool { return e.task.group.def.Rules[e.rule].Alert != "" }

// finish notes the health of the rule. One that has something to write is
// healthy only when that is done.
func (e *evaluation) finish(took time.Duration) {
	e.task.group.update(e.rule, func(s *ruleState) {
		s.duration, s.evaluation = took, e.task.job.Slot
		if e.err != nil || len(e.unit) == 0 {
			s.err = e.err
		}
	})
}

// produce makes what the rule records out of the expression's result.
func (r *Ruler) produce(ctx context.Context, e *evaluation, answer Result) error {
	g := e.task.group
	p := producer{templates: r.deps.Templates, resend: r.cfg.ResendDelay, log: r.log}
	samples, markers, err := p.produce(ctx, g, e.rule, e.task.job.Slot, answer)
	if err != nil {
		return err
	}
	e.samples = samples
	unit := slices.Concat(write.Unit(samples), markers)
	if !e.isAlert() {
		e.unit = unit
		return nil
	}
	g.update(e.rule, func(s *ruleState) {
		s.setSeries(seriesOf(samples))
		s.setUnwritten(s.unwritten.add(unit, g.def.Interval.Milliseconds()))
	})
	return nil
}

// notify sends what is due, also after a failed evaluation: alerts that keep
// their state must not lapse in Alertmanager.
func (r *Ruler) notify(e *evaluation) {
	g := e.task.group
	def := g.def.Rules[e.rule]
	ar := alertRule(g.def, def, r.cfg.ResendDelay)
	due, next := alert.ToSend(ar, g.get(e.rule).alerts, e.task.job.Slot)
	if len(due) > 0 {
		g.update(e.rule, func(s *ruleState) { s.setAlerts(next) })
		r.deps.Notifier.Send(def.Expr.String(), due...)
	}
}

// commit writes what a stage produced and notes what was acknowledged.
func (r *Ruler) commit(ctx context.Context, evaluations []*evaluation) {
	var units []write.Unit
	var pending []*evaluation
	for _, e := range evaluations {
		if len(e.unit) > 0 {
			units = append(units, e.unit)
			pending = append(pending, e)
		}
	}
	for i, result := range r.write(ctx, units) {
		pending[i].written(result)
		switch {
		case result.Err == nil && result.Rejected == nil:
			pending[i].task.group.recent.add(units[i], time.Now(), r.cfg.ReadDelay)
		case result.Err != nil && pending[i].isAlert():
			r.boundUnwritten(pending[i])
		}
	}
}

// write hands units to the writer, if there are any, and bounds the time.
func (r *Ruler) write(ctx context.Context, units []write.Unit) []write.Result {
	if len(units) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.deps.Writer.Write(ctx, units)
}

// written notes what became of the rule's samples. Series of a recording rule
// whose write failed, or which a partial result does not show, count as possibly
// there: their end is marked when it comes.
func (e *evaluation) written(result write.Result) {
	series := seriesOf(e.samples)
	e.task.group.update(e.rule, func(s *ruleState) {
		s.err = errors.Join(e.err, result.Err, result.Rejected)
		switch {
		case e.isAlert() && result.Err == nil:
			rest, _ := s.unwritten.after(e.until)
			s.setUnwritten(rest)
		case e.isAlert(): // it is kept
		case result.Err == nil && !e.partial:
			s.setSeries(series)
		default:
			s.setSeries(merge(s.series, series))
		}
	})
	if result.Err != nil {
		e.task.failed = append(e.task.failed, e.rule)
	}
}

// boundUnwritten gives up what an alerting rule can't keep.
func (r *Ruler) boundUnwritten(e *evaluation) {
	var dropped int64
	oldest := e.task.job.Slot.Add(-r.cfg.Limits.Backfill).UnixMilli()
	e.task.group.update(e.rule, func(s *ruleState) {
		var rest unwritten
		rest, dropped = s.unwritten.bounded(oldest, r.cfg.MaxUnwritten)
		s.setUnwritten(rest)
	})
	if dropped > 0 {
		def := e.task.group.def
		r.metrics.alertSamplesDropped.Add(float64(dropped))
		r.log.Warn("samples of alerts given up that could not be written: older than backfill_limit, or beyond max_unwritten_alert_series",
			"group", def.Key, "rule", def.Rules[e.rule].Alert, "samples", dropped)
	}
}

// mark records for each group whose every rule came through that it is
// committed up to the slot. A marker that is lost only makes a successor
// repeat a slot.
func (r *Ruler) mark(ctx context.Context, b *batch) {
	var units []write.Unit
	for _, t := range b.tasks {
		if t.job.Repeat || len(t.job.Rules) < len(t.group.def.Rules) || t.recordingFailed() || t.group.unwritten() {
			continue
		}
		units = append(units, write.Unit{r.marker(t)})
	}
	for _, result := range r.write(ctx, units) {
		if err := errors.Join(result.Err, result.Rejected); err != nil {
			r.log.Warn("recording how far a group has come", "slot", b.slot, "err", err)
			return
		}
	}
}

// marker is the sample that tells that the group is committed up to the slot.
func (r *Ruler) marker(t *task) promql.Sample {
	lb := labels.NewBuilder(r.cfg.Home)
	t.group.def.Scope.Range(func(l labels.Label) { lb.Set(l.Name, l.Value) })
	lb.Set(labels.MetricName, committedMetric)
	lb.Set(groupLabel, t.group.def.Key)
	return promql.Sample{Metric: lb.Labels(), T: t.job.Slot.UnixMilli(), F: float64(t.job.Slot.Unix())}
}

func (t *task) recordingFailed() bool {
	return slices.ContainsFunc(t.failed, func(i int) bool { return t.group.def.Rules[i].Record != "" })
}

func (t *task) finish(took time.Duration) {
	if t.job.Repeat {
		return
	}
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	t.group.lastSlot, t.group.duration = t.job.Slot, took
	t.group.progress = Progress{}
	if !t.incomplete && len(t.job.Rules) == len(t.group.def.Rules) {
		t.group.worked(float64(t.work))
	}
}
