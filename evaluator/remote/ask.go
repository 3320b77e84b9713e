package remote

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errGone is why requests to an endpoint end that discovery finds no more.
var errGone = errors.New("the endpoint is gone")

// member is one endpoint of a backend.
type member struct {
	Connection
	target Target
	guard  *Guard
	// up is whether it answered last time.
	up atomic.Bool
	// ctx ends when the endpoint is gone; requests are those in progress.
	ctx      context.Context
	leave    context.CancelCauseFunc
	requests sync.WaitGroup
}

// rank is less for members that are to be asked before others.
func (m *member) rank() int {
	switch {
	case m.guard.refused() != nil:
		return 2
	case !m.up.Load():
		return 1
	}
	return 0
}

// attempt is what became of a request to one member.
type attempt[T any] struct {
	answer T
	err    error
	took   time.Duration
}

// race is one request of a backend, as far as it has got.
type race[T any] struct {
	replicas *Replicas
	request  func(context.Context, Connection) (T, error)
	waiting  []*member
	running  int
	done     chan attempt[T]
}

// ask returns the first answer of a member, after which the others are
// cancelled, or, if all fail, what the first of them said.
func ask[T any](ctx context.Context, r *Replicas, request func(context.Context, Connection) (T, error)) (answer T, err error) {
	members := r.preferred()
	if err := r.without(members); err != nil {
		return answer, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	race := race[T]{replicas: r, request: request, waiting: members, done: make(chan attempt[T], len(members))}
	race.next(ctx)
	hedge := time.NewTimer(r.recent.late())
	defer hedge.Stop()
	for first := true; ; {
		select {
		case <-hedge.C:
			if race.next(ctx) {
				r.metrics.hedged.WithLabelValues(r.cfg.Name).Inc()
			}
		case a := <-race.done:
			race.running--
			if a.err == nil {
				r.recent.add(a.took)
			}
			if a.err == nil || ctx.Err() != nil || !blamesEndpoint(a.err) {
				return a.answer, a.err
			}
			if first {
				answer, err, first = a.answer, a.err, false
			}
			if race.next(ctx) {
				r.metrics.failovers.WithLabelValues(r.cfg.Name).Inc()
			} else if race.running == 0 {
				return answer, err
			}
		}
	}
}

// next asks one more member, if there is one.
func (c *race[T]) next(ctx context.Context) bool {
	if len(c.waiting) == 0 {
		return false
	}
	m := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.running++
	go func() { c.done <- tried(ctx, c.replicas, m, c.request) }()
	return true
}

// tried asks one member.
func tried[T any](ctx context.Context, r *Replicas, m *member, request func(context.Context, Connection) (T, error)) (a attempt[T]) {
	if !r.enter(m) {
		a.err = &Error{Kind: KindBackend, Err: errGone}
		return a
	}
	defer m.requests.Done()
	began := time.Now()
	a.err = m.guard.Do(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(m.ctx, func() { cancel(errGone) })()
		a.answer, err = request(ctx, m.Connection)
		if err != nil && m.ctx.Err() != nil {
			return &Error{Kind: KindBackend, Err: errGone}
		}
		return err
	})
	a.took = time.Since(began)
	r.tried(ctx, m, a.err)
	return a
}

// tried takes note of what became of a request to a member.
func (r *Replicas) tried(ctx context.Context, m *member, err error) {
	if m.ctx.Err() != nil {
		return // So are its metrics.
	}
	result := "success"
	switch {
	case ctx.Err() != nil:
		result = string(KindCanceled) // Another one was faster, or nobody waits.
	case err != nil:
		result = string(kindOfError(err))
	}
	r.metrics.requests.WithLabelValues(r.cfg.Name, m.target.Name(), result).Inc()
	if ctx.Err() == nil {
		r.found(m, err)
	}
}

// found moves a member that turns out not to answer to the end.
func (r *Replicas) found(m *member, err error) {
	failed := err != nil && blamesEndpoint(err)
	if m.up.Swap(!failed) && failed && r.demote(m) {
		r.logger.Warn("endpoint does not answer, others are asked", "endpoint", m.target.Name(), "err", err)
	}
}

func kindOfError(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// blamesEndpoint tells errors that another endpoint may not have from those
// that come of the request.
func blamesEndpoint(err error) bool {
	if errors.Is(err, ErrHistogram) {
		return false
	}
	kind := kindOfError(err)
	return kind == KindBackend || kind == KindInternal || kind == KindTimeout
}

const (
	// remembered is the number of answers that the time to wait for one is
	// taken from, needed how many there have to be.
	remembered, needed = 200, 20
	// soonest and unknownLate bound the wait from below, and are the wait
	// while too few answers are known.
	soonest, unknownLate = 50 * time.Millisecond, 2 * time.Second
)

// latencies are the times that the last answers took.
type latencies struct {
	mu   sync.Mutex
	list []time.Duration
	next int
}

func (l *latencies) add(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < remembered {
		l.list = append(l.list, took)
		return
	}
	l.list[l.next] = took
	l.next = (l.next + 1) % remembered
}

// late is longer than 99 of 100 answers took.
func (l *latencies) late() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < needed {
		return unknownLate
	}
	sorted := slices.Clone(l.list)
	slices.SortFunc(sorted, cmp.Compare)
	return max(soonest, sorted[len(sorted)*99/100])
}
