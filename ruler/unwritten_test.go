package ruler

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/ruler/write"
)

func alertSample(name string, t int64, v float64) promql.Sample {
	return promql.Sample{Metric: labels.FromStrings("__name__", "ALERTS", "alertname", name), T: t, F: v}
}

func TestWhatDoesNotChangeTakesNoSpace(t *testing.T) {
	t.Parallel()
	var u unwritten
	for i := range int64(1000) {
		u = u.add([]promql.Sample{alertSample("a", i*15, 1), alertSample("b", i*15, 1)}, 15)
	}
	require.Len(t, u, 2)
	unit, until := u.oldest(100)
	require.Len(t, unit, 100)
	require.EqualValues(t, 49*15, until)
	rest, dropped := u.after(until)
	require.EqualValues(t, 100, dropped)
	require.EqualValues(t, 50*15, rest[0].From)
	unit, _ = rest.oldest(1)
	require.Len(t, unit, 4, "two slots at least")
}

func TestTheOldestIsGivenUpFirst(t *testing.T) {
	t.Parallel()
	var u unwritten
	for i := range int64(10) {
		u = u.add([]promql.Sample{alertSample("steady", i*10, 1), alertSample("flaps", i*10, float64(i))}, 10)
	}
	rest, dropped := u.bounded(20, 100)
	require.EqualValues(t, 4, dropped, "older than the limit")
	require.Len(t, rest, 9)
	rest, dropped = u.bounded(0, 5)
	require.EqualValues(t, 12, dropped)
	require.Len(t, rest, 5)
	require.EqualValues(t, 60, rest.samples(math.MaxInt64)[0].T)
}

// TestQuickUnwritten compares runs with a plain list of samples.
func TestQuickUnwritten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var u unwritten
		var plain write.Unit
		now := int64(1000)
		for range 60 {
			switch rnd.IntN(4) {
			case 0:
				unit, until := u.oldest(1 + rnd.IntN(20))
				require.ElementsMatch(t, texts(plain[:len(unit)]), texts(unit), "seed %d", seed)
				require.IsNonDecreasing(t, times(unit), "seed %d", seed)
				u, _ = u.after(until)
				plain = plain[len(unit):]
			default:
				every := int64(10 + 5*rnd.IntN(2))
				now += every * int64(1+rnd.IntN(2))
				var slot []promql.Sample
				for i := range 3 {
					if rnd.IntN(3) > 0 {
						slot = append(slot, alertSample(fmt.Sprint(i), now, []float64{1, 1, 1, 2, math.Float64frombits(value.StaleNaN)}[rnd.IntN(5)]))
					}
				}
				u = u.add(slot, every)
				plain = append(plain, slot...)
			}
			encoded, err := json.Marshal(u)
			require.NoError(t, err)
			u = nil
			require.NoError(t, json.Unmarshal(encoded, &u))
		}
		require.ElementsMatch(t, texts(plain), texts(u.samples(math.MaxInt64)), "seed %d", seed)
	}
}

func times(unit write.Unit) []int64 {
	out := make([]int64, len(unit))
	for i, s := range unit {
		out[i] = s.T
	}
	return out
}

func texts(unit write.Unit) []string {
	out := make([]string, len(unit))
	for i, s := range unit {
		out[i] = fmt.Sprint(s, math.Float64bits(s.F))
	}
	return out
}
