package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tocsin-rules/tocsin/sharding"
)

// drainOnRequest is a drain after which the member stays up. It is refused
// where nobody could take over, since nobody would evaluate the rules then.
func (a *app) drainOnRequest(ctx context.Context) error {
	if !a.state.isLeaving() && !othersReady(a.gossip.View(), a.opts.Name) {
		return errors.New("no other member is ready to take the groups over: nothing was done")
	}
	return a.drain(ctx)
}

func othersReady(view sharding.View, self string) bool {
	return slices.ContainsFunc(view.Ready(), func(m sharding.Member) bool { return m.Name != self })
}

// drain hands everything over to other members and returns when that is done,
// or with an error when the time for it is up. From then on the member is
// leaving: it owns nothing, and stays so until it is stopped. Draining again
// waits for the same end.
func (a *app) drain(ctx context.Context) error {
	if a.state.leave(func() { a.gossip.SetState(sharding.Leaving) }) {
		a.logger.Info("handing over", "member", a.opts.Name)
		a.ruler.Drain()
	}
	bound := time.NewTimer(a.opts.StopTimeout)
	defer bound.Stop()
	select {
	case <-a.ruler.Drained():
		return nil
	case <-bound.C:
		return fmt.Errorf("%d groups still run here after the stop timeout (%s)", len(a.ruler.Status()), a.opts.StopTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drainAfter hands everything over when ctx has ended.
func (a *app) drainAfter(ctx, parts context.Context) error {
	select {
	case <-ctx.Done():
	case <-parts.Done():
		return nil
	}
	if err := a.drain(parts); err != nil {
		a.logger.Warn("not everything was handed over in time", "err", err)
	}
	return nil
}

// ready is an error unless the member evaluates rules, or would if it owned
// some.
func (a *app) ready() error {
	select {
	case <-a.ruler.Drained():
		return errors.New("drained: this member has handed its groups over and takes none until it is started again")
	default:
		return a.state.Ready()
	}
}
