package write

import (
	"fmt"
	"sync"
	"time"
)

// The reasons for not trying a write.
const (
	heldRetryAfter  = "retry_after"
	heldUnavailable = "unavailable"
	heldPending     = "pending"
)

// gate keeps requests away from a backend that can't take them now. The zero
// value is open. It is safe for concurrent use.
type gate struct {
	mu      sync.Mutex
	pending int // samples
	// failed is how the last request ended; while it is set, one request at a
	// time may try.
	failed error
	trying bool
	until  time.Time // as the backend asked
}

// reserve admits samples on their way to the backend, at most limit at a time
// unless they are the only ones. They have to be released.
func (g *gate) reserve(samples, limit int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pending > 0 && g.pending+samples > limit {
		return fmt.Errorf("%d samples are on their way, with %d more they are beyond write_max_pending_samples (%d)", g.pending, samples, limit)
	}
	g.pending += samples
	return nil
}

func (g *gate) release(samples int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending -= samples
}

// enter admits a request, which has to leave; trial tells that it is the one
// that tries a failed backend. If it is not admitted, there are reason and err.
func (g *gate) enter(now time.Time) (trial bool, reason string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case now.Before(g.until):
		return false, heldRetryAfter, fmt.Errorf("it asked to be left alone for another %s: %w", g.until.Sub(now).Round(time.Second), g.failed)
	case g.failed != nil && g.trying:
		return false, heldUnavailable, fmt.Errorf("it failed and is being tried: %w", g.failed)
	}
	g.trying = g.failed != nil
	return g.trying, "", nil
}

// leave notes how a request ended, and until when there should be no other.
func (g *gate) leave(trial bool, failed error, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if trial {
		g.trying = false
	}
	g.failed, g.until = failed, until
	if failed == nil {
		g.until = time.Time{}
	}
}
