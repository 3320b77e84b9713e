// Package columns evaluates batches of instant queries column by column.
//
// Rules ask the same of the same series at every slot. So a sub-expression that
// occurs in several queries of a batch is evaluated once, and everything about
// it that depends on the series alone, as in which group a series falls, which
// series it is joined with, or what labels a result has, is worked out once and
// kept for as long as the selectors below it read the same series (package
// scan says so). What is left to do at a slot is to decode samples and to do
// arithmetic.
//
// Results are those of Prometheus' engine down to the bit, the order of series,
// the number of samples and the annotations included. Functions are Prometheus'
// own (promql.FunctionCalls); selectors, aggregations and binary operations are
// written after its engine. Whatever is not covered, or would be an error that
// Prometheus words, or a native histogram in a place where they are rare, is
// left to Prometheus' engine: Exec then answers ErrElsewhere. Subqueries, @,
// label_replace and ranges of steps are among that.
//
// An Evaluator is safe for concurrent use, as is a Batch. Neither starts a
// goroutine except to read the storage.
package columns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/backend/kept"
	"github.com/tocsin-rules/tocsin/backend/scan"
)

// Config bounds queries. The zero value of a field asks for its default.
type Config struct {
	// MaxSamples is the greatest number of samples that one query may hold in
	// memory at a time, as Prometheus counts them; default 50,000,000. What
	// queries share counts for each of them.
	MaxSamples int
	// Timeout ends a query that runs longer; default 2 minutes.
	Timeout time.Duration
	// MaxSeries is the number of series for which groups, joins and labels of
	// results are kept from batch to batch; default 5,000,000, at about 30
	// bytes.
	MaxSeries int64
	// MaxPlanBytes is the length of the expressions that are kept parsed;
	// default 32 MiB.
	MaxPlanBytes int64
	// Scan bounds what is read for batches.
	Scan scan.Config
}

func (c Config) withDefaults() Config {
	if c.MaxSamples == 0 {
		c.MaxSamples = 50_000_000
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = 5_000_000
	}
	if c.MaxPlanBytes == 0 {
		c.MaxPlanBytes = 32 << 20
	}
	return c
}

// Deps is what an Evaluator works with.
type Deps struct {
	Queryable storage.Queryable
	// Admit waits until one more query may run; nil lets all run.
	Admit    func(context.Context) (release func(), err error)
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Evaluator makes batches over one storage.
type Evaluator struct {
	cfg     Config
	deps    Deps
	scanner *scan.Scanner
	plans   *kept.Cache[*plan]
	derived *kept.Cache[*derived]
	metrics *metrics
}

// New returns an Evaluator.
func New(cfg Config, deps Deps) *Evaluator {
	cfg = cfg.withDefaults()
	e := &Evaluator{
		cfg:     cfg,
		deps:    deps,
		scanner: scan.New(cfg.Scan, deps.Queryable, deps.Registry),
		plans:   kept.New[*plan](cfg.MaxPlanBytes),
		derived: kept.New[*derived](cfg.MaxSeries),
	}
	if deps.Admit == nil {
		e.deps.Admit = func(ctx context.Context) (func(), error) { return func() {}, ctx.Err() }
	}
	e.metrics = newMetrics(deps.Registry, e)
	return e
}

// Query is a query of a batch. All times are in milliseconds.
type Query struct {
	Expr             string
	Start, End, Step int64
	// Lookback is how far instant selectors look for a sample.
	Lookback int64
}

// Batch plans what is shared by queries. It reads until ctx ends or the batch
// is closed.
func (e *Evaluator) Batch(ctx context.Context, queries []Query) *Batch {
	b := &Batch{evaluator: e, queries: queries, plans: make([]*plan, len(queries)), cells: map[cellKey]*cell{}}
	reads := make([]scan.Query, len(queries))
	for i, q := range queries {
		p := e.plan(q.Expr)
		reads[i] = scan.Query{Expr: p.expr, Start: q.Start, End: q.End, Lookback: q.Lookback}
		if p.root != nil && q.Step == 0 {
			b.plans[i], reads[i].Columns = p, true
			b.use(i, p.root)
		}
	}
	b.scan = e.scanner.Batch(ctx, reads)
	return b
}

// plan parses an expression, or remembers having done so.
func (e *Evaluator) plan(expr string) *plan {
	if p := e.plans.Get(expr); p != nil {
		return p
	}
	p := compile(expr)
	e.plans.Put(expr, p, int64(len(expr)))
	return p
}

// Batch is queries that are evaluated together.
type Batch struct {
	evaluator *Evaluator
	scan      *scan.Batch
	queries   []Query
	// plans are nil for queries that are for another engine.
	plans []*plan

	mu    sync.Mutex
	cells map[cellKey]*cell
}

// cellKey is what makes two sub-expressions of a batch have equal values.
type cellKey struct {
	node         string
	at, lookback int64
}

// cell is a sub-expression and its value, which is there until the last query
// that has it is done.
type cell struct {
	uses int

	mu   sync.Mutex // held by the query that evaluates it
	done bool
	value
	err error
}

func (b *Batch) key(query int, n *node) cellKey {
	return cellKey{n.key, b.queries[query].Start, b.queries[query].Lookback}
}

// use notes that a query has an expression.
func (b *Batch) use(query int, n *node) {
	k := b.key(query, n)
	c := b.cells[k]
	if c == nil {
		c = &cell{}
		b.cells[k] = c
	}
	c.uses++
	for _, child := range n.args {
		b.use(query, child)
	}
}

// drop takes back what use noted.
func (b *Batch) drop(query int, n *node) {
	k := b.key(query, n)
	if c := b.cells[k]; c != nil {
		if c.uses--; c.uses == 0 {
			delete(b.cells, k)
		}
	}
	for _, child := range n.args {
		b.drop(query, child)
	}
}

// Queryable is the storage as the queries read it that run elsewhere.
func (b *Batch) Queryable() storage.Queryable { return b.scan }

// Done says that a query's result is not needed any more. Done and Close are
// called by one goroutine.
func (b *Batch) Done(query int) {
	if p := b.plans[query]; p != nil {
		b.mu.Lock()
		b.drop(query, p.root)
		b.mu.Unlock()
	}
	b.plans[query] = nil
	b.scan.Done(query)
}

// Close ends the batch; no query of it may be running.
func (b *Batch) Close() { b.scan.Close() }

// ErrElsewhere says that a query is for another engine.
var ErrElsewhere = errors.New("not evaluated in columns")

// Exec evaluates a query, by its place in the batch; it may be called once. The
// second result is how many samples were read for it. An error other than
// ErrElsewhere is one of those that Prometheus' engine has: ErrQueryTimeout,
// ErrQueryCanceled or ErrTooManySamples.
func (b *Batch) Exec(ctx context.Context, query int) (*promql.Result, int64) {
	p := b.plans[query]
	if p == nil {
		b.evaluator.metrics.query(reasonUnsupported)
		return &promql.Result{Err: ErrElsewhere}, 0
	}
	ctx, cancel := context.WithTimeout(ctx, b.evaluator.cfg.Timeout)
	defer cancel()
	release, err := b.evaluator.deps.Admit(ctx)
	if err != nil {
		return &promql.Result{Err: translate(err)}, 0
	}
	defer release()
	r := &run{batch: b, ctx: ctx, query: query, plan: p}
	v, err := r.value(p.root)
	if err == nil && v.peak > b.evaluator.cfg.MaxSamples {
		err = promql.ErrTooManySamples("query execution")
	}
	var why elsewhere
	switch {
	case errors.As(err, &why):
		b.evaluator.metrics.query(why)
		return &promql.Result{Err: ErrElsewhere}, 0
	case err != nil:
		return &promql.Result{Err: translate(err)}, 0
	}
	b.evaluator.metrics.query("")
	return &promql.Result{Value: v.export(p.expr, b.queries[query].Start), Warnings: v.notes}, v.total
}

// translate gives the end of a context the type that it has in Prometheus'
// engine.
func translate(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout("query execution")
	case errors.Is(err, context.Canceled):
		return promql.ErrQueryCanceled("query execution")
	}
	return err
}

// run is a query that is being evaluated.
type run struct {
	batch *Batch
	ctx   context.Context
	query int
	plan  *plan
}

func (r *run) at() int64 { return r.batch.queries[r.query].Start }

// value returns that of a sub-expression, which whoever comes first evaluates.
// If the time of that query is up meanwhile, it is for the next one to do.
func (r *run) value(n *node) (value, error) {
	if err := r.ctx.Err(); err != nil {
		return value{}, err
	}
	b := r.batch
	b.mu.Lock()
	c := b.cells[b.key(r.query, n)]
	b.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done {
		v, err := r.eval(n)
		if r.ctx.Err() != nil {
			return value{}, r.ctx.Err()
		}
		c.value, c.err, c.done = v, err, true
	}
	if c.err == nil && c.author != "" && c.author != r.plan.text {
		// The annotations say where in the text of the query they belong, which
		// is of another query.
		return value{}, reasonAnnotations
	}
	return c.value, c.err
}

// eval evaluates a sub-expression for all queries that have it.
func (r *run) eval(n *node) (v value, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.batch.evaluator.deps.Logger.Error("evaluation in columns panicked", "expr", n.key, "err", p, "stack", string(debug.Stack()))
			v, err = value{}, reasonPanic
		}
	}()
	args := make([]value, len(n.args))
	for i, arg := range n.args {
		if args[i], err = r.value(arg); err != nil {
			return value{}, err
		}
	}
	if v, err = n.op.eval(&frame{run: r, node: n}, args); err != nil {
		return value{}, err
	}
	for _, arg := range args {
		v.total += arg.total
		v.notes.Merge(arg.notes)
	}
	if len(v.notes) > 0 {
		v.author = r.plan.text
	}
	if v.peak > r.batch.evaluator.cfg.MaxSamples {
		return value{}, promql.ErrTooManySamples("query execution")
	}
	return v, nil
}

// frame is what an operator knows of where it runs.
type frame struct {
	*run
	node *node
}

// checkEvery is how many series are worked on between two looks at whether the
// batch was cancelled.
const checkEvery = 1024

// checked returns the error of a batch that was cancelled, now and then.
func (f *frame) checked(i int) error {
	if i%checkEvery != 0 {
		return nil
	}
	return f.ctx.Err()
}

// derived is what was worked out for the shapes that an operator's operands
// had.
type derived struct {
	of   []*scan.Shape
	what any
}

// derive returns what make works out for some shapes, from memory if the node
// had the same ones the last time.
func derive[T any](f *frame, weight int, of []*scan.Shape, make func() T) T {
	cache := f.batch.evaluator.derived
	if d := cache.Get(f.node.key); d != nil && sameShapes(d.of, of) {
		return d.what.(T)
	}
	what := make()
	cache.Put(f.node.key, &derived{of, what}, int64(weight))
	return what
}

func sameShapes(a, b []*scan.Shape) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// operator computes a value from those of its operands, which it must not
// change.
type operator interface {
	eval(f *frame, args []value) (value, error)
}

// elsewhere is an error: the reason for which a query is left to Prometheus'
// engine.
type elsewhere string

// Error implements error.
func (e elsewhere) Error() string { return fmt.Sprintf("%s: %s", ErrElsewhere, string(e)) }

// plan is a query that was parsed. It never changes.
type plan struct {
	text string
	// expr is nil if the text does not parse, root if the query is for another
	// engine.
	expr parser.Expr
	root *node
}

// node is a sub-expression.
type node struct {
	// key equals that of another node if and only if they mean the same.
	key  string
	op   operator
	args []*node
}
