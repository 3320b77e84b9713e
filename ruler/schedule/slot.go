// Package schedule decides which slots of which rule groups are due: live
// slots, slots that were missed, and slots that have to be repeated for some
// rules because a backend was away.
//
// It is pure: time is an argument, nothing is started, nothing waits. The
// shell (package ruler) asks Due, runs what it is told, and reports the
// Outcome with Done. A Schedule is not safe for concurrent use; one goroutine
// owns it. Its behaviour is written down in scripts under testdata.
package schedule

import (
	"time"

	"github.com/cespare/xxhash/v2"
)

// maxPhases is the number of different offsets that groups of one interval
// are spread over. Few phases put groups into common slots, so that their
// rules share one batch; many spread the load. Sixteen keep the peak near the
// mean while a batch still holds a sixteenth of all groups.
const maxPhases = 16

// Offset is the distance of a group's slots from multiples of its interval: a
// whole number of seconds below interval that every member computes alike.
// Groups of one phase have the same slots.
func Offset(phase string, interval time.Duration) time.Duration {
	seconds := int64(interval / time.Second)
	if seconds <= 1 {
		return 0
	}
	phases := min(seconds, maxPhases)
	nth := int64(xxhash.Sum64String(phase) % uint64(phases))
	return time.Duration(nth*seconds/phases) * time.Second
}

// Slot is the latest slot at or before t of a group with the interval and
// offset given.
func Slot(t time.Time, interval, offset time.Duration) time.Time {
	ms, every, off := t.UnixMilli(), interval.Milliseconds(), offset.Milliseconds()
	since := (ms - off) % every
	if since < 0 {
		since += every
	}
	return time.UnixMilli(ms - since).UTC()
}
