package app

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/web"
)

const (
	// clockInterval is how often other members are asked for their time.
	clockInterval = 15 * time.Second
	// clockSample bounds how many are asked at a time, chosen at random.
	clockSample = 16
)

// watchClocks looks for members whose clocks differ. Slots are the same whatever
// clocks say, but who is late evaluates late.
func (a *app) watchClocks(ctx context.Context) error {
	skew := promauto.With(a.reg).NewGauge(prometheus.GaugeOpts{
		Name: "tocsin_cluster_clock_skew_seconds",
		Help: "By how much the clocks of this and of another member differ at least, the largest of the last look.",
	})
	ticker := time.NewTicker(clockInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		var largest time.Duration
		for name, c := range a.clocks(ctx, a.someOthers()) {
			largest = max(largest, c.Skew())
			if c.Skew() > web.MaxClockSkew {
				a.logger.Warn("clocks of members differ", "member", name, "ahead", c.Ahead(), "threshold", web.MaxClockSkew)
			}
		}
		skew.Set(largest.Seconds())
	}
}

func (a *app) someOthers() []sharding.Member {
	var others []sharding.Member
	for _, m := range a.gossip.View().Members() {
		if m.Name != a.opts.Name {
			others = append(others, m)
		}
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return others[:min(len(others), clockSample)]
}

// clocks asks members for their time; those that don't answer are left out.
func (a *app) clocks(ctx context.Context, members []sharding.Member) map[string]web.Clock {
	clocks := map[string]web.Clock{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			ahead, within, err := a.rpcClient.Clock(ctx, m.GRPCAddress)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			clocks[m.Name] = web.Clock{AheadSeconds: ahead.Seconds(), WithinSeconds: within.Seconds()}
		})
	}
	wg.Wait()
	return clocks
}
