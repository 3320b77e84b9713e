package sim_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// evaluator is how one member asks the backends.
type evaluator struct {
	*world
	name string
}

// Evaluate implements ruler.Evaluator. The slowest of the backends that are
// asked holds up the batch, and those that are away fail their queries.
func (w evaluator) Evaluate(ctx context.Context, at time.Time, queries []ruler.Query) []ruler.Result {
	results := make([]ruler.Result, len(queries))
	slow := time.Duration(0)
	w.mu.Lock()
	for i, q := range queries {
		b := &w.backends[backendIndex(q.Scope)]
		slow = max(slow, b.slow)
		switch text := q.Expr.String(); {
		case b.down:
			results[i] = ruler.Result{Err: errDown, Retryable: true}
		case strings.HasSuffix(text, " * 2"):
			results[i].Vector = b.chained(strings.TrimSuffix(text, " * 2"), q.Scope.Get("backend"), at)
		default:
			results[i].Vector = answer(text, at)
		}
	}
	slow += w.between("evaluate "+w.name, time.Millisecond, 50*time.Millisecond)
	w.mu.Unlock()
	if wait(ctx, slow) != nil {
		for i := range results {
			results[i] = ruler.Result{Err: ctx.Err(), Retryable: true}
		}
	}
	return results
}

// chained doubles what was recorded for the same slot.
func (b *backend) chained(record, backend string, at time.Time) promql.Vector {
	var v promql.Vector
	for _, s := range answer(record, at) {
		if value, ok := b.at(seriesName(s.Metric, record, backend), at); ok {
			s.F = 2 * value
			v = append(v, s)
		}
	}
	return v
}

func backendIndex(lset labels.Labels) int {
	for i := range backends {
		if lset.Get("backend") == backendOf(i) {
			return i
		}
	}
	return 0
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Where implements ruler.Writer: all backends answer at once.
func (w *world) Where(units []write.Unit) []string { return make([]string, len(units)) }

// Write implements ruler.Writer.
func (w *world) Write(ctx context.Context, units []write.Unit) []write.Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	results := make([]write.Result, len(units))
	for i, u := range units {
		if err := ctx.Err(); err != nil {
			results[i].Err = err
			continue
		}
		for _, s := range u {
			b := &w.backends[backendIndex(s.Metric)]
			if b.down {
				results[i].Err = errDown
				break
			}
			if conflict := b.store(s); conflict != "" && !edited(s.Metric) && (w.careful || !isAlert(s.Metric)) {
				w.broken("written twice with different values: %s", conflict)
			}
		}
	}
	return results
}

// edited tells whether edits change the rule that a series comes from.
func edited(lset labels.Labels) bool {
	return lset.Get("edit") != "" || kind(lset.Get(labels.AlertName)) == "Edited"
}

func isAlert(lset labels.Labels) bool {
	return strings.HasPrefix(lset.Get(labels.MetricName), "ALERTS")
}

// history is what the backends hold, for groups that nobody hands over.
type history struct{ w *world }

// Querier implements storage.Queryable.
func (h history) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{h.w, mint, maxt}, nil
}

type querier struct {
	w          *world
	mint, maxt int64
}

// Select implements storage.Querier.
func (q *querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.w.mu.Lock()
	defer q.w.mu.Unlock()
	set := &seriesSet{}
	for i := range q.w.backends {
		b := &q.w.backends[i]
		if !matchesBackend(i, ms) {
			continue
		}
		if b.down {
			return storage.ErrSeriesSet(errDown)
		}
		for _, found := range b.data {
			if !matches(found.metric, ms) {
				continue
			}
			s := promql.Series{Metric: found.metric}
			for t, v := range found.points {
				if t >= q.mint && t <= q.maxt {
					s.Floats = append(s.Floats, promql.FPoint{T: t, F: v})
				}
			}
			slices.SortFunc(s.Floats, func(a, b promql.FPoint) int { return int(a.T - b.T) })
			set.list = append(set.list, promql.NewStorageSeries(s))
		}
	}
	slices.SortFunc(set.list, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return set
}

func matchesBackend(i int, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if m.Name == "backend" && !m.Matches(backendOf(i)) {
			return false
		}
	}
	return true
}

// LabelValues implements storage.Querier.
func (*querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("nobody asks")
}

// LabelNames implements storage.Querier.
func (*querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("nobody asks")
}

// Close implements storage.Querier.
func (*querier) Close() error { return nil }

type seriesSet struct {
	storage.SeriesSet

	list []storage.Series
	next int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.list) }
func (s *seriesSet) At() storage.Series                { return s.list[s.next-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// peers are the other members, as one of them reaches them.
type peers struct {
	w    *world
	self string
}

var errLost = errors.New("no answer")

// pass takes a message over, or loses it: then the sender waits in vain. It
// may arrive after others that were sent later, or twice.
func (p peers) pass(ctx context.Context, from, to string) (m *member, twice bool, err error) {
	p.w.mu.Lock()
	link := from + " to " + to
	lost := p.w.cut[[2]string{from, to}] || p.w.chance(link, p.w.loss)
	delay := p.w.between(link, time.Millisecond, 100*time.Millisecond)
	if p.w.loss > 0 && p.w.chance(link, 0.2) {
		delay = p.w.between(link, 0, 2*time.Second)
	}
	twice = p.w.chance(link, p.w.loss/2)
	p.w.mu.Unlock()
	if lost {
		<-ctx.Done()
		return nil, false, errLost
	}
	if err := wait(ctx, delay); err != nil {
		return nil, false, err
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	m = p.w.members[to]
	if m == nil || m.dead {
		return nil, false, errors.New("connection refused")
	}
	return m, twice, nil
}

// Claim implements ruler.Peers.
func (p peers) Claim(ctx context.Context, address string, keys []string) ([]handoff.GroupState, error) {
	m, twice, err := p.pass(ctx, p.self, address)
	if err != nil {
		return nil, err
	}
	if twice {
		go func() { _, _ = m.Claim(ctx, p.self, keys) }() // Nobody hears the answer.
	}
	states, err := m.Claim(ctx, p.self, keys)
	if err != nil {
		return nil, err
	}
	if _, _, err := p.pass(ctx, address, p.self); err != nil {
		return nil, err
	}
	return states, nil
}

// Checkpoint implements ruler.Peers.
func (p peers) Checkpoint(ctx context.Context, address string, states []handoff.GroupState) error {
	m, twice, err := p.pass(ctx, p.self, address)
	if err != nil {
		return err
	}
	if twice {
		_ = m.Checkpoint(ctx, p.self, states) // The second may fail as it likes.
	}
	if err := m.Checkpoint(ctx, p.self, states); err != nil {
		return err
	}
	_, _, err = p.pass(ctx, address, p.self)
	return err
}
