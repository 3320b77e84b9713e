package pushdown

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/backend/columns"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// maxAnnotations bounds the warnings, and the infos, of one fragment.
const maxAnnotations = 10

// key is what makes two fragments of a batch equal.
type key struct {
	expr             string
	start, end, step int64
	limits           limits
}

// job is one query and the fragments that it answers.
type job struct {
	key
	// place is the job's among the jobs of its batch.
	place     int
	fragments []uint32
	// err is what is wrong with it before it is run.
	err *pushdownv1.Error
}

// outcome is what became of a job.
type outcome struct {
	job      *job
	value    value
	err      *pushdownv1.Error
	warnings []string
	samples  uint64
	took     time.Duration
	// release gives the memory of value back to the engine.
	release func()
}

// jobsOf returns the distinct queries of a batch in the order in which they
// first occur.
func jobsOf(fragments []*pushdownv1.Fragment) []*job {
	jobs := make([]*job, 0, len(fragments))
	seen := make(map[key]*job, len(fragments))
	for i, f := range fragments {
		k := key{f.GetExpr(), f.GetStartMs(), f.GetEndMs(), f.GetStepMs(), limitsOf(f)}
		j, ok := seen[k]
		if !ok {
			j = &job{key: k, place: len(jobs)}
			seen[k] = j
			jobs = append(jobs, j)
		}
		j.fragments = append(j.fragments, uint32(i))
	}
	return jobs
}

// execution is one batch in progress.
type execution struct {
	server *Server
	jobs   []*job
	opts   promql.QueryOpts
	// columns is what the jobs share.
	columns *columns.Batch
}

// runBatch answers one batch. An error ends the stream; faults of single
// fragments are part of the answer.
func (s *Server) runBatch(ctx context.Context, batch *pushdownv1.BatchRequest, enc *encoder) error {
	started := time.Now()
	s.metrics.fragments.Add(float64(len(batch.GetFragments())))
	enc.begin(batch.GetBatchId())
	x := s.newExecution(ctx, batch)
	defer x.columns.Close()
	if err := x.run(ctx, enc); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.metrics.duration.Observe(time.Since(started).Seconds())
	return enc.finish()
}

// newExecution checks a batch and plans what its jobs read.
func (s *Server) newExecution(ctx context.Context, batch *pushdownv1.BatchRequest) *execution {
	jobs := jobsOf(batch.GetFragments())
	refusal := s.checkBatch(batch)
	lookback := time.Duration(batch.GetLookbackMs()) * time.Millisecond
	queries := make([]columns.Query, len(jobs))
	for i, j := range jobs {
		if j.err = refusal; j.err == nil {
			j.err = s.check(j.key)
		}
		if j.err == nil {
			queries[i] = columns.Query{
				Expr: j.expr, Start: j.start, End: j.end, Step: j.step,
				Lookback: cmp.Or(lookback, s.cfg.Lookback).Milliseconds(),
			}
		}
	}
	return &execution{
		server: s, jobs: jobs,
		opts:    promql.NewPrometheusQueryOpts(false, lookback),
		columns: s.columns.Batch(ctx, queries),
	}
}

// run runs jobs on a bounded number of workers and encodes what they return.
// Workers wait for the encoder, which waits for the client to read, so no more
// results are held in memory than there are workers, and the one that is encoded.
func (x *execution) run(ctx context.Context, enc *encoder) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		outcomes = make(chan outcome)
		next     atomic.Int64
		workers  sync.WaitGroup
	)
	for range min(x.server.cfg.Concurrency, len(x.jobs)) {
		workers.Go(func() {
			for i := next.Add(1); i <= int64(len(x.jobs)) && ctx.Err() == nil; i = next.Add(1) {
				outcomes <- x.execute(ctx, x.jobs[i-1])
			}
		})
	}
	go func() {
		workers.Wait()
		close(outcomes)
	}()
	var err error
	for o := range outcomes {
		if err == nil {
			if err = enc.add(&o); err != nil {
				cancel()
			}
		}
		x.server.metrics.outcome(&o)
		o.release()
		x.columns.Done(o.job.place)
	}
	return err
}

// execute runs one query, in columns if that is possible.
func (x *execution) execute(ctx context.Context, j *job) outcome {
	if j.err != nil {
		return failure(j, j.err)
	}
	ctx, cancel := j.limits.bounded(ctx)
	defer cancel()
	started := time.Now()
	res, samples := x.columns.Exec(ctx, j.place)
	if !errors.Is(res.Err, columns.ErrElsewhere) {
		o := outcome{job: j, release: func() {}}
		o.take(ctx, res, samples)
		o.took = time.Since(started)
		return o
	}
	q, err := x.newQuery(ctx, j.key)
	if err != nil {
		return failure(j, errorOf(err))
	}
	res = q.Exec(ctx)
	if res.Err == nil {
		samples = q.Stats().Samples.TotalSamples
	}
	o := outcome{job: j, release: q.Close}
	o.take(ctx, res, samples)
	o.took = time.Since(started)
	return o
}

// take fills in the result of a query that has read some samples.
func (o *outcome) take(ctx context.Context, res *promql.Result, samples int64) {
	if res.Err != nil {
		o.err = o.job.limits.failed(ctx, res.Err)
		return
	}
	o.samples = uint64(samples)
	if o.err = o.job.limits.check(res.Value, o.samples); o.err != nil {
		return
	}
	var err error
	if o.value, err = valueOf(res.Value); err != nil {
		o.err = userError("%s", err)
		return
	}
	warnings, infos := res.Warnings.AsStrings(o.job.expr, maxAnnotations, maxAnnotations)
	o.warnings = append(warnings, infos...)
}

func (x *execution) newQuery(ctx context.Context, k key) (promql.Query, error) {
	start, end := time.UnixMilli(k.start), time.UnixMilli(k.end)
	if k.step == 0 {
		return x.server.deps.Engine.NewInstantQuery(ctx, x.columns.Queryable(), x.opts, k.expr, start)
	}
	return x.server.deps.Engine.NewRangeQuery(ctx, x.columns.Queryable(), x.opts, k.expr, start, end, time.Duration(k.step)*time.Millisecond)
}

// checkBatch finds what is wrong with a batch as a whole.
func (s *Server) checkBatch(batch *pushdownv1.BatchRequest) *pushdownv1.Error {
	if n := len(batch.GetFragments()); n > s.cfg.MaxFragments {
		return limitError("batch has %d fragments, the limit of fragments per batch is %d", n, s.cfg.MaxFragments)
	}
	if lookback := batch.GetLookbackMs(); lookback < 0 {
		return userError("lookback of %d ms is negative", lookback)
	}
	return nil
}

// check finds what is wrong with a fragment before it is run.
func (s *Server) check(k key) *pushdownv1.Error {
	switch {
	case len(k.expr) > s.cfg.MaxExprBytes:
		return limitError("expression has %d bytes, the limit is %d", len(k.expr), s.cfg.MaxExprBytes)
	case k.step < 0:
		return userError("step of %d ms is negative", k.step)
	case k.end < k.start:
		return userError("end %d is before start %d", k.end, k.start)
	case k.step == 0 && k.end != k.start:
		return userError("fragment without a step must end where it starts, at %d, not at %d", k.start, k.end)
	case k.step > 0 && (k.end-k.start)/k.step >= s.cfg.MaxSteps:
		return limitError("fragment has %d steps, the limit is %d", (k.end-k.start)/k.step+1, s.cfg.MaxSteps)
	}
	return nil
}

func failure(j *job, err *pushdownv1.Error) outcome {
	return outcome{job: j, err: err, release: func() {}}
}

func userError(format string, args ...any) *pushdownv1.Error {
	return &pushdownv1.Error{Kind: pushdownv1.Error_KIND_USER, Message: fmt.Sprintf(format, args...)}
}

func limitError(format string, args ...any) *pushdownv1.Error {
	return &pushdownv1.Error{Kind: pushdownv1.Error_KIND_LIMIT, Message: fmt.Sprintf(format, args...)}
}
