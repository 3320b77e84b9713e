// Package ruler is the evaluation loop of one member: of the rule groups that
// it owns, the slots that are due are evaluated in batches, recorded samples
// are written, alerts are stepped and sent, and what has been committed is
// left with the group's successor.
//
// The deciding is done elsewhere, by pure cores that one goroutine (Run) owns:
// ruler/schedule says what is due, sharding/handoff who runs a group. This
// package performs what they ask for, through the interfaces below, which
// hide PromQL engines, Alertmanagers and the network. Batches run in
// goroutines of their own, bounded in number.
package ruler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// Query is one expression of a batch.
type Query struct {
	// Name says in errors who asks: the group and the rule.
	Name string
	Expr parser.Expr
	// Scope are the labels that every selector of Expr is restricted to.
	Scope labels.Labels
	// Partial permits a result without the data of backends that are away.
	Partial bool
	// Recorded are samples that the group has written, staleness markers
	// included, and that the backends may not show yet.
	Recorded []promql.Sample
}

// Result is what became of a Query.
type Result struct {
	Vector promql.Vector
	// Warnings are about a Vector that is there. Partial tells that it lacks
	// data.
	Warnings []string
	Partial  bool
	Err      error
	// Retryable tells that the same query may succeed later: a backend was
	// away, not the expression at fault.
	Retryable bool
}

// Evaluator evaluates a batch of expressions at one timestamp; it answers with
// one result a query, in order.
type Evaluator interface {
	Evaluate(ctx context.Context, ts time.Time, queries []Query) []Result
}

// Writer writes the samples of rules to the backends that they belong to; it
// answers with one result a unit, in order.
type Writer interface {
	Write(ctx context.Context, units []write.Unit) []write.Result
	// Where tells units apart that need not wait for each other: they go to
	// other backends.
	Where(units []write.Unit) []string
}

// Notifier takes what Alertmanagers are to be told. It must not wait for them.
type Notifier interface {
	Send(expr string, notifications ...alert.Notification)
}

// Templates returns what expands the templates of an alerting rule at a slot:
// queries inside them see what the rule's group may see.
type Templates interface {
	Expander(ctx context.Context, g rule.Group, alertName string, slot time.Time) alert.Expander
}

// Peers are the other members of the cluster, by their gRPC address.
type Peers interface {
	Claim(ctx context.Context, address string, keys []string) ([]handoff.GroupState, error)
	Checkpoint(ctx context.Context, address string, states []handoff.GroupState) error
}

// Config bounds what the ruler does.
type Config struct {
	// Member is the name of this member.
	Member string
	Limits schedule.Limits
	// Concurrency is the number of batches that are evaluated at one time.
	Concurrency int
	// ResendDelay is the shortest time between two notifications that say the
	// same of one alert.
	ResendDelay time.Duration
	// Tolerance says how alerts are restored from the backend.
	Tolerance alert.Tolerance
	// Timeout bounds the evaluation of one stage of a batch, and each of its
	// writes.
	Timeout time.Duration
	// Partitions are the labels that say which slice of the data each backend
	// holds; an empty value means that its series lack the label. Without any
	// there is one backend for everything.
	Partitions []labels.Labels
	// MaxUnwritten bounds what one alerting rule keeps while its samples can't be
	// written: a series counts once for each time that its value changes.
	MaxUnwritten int
	// ReadDelay is the longest time after which written samples are visible to
	// queries; 0, if that is at once.
	ReadDelay time.Duration
	// Home are labels without which no backend would take a series that no
	// tenancy gives labels to; empty where one holds what carries none.
	Home labels.Labels
}

// DefaultConfig is Prometheus' where Prometheus has the same setting.
func DefaultConfig() Config {
	return Config{
		Limits:      schedule.DefaultLimits(),
		Concurrency: 8,
		ResendDelay: time.Minute,
		Tolerance:   alert.Tolerance{Outage: time.Hour, ForGracePeriod: 10 * time.Minute},
		Timeout:     time.Minute,

		MaxUnwritten: 10_000,
	}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Member == "" {
		errs = append(errs, errors.New("the member needs a name"))
	}
	if c.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("concurrency %d: at least one batch has to run at a time", c.Concurrency))
	}
	if c.Limits.Backfill < 0 || c.ResendDelay <= 0 || c.Timeout <= 0 {
		errs = append(errs, errors.New("backfill limit, resend delay and timeout must be positive"))
	}
	if c.MaxUnwritten < 1 {
		errs = append(errs, fmt.Errorf("max unwritten alert series %d: it must be positive", c.MaxUnwritten))
	}
	return errors.Join(errs...)
}

// Deps are what the ruler works with.
type Deps struct {
	Evaluator Evaluator
	Writer    Writer
	Notifier  Notifier
	Templates Templates
	Peers     Peers
	// History is the data of all backends, from which groups that nobody
	// hands over are recovered.
	History storage.Queryable
	// Now is the wall clock of the member, by which slots are due; nil means
	// time.Now. Members' clocks differ.
	Now    func() time.Time
	Logger *slog.Logger
	Reg    prometheus.Registerer
}
