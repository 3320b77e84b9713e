package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/gossip"
)

// costsInterval is how often it is looked at whether groups still cost what the
// members agreed on.
const costsInterval = time.Minute

// keepCosts tells the others the load of this member and revises what groups
// cost, that on the first of the ready members only: the others take it from
// there.
func (a *app) keepCosts(ctx context.Context) error {
	ticker := time.NewTicker(costsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		a.gossip.SetLoad(a.ownLoad())
		view := a.gossip.View()
		ready := view.Ready()
		if len(ready) == 0 || ready[0].Name != a.opts.Name {
			continue
		}
		measured, err := a.measured(ctx, view)
		if err != nil {
			a.logger.Warn("what groups cost is not looked at now", "err", err)
			continue
		}
		a.gossip.SetCosts(view.Costs().Revise(measured, len(ready)))
	}
}

// measured is what all loaded groups cost whoever runs them; 0 where nobody
// knows. It fails if any member does not answer: its groups would seem light.
func (a *app) measured(ctx context.Context, view sharding.View) (map[uint64]uint64, error) {
	measured := map[uint64]uint64{}
	for _, g := range a.state.loadedGroups() {
		measured[sharding.Hash(g.Key)] = 0
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for _, m := range view.Members() {
		wg.Go(func() {
			costs, err := a.costsOf(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = fmt.Errorf("member %q: %w", m.Name, err)
			}
			for group, cost := range costs {
				if known, loaded := measured[group]; loaded {
					measured[group] = max(known, cost)
				}
			}
		})
	}
	wg.Wait()
	return measured, failed
}

func (a *app) costsOf(ctx context.Context, m sharding.Member) (map[uint64]uint64, error) {
	if m.Name != a.opts.Name {
		return a.rpcClient.Costs(ctx, m.GRPCAddress)
	}
	return a.costs(), nil
}

// ownLoad sums up what runs here.
func (a *app) ownLoad() gossip.Load {
	var l gossip.Load
	for _, cost := range a.ruler.Costs() {
		l.Groups++
		l.Cost += cost
	}
	return l
}

// costs are those of the groups that run here, by the hashes of their keys.
func (a *app) costs() map[uint64]uint64 {
	costs := map[uint64]uint64{}
	for key, cost := range a.ruler.Costs() {
		costs[sharding.Hash(key)] = cost
	}
	return costs
}
