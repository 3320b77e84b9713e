package schedule

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestLanes runs the scripts under testdata/lanes; the first tells the command.
func TestLanes(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/lanes", func(t *testing.T, path string) {
		var l Lanes
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			require.Equal(t, "batch", d.Cmd)
			var slot string
			d.ScanArgs(t, "at", &slot)
			var tenants, slow []string
			for _, a := range d.CmdArgs {
				switch a.Key {
				case "tenants":
					tenants = a.Vals
				case "slow":
					slow = a.Vals
				}
			}
			return evaluateLanes(&l, at(t, slot), tenants, slow) + l.String()
		})
	})
}

// evaluateLanes evaluates tenants for one slot, lane by lane, and lists the
// batches.
func evaluateLanes(l *Lanes, slot time.Time, tenants, slow []string) string {
	batches := map[int][]string{}
	var order []int
	for _, tenant := range tenants {
		n := l.Of(tenant)
		if batches[n] == nil {
			order = append(order, n)
		}
		batches[n] = append(batches[n], tenant)
	}
	var b strings.Builder
	for _, n := range order {
		took := 100 * time.Millisecond
		if slices.ContainsFunc(batches[n], func(t string) bool { return slices.Contains(slow, t) }) {
			took = 10 * time.Second
		}
		fmt.Fprintf(&b, "%s took %s", strings.Join(batches[n], " "), took)
		if found := l.Observe(Evaluated{Slot: slot, Tenants: batches[n], Took: took, Shortest: 15 * time.Second, Longest: 15 * time.Second}); found != "" {
			fmt.Fprintf(&b, ", %s is slow", found)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestSlowTenantsEndUpAlone looks for a few slow ones among a thousand, whose
// groups have slots at different times.
func TestSlowTenantsEndUpAlone(t *testing.T) {
	t.Parallel()
	var l Lanes
	phases := make([][]string, 4)
	for i := range 1000 {
		tenant := fmt.Sprintf("t%03d", i)
		for p := range phases {
			if (i+p)%2 == 0 {
				phases[p] = append(phases[p], tenant)
			}
		}
	}
	slow := []string{"t123", "t500", "t501"}
	for slot := range 200 {
		for p, tenants := range phases {
			evaluateLanes(&l, day.Add(time.Duration(slot)*15*time.Second+time.Duration(p)*4*time.Second), tenants, slow)
		}
		require.LessOrEqual(t, len(l.lanes), maxLanes)
	}
	require.Equal(t, 3, l.Apart(), "%s", &l)
	for _, tenant := range slow {
		require.True(t, l.lanes[l.Of(tenant)].alone, tenant)
	}
}

func TestWhatIsSlowForAllIsDividedInFewLanes(t *testing.T) {
	t.Parallel()
	var l Lanes
	var tenants []string
	for i := range 1000 {
		tenants = append(tenants, fmt.Sprintf("t%03d", i))
	}
	for slot := range 100 {
		evaluateLanes(&l, day.Add(time.Duration(slot)*15*time.Second), tenants, tenants)
		require.LessOrEqual(t, len(l.lanes), maxLanes)
	}
	for slot := range 300 {
		evaluateLanes(&l, day.Add(time.Hour+time.Duration(slot)*15*time.Second), tenants, nil)
	}
	require.Zero(t, l.Apart())
}
