// Package scan reads the storage once for all queries of a batch.
//
// A batch says beforehand which queries it will run. Every set of matchers that
// more than one selector of the batch asks for is read once, for the widest
// time range that is asked for, decoded into memory and handed out to every
// query. A selector that only adds matchers to another one of the batch is
// answered from that one's series. What a batch reads once, what holds
// native histograms (their counter reset hints depend on where reading begins)
// and what does not fit into the bound on samples is read from the storage
// directly, as if there were no batch. Floats hands out a read as columns, for
// those who can do with all samples at once.
//
// From batch to batch only label sets are kept, to recognise reads of the same
// series (Shape); samples are read anew.
//
// The package never changes what is read: a shared selector yields the samples
// in the order that the storage has them in, between the same two instants.
// Series without a sample in between are left out. The storage may order series
// otherwise for a wider time range than for a narrow one, which shows, if at
// all, in the last digit of sums.
//
// A Scanner is safe for concurrent use, as is a Batch. A Batch holds memory
// and open readers of the storage until the last query that shares them is
// done.
package scan

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/backend/kept"
)

// Config bounds the memory of all batches together.
type Config struct {
	// MaxSamples is the number of decoded samples, of 16 bytes each, that are
	// held for sharing; the zero value asks for 10,000,000.
	MaxSamples int64
	// MaxSeries is the number of label sets that are kept from batch to batch,
	// each with 20 bytes besides its labels; the zero value asks for 2,000,000.
	MaxSeries int64
}

// Scanner makes batches over one storage.
type Scanner struct {
	queryable storage.Queryable
	budget    budget
	shapes    *kept.Cache[known]
	metrics   *metrics
}

// New returns a scanner.
func New(cfg Config, queryable storage.Queryable, reg prometheus.Registerer) *Scanner {
	if cfg.MaxSamples == 0 {
		cfg.MaxSamples = 10_000_000
	}
	if cfg.MaxSeries == 0 {
		cfg.MaxSeries = 2_000_000
	}
	s := &Scanner{queryable: queryable, budget: budget{limit: cfg.MaxSamples}, shapes: kept.New[known](cfg.MaxSeries)}
	s.metrics = newMetrics(reg, s)
	return s
}

// Query is a query that a batch will run.
type Query struct {
	// Expr is only read. A nil Expr shares nothing.
	Expr parser.Expr
	// Start and End are the first and the last evaluation time, Lookback the
	// distance in which instant selectors look for a sample, all in
	// milliseconds.
	Start, End, Lookback int64
	// Columns says that the query calls Floats, for which everything is read as
	// if it were shared.
	Columns bool
}

// Batch returns a batch of queries. It reads until ctx ends or the batch is
// closed.
func (s *Scanner) Batch(ctx context.Context, queries []Query) *Batch {
	ctx, cancel := context.WithCancel(ctx)
	b := &Batch{scanner: s, ctx: ctx, cancel: cancel}
	b.plan(queries)
	return b
}

// Batch is a storage.Queryable on which the queries of one batch run.
type Batch struct {
	scanner *Scanner
	ctx     context.Context
	cancel  context.CancelFunc
	// entries are the planned reads by the key of their matchers; users are
	// the entries that a query asks for, until it is done.
	entries map[string][]*entry
	users   [][]*entry
	reads   sync.WaitGroup
}

// Querier implements storage.Queryable; it may be called for the queries of
// the batch as often as they like.
func (b *Batch) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{batch: b, mint: mint, maxt: maxt}, nil
}

// Done says that a query, by its place in the batch, is closed. Done and Close
// are called by one goroutine.
func (b *Batch) Done(query int) {
	users := b.users[query]
	b.users[query] = nil
	for _, e := range users {
		e.release()
	}
}

// Close is Done for all queries; it ends the reads in progress and waits for
// them. Readers that are still open keep what they have.
func (b *Batch) Close() {
	b.cancel()
	for query := range b.users {
		b.Done(query)
	}
	b.reads.Wait()
}

// budget is the number of samples in memory.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reserves n samples if there is room for them.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

type metrics struct{ reads *prometheus.CounterVec }

// What became of a planned read.
const (
	resultShared     = "shared"
	resultHistograms = "histograms"
	resultLimit      = "limit"
	resultError      = "error"
)

func newMetrics(reg prometheus.Registerer, s *Scanner) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tocsin_backend_scan_samples",
		Help: "Samples held in memory for the queries that share them.",
	}, func() float64 { return float64(s.budget.used.Load()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tocsin_backend_scan_series",
		Help: "Label sets kept from batch to batch to recognise series.",
	}, s.shapes.Weight)
	f.NewCounterFunc(prometheus.CounterOpts{
		Name: "tocsin_backend_scan_forgotten_total",
		Help: "Lists of label sets that were forgotten for lack of room.",
	}, s.shapes.Forgotten)
	m := &metrics{reads: f.NewCounterVec(prometheus.CounterOpts{
		Name: "tocsin_backend_scan_reads_total",
		Help: "Reads that were to be shared or handed out as columns, by result.",
	}, []string{"result"})}
	for _, result := range []string{resultShared, resultHistograms, resultLimit, resultError} {
		m.reads.WithLabelValues(result)
	}
	return m
}
