package ruler

import (
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/ruler/write"
)

// maxRecent bounds the samples of a group that are remembered. When there are
// more, the oldest are left to the backend.
const maxRecent = 200_000

// recent are the samples that a group has written and that the backends may not
// show yet, in the order of the writes. It is for several goroutines: a live slot
// and a repeat may run at one time.
type recent struct {
	mu sync.Mutex
	// list is only appended to and cut at the front, so that who has it may
	// read it.
	list  []promql.Sample
	units []recentUnit
}

// recentUnit is a number of samples that were written together.
type recentUnit struct {
	samples int
	written time.Time
}

// add remembers samples for some time, and forgets those whose time is over.
func (r *recent) add(samples write.Unit, now time.Time, keep time.Duration) {
	if keep == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, samples...)
	r.units = append(r.units, recentUnit{len(samples), now})
	for len(r.list) > maxRecent || len(r.units) > 0 && now.Sub(r.units[0].written) > keep {
		r.list, r.units = r.list[r.units[0].samples:], r.units[1:]
	}
}

// samples are all that are remembered; they are not to be changed.
func (r *recent) samples() []promql.Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list[:len(r.list):len(r.list)]
}

// adopt takes over what the old version of a group remembers.
func (r *recent) adopt(old *recent) {
	old.mu.Lock()
	defer old.mu.Unlock()
	r.list, r.units = old.list, old.units
}
