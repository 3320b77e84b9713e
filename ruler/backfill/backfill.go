// Package backfill evaluates rule groups over a past range of time and writes
// what they record: the same samples, at the same timestamps, that members of
// a cluster would have written at their slots, staleness markers and the series
// of alerts included.
//
// Time is cut into chunks. Within a chunk, groups are evaluated in the order in
// which they read each other's results, side by side where they do not. A stage
// of a group is evaluated over the whole chunk at once, as range queries, and
// written before the next stage reads it. A group that reads its own past, and
// groups that read each other in a circle, are evaluated slot by slot instead.
// After every chunk the states of the groups are saved, so that a run that was
// ended goes on where it was; what is evaluated twice is written twice, with the
// same values.
//
// The package never sends notifications, and leaves out the markers of how far
// groups have come, which are for members that evaluate now. Job, Plan and the
// rest that decides are pure; Run starts goroutines and returns when all have
// ended.
package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/write"
)

// ChunkLength is the time that is evaluated at once. It is that of TSDB blocks,
// which begin at multiples of it.
const ChunkLength = 2 * time.Hour

// Steps are Count instants, Every apart.
type Steps struct {
	First time.Time
	Every time.Duration
	Count int
}

func (s Steps) at(n int) time.Time { return s.First.Add(time.Duration(n) * s.Every) }

// Evaluator answers each query at each step; the results are by query, then by
// step.
type Evaluator interface {
	EvaluateSteps(ctx context.Context, steps Steps, queries []ruler.Query) [][]ruler.Result
}

// Output is where samples go.
type Output interface {
	// Write answers with one result a unit, in order.
	Write(ctx context.Context, units []write.Unit) []write.Result
	// Evaluator answers queries that may read what was written before.
	Evaluator() Evaluator
	// Begin is called before the first group of a chunk, End when all groups are
	// through it: what was written in between is durable then. An output may be
	// without a chunk that was begun and not ended, or have part of it.
	Begin(chunk time.Time) error
	End(chunk time.Time) error
	// Finish is called when all chunks are ended, perhaps by an earlier run, and
	// perhaps again.
	Finish() error
}

// Job says what is evaluated.
type Job struct {
	// Groups have unique keys.
	Groups []rule.Group
	// Start and End bound the slots; both are included.
	Start, End time.Time
	// Where says in words what the output is. A state that was saved for
	// another output, other rules or another range is not continued.
	Where string
}

// Validate reports every fault.
func (j Job) Validate() error {
	var errs []error
	if len(j.Groups) == 0 {
		errs = append(errs, errors.New("there are no rules to evaluate"))
	}
	if j.End.Before(j.Start) {
		errs = append(errs, fmt.Errorf("the end %s is before the start %s", j.End.Format(time.RFC3339), j.Start.Format(time.RFC3339)))
	}
	return errors.Join(errs...)
}

// Config bounds a run.
type Config struct {
	// Concurrency is the number of groups that are evaluated at a time.
	Concurrency int
	// Attempts is how often a query or a write is tried that may succeed later.
	Attempts int
	// Patience is the time before the second attempt; it doubles each time.
	Patience time.Duration
}

// DefaultConfig returns what suits a backend that also serves others.
func DefaultConfig() Config {
	return Config{Concurrency: 4, Attempts: 6, Patience: time.Second}
}

// Deps are what a run works with.
type Deps struct {
	// Evaluator answers queries that read nothing of what is written.
	Evaluator Evaluator
	Output    Output
	Templates ruler.Templates
	// StateFile is where progress is saved.
	StateFile string
	// Progress is told of every step, by one goroutine at a time.
	Progress func(Progress)
	Logger   *slog.Logger
}

// Progress says how far a run is. The unit is one rule at one slot.
type Progress struct {
	Done, Total int64
	// Resumed is what an earlier run had done.
	Resumed int64
	// Samples is the number of samples that were written by this run.
	Samples int64
}

// Outcome sums up a run.
type Outcome struct {
	Progress
	// Failed is the number of evaluations that failed for the data, as they
	// would have in a cluster; First is the first of their errors.
	Failed int64
	First  error
	// Rejected is the number of rules and slots of which samples were refused
	// for good, FirstRejection the first of the reasons.
	Rejected       int64
	FirstRejection error
}

// ErrTooOld is why a run ends whose samples are too old for a backend.
var ErrTooOld = errors.New("the backend does not take samples of this age: give it an out-of-order window that reaches back to the start (--storage.out-of-order-window of `tocsin backend`, " +
	"storage.tsdb.out_of_order_time_window in Prometheus' configuration), or write blocks with --output-dir and put them into its data directory")

// tooOld tells whether a backend refuses samples for their age, as it would all
// that are older. The words are those of Prometheus' TSDB, which others repeat.
func tooOld(refusal error) bool {
	text := refusal.Error()
	return slices.ContainsFunc([]string{"out of order", "out of bounds", "too old"}, func(words string) bool { return strings.Contains(text, words) })
}
