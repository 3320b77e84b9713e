package ruler

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
)

func TestTheCostOfAGroupIsItsOwnAndNotTheBackends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, recording("light", "r", "x"), recording("heavy", "h", "many"))
		w.result = func(expr string, at time.Time) promql.Vector {
			v := promql.Vector{{T: at.UnixMilli()}}
			for i := range 89 {
				if expr == "many" {
					v = append(v, promql.Sample{Metric: labels.FromStrings("i", strconv.Itoa(i)), T: at.UnixMilli()})
				}
			}
			return v
		}
		a := w.add("a")
		pass(5 * time.Minute)
		perHour := uint64(time.Hour / interval)
		costs := map[string]uint64{"light": (ruleWork + 1) * perHour, "heavy": (ruleWork + 90) * perHour}
		require.Equal(t, costs, a.Costs())

		w.set(func(w *world, err error) { w.queriesFail = err }, errors.New("away"))
		pass(10 * time.Minute)
		require.Equal(t, costs, a.Costs(), "a backend that is away makes no group lighter")
	})
}
