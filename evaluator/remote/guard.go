package remote

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// patience is how long a request may take before the backend is asked
	// whether it is there at all, and again as long as the request lasts.
	patience = 2 * time.Second
	// probeTimeout is how long it has for an answer to that.
	probeTimeout = 2 * time.Second
	// probeInterval is the time between two looks at a backend that is away.
	probeInterval = time.Second
)

// errHangs is why requests to a backend that does not answer a probe end.
var errHangs = errors.New("the backend does not answer")

// Guard gives up on an endpoint that hangs, so that it costs a batch a few
// seconds once and not the whole timeout every time. A request that takes long
// is left alone as long as the backend answers probes: it may be an expensive
// one. While a backend is away requests fail at once.
type Guard struct {
	probe  func(context.Context) error
	logger *slog.Logger

	mu      sync.Mutex
	away    error // why requests fail at once; nil if they are sent
	probing bool
	nextTry time.Time
}

// NewGuard returns the guard of an endpoint, which answers probe within a moment
// unless it hangs.
func NewGuard(probe func(context.Context) error, logger *slog.Logger) *Guard {
	return &Guard{probe: probe, logger: logger}
}

// Do runs a request, unless the backend is known to be away, and ends the
// request's context if it turns out to hang. The error is that of the request,
// or an *Error that says so.
func (g *Guard) Do(ctx context.Context, request func(context.Context) error) error {
	if err := g.refused(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go g.watch(ctx, cancel)
	err := request(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errHangs) {
		return &Error{Kind: KindBackend, Err: errHangs}
	}
	return err
}

// refused is why a request is not to be sent; it sees to it that the backend
// is looked at again.
func (g *Guard) refused() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away == nil {
		return nil
	}
	if now := time.Now(); !g.probing && now.After(g.nextTry) {
		g.probing = true
		go g.look()
	}
	return &Error{Kind: KindBackend, Err: g.away}
}

// watch ends a request by cancel if the backend turns out to hang.
func (g *Guard) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.hangs(ctx) {
			cancel(errHangs)
			return
		}
	}
}

// hangs probes the backend while a request lasts.
func (g *Guard) hangs(ctx context.Context) bool {
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := g.probe(probe)
	if err == nil || ctx.Err() != nil {
		return false
	}
	g.set(errHangs)
	return true
}

// look probes a backend that is away.
func (g *Guard) look() {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	err := g.probe(ctx)
	if err != nil {
		err = errHangs
	}
	g.set(err)
}

func (g *Guard) set(away error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case away != nil && g.away == nil:
		g.logger.Warn("backend hangs, it is not asked until it answers again")
	case away == nil && g.away != nil:
		g.logger.Info("backend answers again")
	}
	g.away, g.probing, g.nextTry = away, false, time.Now().Add(probeInterval)
}
