package evaluator

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// TestTenantsOweWhatTheySpend: nothing is refused until a limit is owed; a
// limit is paid back in a minute; tenants do not pay for each other.
func TestTenantsOweWhatTheySpend(t *testing.T) {
	t.Parallel()
	var all tenants
	shop, bank := labels.FromStrings("namespace", "shop"), labels.FromStrings("namespace", "bank")
	limits := plan.Limits{Samples: 600, Time: 30 * time.Second}
	start := time.Unix(1000, 0)
	refusal := func(scope labels.Labels, after time.Duration) *Error {
		return all.refusal(scope, limits, start.Add(after))
	}

	require.Nil(t, refusal(shop, 0))
	all.charge(shop, limits, Cost{Samples: 599, Series: 1 << 40}, start)
	require.Nil(t, refusal(shop, 0))
	all.charge(shop, limits, Cost{Samples: 901}, start)
	require.EqualError(t, refusal(shop, 0), "the queries of the tenant owe 1500 samples, the limit is 600 a minute (limits.tenant.samples)")
	require.Equal(t, KindLimit, refusal(shop, 0).Kind)
	require.Nil(t, refusal(bank, 0))
	require.NotNil(t, refusal(shop, 90*time.Second))
	require.Nil(t, refusal(shop, 91*time.Second))

	all.charge(bank, limits, Cost{Time: time.Minute}, start)
	require.EqualError(t, refusal(bank, 15*time.Second), "the queries of the tenant owe 52.5 seconds of backends' time, the limit is 30 a minute (limits.tenant.time)")

	all.charge(shop, limits, Cost{}, start.Add(10*time.Minute))
	all.charge(bank, limits, Cost{}, start.Add(10*time.Minute))
	require.Empty(t, all.accounts, "who owes nothing is forgotten")
	all.charge(bank, plan.Limits{}, Cost{Samples: 1}, start)
	require.Empty(t, all.accounts, "nor is remembered who has no limits")
}
