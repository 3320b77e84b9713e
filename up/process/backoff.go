package process

import "time"

// Backoff is how the delay before a restart grows: from Min, doubling to Max,
// and from Min again once the process ran for Stable.
type Backoff struct {
	Min, Max, Stable time.Duration
}

// DefaultBackoff restarts a process that was killed soon, and does not burn
// the machine on one that can't run.
func DefaultBackoff() Backoff {
	return Backoff{Min: time.Second, Max: 10 * time.Second, Stable: 30 * time.Second}
}

// next returns the delay after an exit, given the delay before the last start
// (0 if there was none) and for how long the process ran.
func (b Backoff) next(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= b.Stable {
		return b.Min
	}
	return min(2*last, b.Max)
}
