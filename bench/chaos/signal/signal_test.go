package signal

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

func TestSamplesFollowFromTheirTimestamp(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_045, 0)
	require.Equal(t, Samples("east", at, false), Samples("east", at.Add(Step-time.Millisecond), false))
	require.NotEqual(t, Samples("east", at, false), Samples("east", at.Add(Step), false))
}

func TestAShortLivedSeriesEndsWithAMarkerWhenTheNextBegins(t *testing.T) {
	t.Parallel()
	born := time.Unix(1_700_000_040, 0).Truncate(generation)
	ended := map[string]bool{}
	for _, s := range Samples("west", born.Add(generation), true) {
		if s.Labels.Get("__name__") == "session" {
			ended[s.Labels.Get("id")] = value.IsStaleNaN(s.F)
		}
	}
	require.Equal(t, map[string]bool{id(born): true, id(born.Add(generation)): false}, ended)
}

func TestAFaultIsOneCycleFromItsBeginningUntilAQuarterPeriodAfterItsEnd(t *testing.T) {
	t.Parallel()
	for _, cluster := range Clusters() {
		began := time.Unix(1_700_000_000, 0).Truncate(Step)
		for AtFault(cluster, 3, began) || !AtFault(cluster, 3, began.Add(Step)) {
			began = began.Add(Step)
		}
		began = began.Add(Step)
		c := Cycle(cluster, "u3", began)
		require.Equal(t, c, Cycle(cluster, "u3", began.Add(Period*3/4)))
		require.Equal(t, c+1, Cycle(cluster, "u3", began.Add(Period)))
	}
}

func TestRulesAreValid(t *testing.T) {
	t.Parallel()
	_, errs := rule.Parse("chaos.yaml", []byte(Rules(12)), rule.Options{})
	require.Empty(t, errs)
}
