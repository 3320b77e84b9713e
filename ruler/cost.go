package ruler

import "time"

const (
	// ruleWork is what a rule costs beside the series that it returns, in such
	// series: planning, sending and accounting.
	ruleWork = 10
	// workWindow is how many slots the work of a group is averaged over, about.
	workWindow = 8
)

// worked takes the work of one more slot into the average. The lock is held.
func (g *group) worked(work float64) {
	if g.work == 0 {
		g.work = work
		return
	}
	g.work += (work - g.work) / workWindow
}

// Costs is what each group that runs here costs in an hour, by key, in series
// handled; 0 before its first slot. It depends on the group and not on the
// member, nor on how long backends take: else groups would change places for
// having changed them.
func (r *Ruler) Costs() map[string]uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	costs := make(map[string]uint64, len(r.running))
	for key, run := range r.running {
		run.mu.Lock()
		costs[key] = uint64(run.work * float64(time.Hour) / float64(run.def.Interval))
		run.mu.Unlock()
	}
	return costs
}
