package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

const (
	// checkInterval is the time between two probes of each endpoint.
	checkInterval = 10 * time.Second
	// checkTimeout is how long an endpoint has for an answer to it.
	checkTimeout = 5 * time.Second
)

// Target is one endpoint of a backend.
type Target struct {
	// Scheme and Path are those of the URL of its API; Host is "host" or
	// "host:port".
	Scheme, Host, Path string
}

// Name is the endpoint in metrics, logs and errors.
func (t Target) Name() string { return fmt.Sprintf("%s://%s%s", t.Scheme, t.Host, t.Path) }

// Connection is how one endpoint is asked.
type Connection struct {
	Queries Client
	Series  SeriesSource
	Labels  LabelSource
}

// ReplicasConfig describes a backend whose data can be had at one or several
// endpoints.
type ReplicasConfig struct {
	// Name is that of the backend.
	Name string
	// Connect returns a connection to an endpoint. It does no I/O.
	Connect func(Target) (Connection, error)
}

// Replicas is one backend. All of its endpoints hold the same slice of the
// data, though not the same samples: an answer is always that of one endpoint,
// and never put together from those of several. The endpoint that failed last
// is the last to be asked; if one fails, or takes longer than almost all of the
// answers before, the next one is asked, too, and the first answer counts.
//
// A backend without endpoints fails every request.
type Replicas struct {
	cfg     ReplicasConfig
	logger  *slog.Logger
	metrics *Metrics
	recent  latencies

	mu      sync.Mutex
	members []*member
	closing sync.WaitGroup
}

var (
	_ Client       = (*Replicas)(nil)
	_ SeriesSource = (*Replicas)(nil)
	_ LabelSource  = (*Replicas)(nil)
)

// NewReplicas returns a backend without endpoints.
func NewReplicas(cfg ReplicasConfig, logger *slog.Logger, metrics *Metrics) *Replicas {
	metrics.backend(cfg.Name)
	return &Replicas{cfg: cfg, logger: logger.With("backend", cfg.Name), metrics: metrics}
}

// SetTargets makes the endpoints those of targets. Connections to those that
// stay are kept, requests to those that are gone end at once.
func (r *Replicas) SetTargets(targets []Target) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	var kept []*member
	for _, t := range targets {
		i := slices.IndexFunc(r.members, func(m *member) bool { return m.target == t })
		if i >= 0 {
			kept = append(kept, r.members[i])
			continue
		}
		m, err := r.connect(t)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		kept = append(kept, m)
	}
	for _, m := range r.members {
		if !slices.Contains(kept, m) {
			r.dismiss(m)
		}
	}
	r.members = kept
	r.metrics.endpoints.WithLabelValues(r.cfg.Name).Set(float64(len(kept)))
	return errors.Join(errs...)
}

func (r *Replicas) connect(t Target) (*member, error) {
	c, err := r.cfg.Connect(t)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", t.Name(), err)
	}
	m := &member{target: t, Connection: c, guard: NewGuard(c.Queries.Probe, r.logger.With("endpoint", t.Name()))}
	m.ctx, m.leave = context.WithCancelCause(context.Background())
	m.up.Store(true)
	r.metrics.endpoint(r.cfg.Name, t.Name())
	return m, nil
}

// dismiss ends the requests to a member, then its connections.
func (r *Replicas) dismiss(m *member) {
	m.leave(errGone)
	r.closing.Go(func() {
		m.requests.Wait()
		if err := m.Queries.Close(); err != nil {
			r.logger.Warn("closing connections", "endpoint", m.target.Name(), "err", err)
		}
	})
	r.metrics.forget(r.cfg.Name, m.target.Name())
}

// enter begins a request to a member, unless it is gone.
func (r *Replicas) enter(m *member) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.ctx.Err() != nil {
		return false
	}
	m.requests.Add(1)
	return true
}

// preferred are the members in the order in which they are to be asked.
func (r *Replicas) preferred() []*member {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.members)
	slices.SortStableFunc(list, func(a, b *member) int { return cmp.Compare(a.rank(), b.rank()) })
	return list
}

// demote makes a member that failed the last one; false says that it is the
// only one.
func (r *Replicas) demote(m *member) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.members, m); i >= 0 {
		r.members = append(slices.Delete(r.members, i, i+1), m)
	}
	return len(r.members) > 1
}

// Known tells whether there is an endpoint.
func (r *Replicas) Known() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.members) > 0
}

// Execute implements Client. All answers are those of one endpoint.
func (r *Replicas) Execute(ctx context.Context, fragments []plan.Fragment, opts Options) []Result {
	results, err := ask(ctx, r, func(ctx context.Context, c Connection) ([]Result, error) {
		results := c.Queries.Execute(ctx, fragments, opts)
		return results, worstError(results)
	})
	if results == nil {
		return failAll(len(fragments), err)
	}
	for i := range results {
		if results[i].Err != nil && (errors.Is(err, errHangs) || errors.Is(err, errGone)) {
			results[i].Err = err
		}
	}
	return results
}

// worstError is the error that an endpoint is to blame for, else any other.
func worstError(results []Result) error {
	var worst error
	for _, r := range results {
		if r.Err != nil && (worst == nil || blamesEndpoint(r.Err)) {
			worst = r.Err
		}
	}
	return worst
}

// Series implements SeriesSource.
func (r *Replicas) Series(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]storage.Series, error) {
	return ask(ctx, r, func(ctx context.Context, c Connection) ([]storage.Series, error) {
		return c.Series.Series(ctx, hints, matchers)
	})
}

// LabelNames implements LabelSource.
func (r *Replicas) LabelNames(ctx context.Context, s Span) ([]string, error) {
	return ask(ctx, r, func(ctx context.Context, c Connection) ([]string, error) { return c.Labels.LabelNames(ctx, s) })
}

// LabelValues implements LabelSource.
func (r *Replicas) LabelValues(ctx context.Context, name string, s Span) ([]string, error) {
	return ask(ctx, r, func(ctx context.Context, c Connection) ([]string, error) { return c.Labels.LabelValues(ctx, name, s) })
}

// Probe implements Client: one of the endpoints has to answer.
func (r *Replicas) Probe(ctx context.Context) error {
	members := r.preferred()
	errs := []error{r.without(members)}
	for _, m := range members {
		err := r.check(ctx, m)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *Replicas) without(members []*member) error {
	if len(members) > 0 {
		return nil
	}
	return errorf(KindBackend, "no endpoint is known: discovery has found none")
}

// Run checks all endpoints until ctx ends.
func (r *Replicas) Run(ctx context.Context) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		var checks sync.WaitGroup
		for _, m := range r.preferred() {
			checks.Go(func() { _ = r.check(ctx, m) })
		}
		checks.Wait()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// check probes a member.
func (r *Replicas) check(ctx context.Context, m *member) error {
	if !r.enter(m) {
		return &Error{Kind: KindBackend, Err: errGone}
	}
	defer m.requests.Done()
	probe, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := m.Queries.Probe(probe)
	if ctx.Err() != nil || m.ctx.Err() != nil {
		return err
	}
	r.found(m, err)
	r.metrics.up.WithLabelValues(r.cfg.Name, m.target.Name()).Set(truth(err == nil))
	return err
}

// Close implements Client.
func (r *Replicas) Close() error {
	err := r.SetTargets(nil)
	r.closing.Wait()
	return err
}
