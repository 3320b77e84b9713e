package main

import (
	"iter"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
)

// TestChaos kills and restarts members of a small fleet. To see it again:
//
//	go run ./bench/chaos --scenario kill-3 --kills 4 --scenario rolling-3 --rollouts 1
func TestChaos(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	if _, err := exec.LookPath("prometheus-alertmanager"); err != nil {
		t.Skip("prometheus-alertmanager is not installed; .ci/install installs it")
	}
	o := options{dir: t.TempDir(), seed: 1, kills: 4, rollouts: 1}
	require.NoError(t, build(t.Context(), &o))
	for _, name := range []string{"kill-3", "rolling-3"} {
		for _, s := range scenarios() {
			if s.name != name {
				continue
			}
			r, err := perform(t.Context(), o, s)
			require.NoError(t, err)
			require.NoError(t, r.fault(), "%+v", r)
			require.Positive(t, r.slots)
			require.Positive(t, r.notifications.Expected)
			require.NotEmpty(t, append(r.takeovers, r.handovers...))
			require.Zero(t, r.alerts.Missing, "%v", r.alerts.Examples)
		}
	}
}

func TestASoakFollowsFromItsSeed(t *testing.T) {
	t.Parallel()
	again := soakLanes(options{seed: 7})
	for i, lane := range soakLanes(options{seed: 7}) {
		require.Equal(t, first(lane), first(again[i]))
	}
}

func first(faults iter.Seq[fault]) []fault {
	var some []fault
	for f := range faults {
		if some = append(some, f); len(some) == 100 {
			break
		}
	}
	return some
}

func TestNoFaultOfASoakHidesAWholeFaultOfAUnit(t *testing.T) {
	t.Parallel()
	for _, lane := range soakLanes(options{seed: 3}) {
		for _, f := range first(lane) {
			require.LessOrEqual(t, f.lasts, signal.Period/2-20*time.Second, f)
			require.Less(t, f.lasts, ahead)
		}
	}
}
