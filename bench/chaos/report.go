package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// fault says what of a result breaks a promise.
func (r result) fault() error {
	var errs []error
	for what, n := range map[string]int{
		"slots are missing":                                r.slotsMissing,
		"recorded samples are missing":                     r.recorded.Missing,
		"recorded samples differ":                          r.recorded.Different,
		"alerts started over":                              r.resets,
		"notifications are missing":                        r.notifications.Missing,
		"notifications are unexpected":                     r.notifications.Unexpected,
		"slots were given up":                              int(r.givenUp),
		"samples were written twice with different values": int(r.duplicates),
	} {
		if n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d %s", r.name, n, what))
		}
	}
	return errors.Join(errs...)
}

func report(o options, results []result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Faults, and what became of slots, samples and alerts\n\nMade by `go run ./bench/chaos --seed %d` on %s, Tocsin %s.\n\n", o.seed, time.Now().UTC().Format("2006-01-02 15:04 UTC"), o.revision)
	b.WriteString("| scenario | members | faults | time | slots expected | missing | recorded samples | missing | different | ALERTS samples | missing | alert resets | notifications | missing | unexpected | started later | takeover p50 / p99 / max | first slot after leaving, late by p50 / p99 / max | repeated | given up | written twice differently |\n")
	b.WriteString("|---|" + strings.Repeat("---|", 20) + "\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s | %s | %.0f | %.0f | %.0f |\n",
			r.name, r.members, r.faults, r.took, r.slots, r.slotsMissing,
			r.recorded.Expected, r.recorded.Missing, r.recorded.Different, r.alerts.Expected, r.alerts.Missing, r.resets,
			r.notifications.Expected, r.notifications.Missing, r.notifications.Unexpected, r.notifications.Later,
			percentiles(r.takeovers), percentiles(r.handovers), r.repeated, r.givenUp, r.duplicates)
	}
	for _, r := range results {
		examples := slices.Concat(r.recorded.Examples, r.alerts.Examples, r.notifications.Examples)
		if len(examples) > 0 {
			fmt.Fprintf(&b, "\n## Differences of %s (some)\n\n* %s\n", r.name, strings.Join(examples, "\n* "))
		}
	}
	b.WriteString(explanation)
	return os.WriteFile(o.out, []byte(b.String()), 0o644)
}

const explanation = `
## How it was measured

* Two fleets of processes evaluate the same rules over the same data: the one that the faults happen to, and a single member of its own
  backends and Alertmanager that is left in peace. Slots depend on nothing but the rules, so what both wrote must be the same, sample by
  sample, staleness markers included, bit by bit.
* Groups have an interval of two seconds; raw series are written ahead of time, so a backend that was away has them when it is back.
* Takeover is the time from the death of a member, noticed by nobody yet, until another member has evaluated a new slot of a group of
  its; waiting for that slot is included, up to two seconds. After a member was asked to leave, the age of the first slot that another
  one has evaluated is given. Both are seen from outside, every 100 ms.
* Notifications are compared as a set of (alert, fault of its unit, firing or resolved). "Started later" are those that began to fire at
  another slot than in the other fleet, which happens where a backend was away when they should have.
* ALERTS samples can be missing where a backend was away: alerts are evaluated late or at the next slot, and not for the past.
`

func percentiles(times []time.Duration) string {
	if len(times) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(times))
	at := func(q float64) time.Duration {
		return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(100 * time.Millisecond)
	}
	return fmt.Sprintf("%s / %s / %s", at(0.5), at(0.99), sorted[len(sorted)-1].Round(100*time.Millisecond))
}
