package pushdown

import (
	"context"
	"os"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
	"google.golang.org/grpc/status"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/tocsin-rules/tocsin/backend/scan"

	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// maxAnnotations bounds the warnings, and the infos, of one fragment.
const maxAnnotations = 10

// key is what makes two fragments of a batch equal.
type key struct {
	expr             string
	start, end, step int64
}

// job is one query and the fragments that it answers.
type job struct {
	key
	fragments []uint32
	place int
}

// outcome is what became of a job.
type outcome struct {
	job      *job
	value    value
	err      *pushdownv1.Error
	warnings []string
	samples  uint64
	// release gives the memory of value back to the engine.
	release func()
}

// jobsOf returns the distinct queries of a batch in the order in which they
// first occur.
func jobsOf(fragments []*pushdownv1.Fragment) []*job {
	jobs := make([]*job, 0, len(fragments))
	seen := make(map[key]*job, len(fragments))
	for i, f := range fragments {
		k := key{f.GetExpr(), f.GetStartMs(), f.GetEndMs(), f.GetStepMs()}
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

// runBatch answers one batch. An error ends the stream; faults of single
// fragments are part of the answer.
func (s *Server) runBatch(ctx context.Context, batch *pushdownv1.BatchRequest, enc *encoder) error {
	started := time.Now()
	jobs := jobsOf(batch.GetFragments())
	shared := s.share(ctx, batch, jobs)
	defer shared.Close()
	s.metrics.fragments.Add(float64(len(batch.GetFragments())))
	enc.begin(batch.GetBatchId())
	if err := s.runJobs(ctx, s.executor(batch, shared), jobs, enc, shared); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.metrics.duration.Observe(time.Since(started).Seconds())
	return enc.finish()
}

func (s *Server) share(ctx context.Context, batch *pushdownv1.BatchRequest, jobs []*job) *scan.Batch {
	qs := make([]scan.Query, len(jobs))
	lb := batch.GetLookbackMs()
	if lb == 0 {
		lb = 300000
	}
	for i, j := range jobs {
		e, err := parser.ParseExpr(j.expr)
		if err == nil && os.Getenv("NOSHARE") == "" {
			qs[i] = scan.Query{Expr: e, Start: j.start, End: j.end, Lookback: lb}
		}
	}
	return s.scanner.Batch(ctx, qs)
}

// executor returns what runs the jobs of a batch: the engine, or a refusal if
// the batch as a whole breaks a limit.
func (s *Server) executor(batch *pushdownv1.BatchRequest, shared *scan.Batch) func(context.Context, *job) outcome {
	refuse := func(err *pushdownv1.Error) func(context.Context, *job) outcome {
		return func(_ context.Context, j *job) outcome { return failure(j, err) }
	}
	if n := len(batch.GetFragments()); n > s.cfg.MaxFragments {
		return refuse(limitError("batch has %d fragments, the limit of fragments per batch is %d", n, s.cfg.MaxFragments))
	}
	lookback := batch.GetLookbackMs()
	if lookback < 0 {
		return refuse(userError("lookback of %d ms is negative", lookback))
	}
	opts := promql.NewPrometheusQueryOpts(false, time.Duration(lookback)*time.Millisecond)
	return func(ctx context.Context, j *job) outcome { return s.execute(ctx, shared.Queryable(), opts, j) }
}

// runJobs runs jobs on a bounded number of workers and encodes what they
// return. Workers wait for the encoder, so no more results are held in memory
// than there are workers.
func (s *Server) runJobs(ctx context.Context, execute func(context.Context, *job) outcome, jobs []*job, enc *encoder, shared *scan.Batch) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		outcomes = make(chan outcome)
		next     atomic.Int64
		workers  sync.WaitGroup
	)
	for range min(s.cfg.Concurrency, len(jobs)) {
		workers.Go(func() {
			for i := next.Add(1); i <= int64(len(jobs)) && ctx.Err() == nil; i = next.Add(1) {
				outcomes <- execute(ctx, jobs[i-1])
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
		s.metrics.outcome(&o)
		o.release()
		shared.Done(o.job.place)
	}
	return err
}

// execute runs one query.
func (s *Server) execute(ctx context.Context, q0 storage.Queryable, opts promql.QueryOpts, j *job) outcome {
	if err := s.check(j.key); err != nil {
		return failure(j, err)
	}
	q, err := s.newQuery(ctx, q0, opts, j.key)
	if err != nil {
		return failure(j, errorOf(err))
	}
	res := q.Exec(ctx)
	o := outcome{job: j, release: q.Close}
	if res.Err != nil {
		o.err = errorOf(res.Err)
		return o
	}
	if o.value, err = valueOf(res.Value); err != nil {
		o.err = userError("%s", err)
		return o
	}
	warnings, infos := res.Warnings.AsStrings(j.expr, maxAnnotations, maxAnnotations)
	o.warnings = append(warnings, infos...)
	o.samples = uint64(q.Stats().Samples.TotalSamples)
	return o
}

func (s *Server) newQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, k key) (promql.Query, error) {
	start, end := time.UnixMilli(k.start), time.UnixMilli(k.end)
	if k.step == 0 {
		return s.deps.Engine.NewInstantQuery(ctx, q, opts, k.expr, start)
	}
	return s.deps.Engine.NewRangeQuery(ctx, q, opts, k.expr, start, end, time.Duration(k.step)*time.Millisecond)
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
