package collector

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/prometheus/storage"
)

// inFlightTimeout bounds how long a stop waits for scrapes that have begun.
const inFlightTimeout = time.Second

// gate stands between the scrape manager and the storage, so that a stop cuts
// cleanly between scrapes. Without it the scrape manager, which cancels what is
// under way when it stops, would record those targets as down.
type gate struct {
	storage.Appendable

	mu       sync.Mutex
	stopping bool // No further scrape may begin to write.
	closed   bool // No scrape may write.
	inFlight int
	idle     chan struct{} // Closed when stopping and nothing is in flight.
}

func newGate(a storage.Appendable) *gate {
	return &gate{Appendable: a, idle: make(chan struct{})}
}

// Appender is part of storage.Appendable. The scrape manager takes one when a
// scrape begins.
func (g *gate) Appender(ctx context.Context) storage.Appender {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping {
		g.inFlight++
	}
	return &gatedAppender{Appender: g.Appendable.Appender(ctx), gate: g, late: g.stopping}
}

// close waits for the scrapes that have begun, for a bounded time, and then
// lets nothing through any more.
func (g *gate) close() {
	g.mu.Lock()
	g.stopping = true
	g.signalIdle()
	g.mu.Unlock()
	timeout := time.NewTimer(inFlightTimeout)
	defer timeout.Stop()
	select {
	case <-g.idle:
	case <-timeout.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.closed
}

// end takes one scrape out of flight.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	g.signalIdle()
}

func (g *gate) signalIdle() {
	if g.stopping && g.inFlight == 0 {
		close(g.idle)
	}
}

// gatedAppender is one scrape's way through the gate. Either Commit or
// Rollback is called, once.
type gatedAppender struct {
	storage.Appender
	gate *gate
	late bool
}

// Commit is part of storage.Appender.
func (a *gatedAppender) Commit() error {
	if a.late {
		return a.Appender.Rollback()
	}
	defer a.gate.end()
	if !a.gate.open() {
		return a.Appender.Rollback()
	}
	return a.Appender.Commit()
}

// Rollback is part of storage.Appender.
func (a *gatedAppender) Rollback() error {
	if !a.late {
		defer a.gate.end()
	}
	return a.Appender.Rollback()
}
