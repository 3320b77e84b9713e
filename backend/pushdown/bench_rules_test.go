package pushdown_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// The shape of a fleet's rules: 200 metrics of 500 series.
const (
	rulesMetrics = 200
	rulesSeries  = 500
	rulesSamples = 40
)

// rulesStorage holds 100,000 series with ten minutes of samples each.
func rulesStorage(b *testing.B) *teststorage.TestStorage {
	b.Helper()
	db := teststorage.New(b)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	refs := make([]storage.SeriesRef, rulesMetrics*rulesSeries)
	for i := range int64(rulesSamples) {
		app := db.Appender(b.Context())
		for s, ref := range refs {
			l := labels.EmptyLabels()
			if ref == 0 {
				l = rulesLabels(s)
			}
			ref, err := app.Append(ref, l, i*benchInterval, float64(i*int64(s%977)))
			require.NoError(b, err)
			refs[s] = ref
		}
		require.NoError(b, app.Commit())
	}
	return db
}

func rulesLabels(s int) labels.Labels {
	i := s % rulesSeries
	return labels.FromStrings(
		"__name__", fmt.Sprintf("metric_%d_total", s/rulesSeries),
		"cluster", "east",
		"container", fmt.Sprintf("container-%d", i%25),
		"instance", fmt.Sprintf("10.0.0.%d:9090", i%100),
		"job", "job-a",
		"namespace", fmt.Sprintf("ns-%d", i/25),
		"pod", fmt.Sprintf("pod-%d", i),
	)
}

// rulesFragments returns 2,000 expressions over 600 selectors, each of which
// occurs about four times and selects up to 500 series.
func rulesFragments(at int64) []*pushdownv1.Fragment {
	var fragments []*pushdownv1.Fragment
	for m := range rulesMetrics {
		all := fmt.Sprintf(`metric_%d_total{cluster="east",job="job-a"}`, m)
		some := fmt.Sprintf(`metric_%d_total{cluster="east",container!="container-0",job="job-a"}`, m)
		one := fmt.Sprintf(`metric_%d_total{cluster="east",job="job-a",namespace="ns-%d"}`, m, m%20)
		for _, expr := range []string{
			"sum by (namespace) (rate(" + all + "[5m]))",
			"sum by (namespace, pod) (rate(" + some + "[5m]))",
			"sum by (instance) (rate(" + all + "[5m])) / sum by (instance) (increase(" + all + "[10m])) > 100",
			"max by (namespace) (" + all + ")",
			"count by (container) (" + some + ")",
			"avg by (namespace) (" + some + ") > 1e9",
			some + " > 1e9",
			"absent(" + one + ")",
			"sum by (pod) (rate(" + one + "[5m]))",
			one + " > on (pod) group_left () (2 * avg by (pod) (rate(" + one + "[5m])))",
		} {
			fragments = append(fragments, instant(expr, at))
		}
	}
	return fragments
}

// BenchmarkRules runs the rules of a fleet as one batch.
func BenchmarkRules(b *testing.B) {
	fragments := rulesFragments(rulesSamples * benchInterval)
	require.Len(b, fragments, 2000)
	benchBatches(b, rulesStorage(b), fragments)
}
