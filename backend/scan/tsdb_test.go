package scan_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

const (
	minute = 60_000
	hour   = 60 * minute
)

// TestSharedReadsEqualDirectOnesWhateverTheStorageDoes compares the two after
// each of the things that happen to a TSDB.
func TestSharedReadsEqualDirectOnesWhateverTheStorageDoes(t *testing.T) {
	t.Parallel()
	db := teststorage.New(t, 3*hour)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	scanner := scan.New(scan.Config{}, db, prometheus.NewRegistry())
	write := func(t *testing.T, series int, from, to int64) {
		app := db.Appender(t.Context())
		for at := from; at <= to; at += minute {
			_, err := app.Append(0, labels.FromStrings("__name__", "m", "a", fmt.Sprint(series%2), "b", fmt.Sprint(series)), at, float64(at)+float64(series))
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
	}
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"an empty storage", func(*testing.T) {}},
		{"series", func(t *testing.T) { write(t, 0, 0, 2*hour); write(t, 1, 0, 2*hour) }},
		{"churn", func(t *testing.T) { write(t, 2, 2*hour, 4*hour); write(t, 3, 3*hour, 4*hour) }},
		{"late samples", func(t *testing.T) { write(t, 4, 3*hour, 4*hour); write(t, 4, 2*hour+10*minute, 2*hour+40*minute) }},
		{"deletion", func(t *testing.T) {
			require.NoError(t, db.Delete(t.Context(), 30*minute, 200*minute, labels.MustNewMatcher(labels.MatchRegexp, "b", "0|4")))
		}},
		{"compaction of the head", func(t *testing.T) {
			require.NoError(t, db.CompactHead(tsdb.NewRangeHead(db.Head(), 0, 2*hour-1)))
		}},
		{"deletion in a block", func(t *testing.T) {
			require.NoError(t, db.Delete(t.Context(), 90*minute, 95*minute, labels.MustNewMatcher(labels.MatchEqual, "b", "1")))
		}},
		{"more of the same series", func(t *testing.T) { write(t, 1, 4*hour, 5*hour); write(t, 5, 4*hour, 5*hour) }},
	}
	for _, step := range steps {
		step.do(t)
		for _, end := range []int64{hour, 2 * hour, 4 * hour, 5 * hour} {
			requireSharedEqualsDirect(t, scanner, db, end, step.name)
		}
	}
}

func requireSharedEqualsDirect(t *testing.T, scanner *scan.Scanner, db *teststorage.TestStorage, end int64, step string) {
	t.Helper()
	selectors := []string{`m[3h]`, `m[10m]`, `m{a="0"}[1h]`, `m{a="1",b!="3"}[90m]`}
	var queries []scan.Query
	for _, s := range selectors {
		expr, err := parser.ParseExpr(s)
		require.NoError(t, err)
		queries = append(queries, scan.Query{Expr: expr, Start: end, End: end})
	}
	batch := scanner.Batch(t.Context(), queries)
	defer batch.Close()
	for _, q := range queries {
		ms := q.Expr.(*parser.MatrixSelector)
		mint := end - ms.Range.Milliseconds() + 1
		want, err := readBetween(t.Context(), db, ms.VectorSelector.String(), mint, end)
		require.NoError(t, err)
		got, err := readBetween(t.Context(), batch, ms.VectorSelector.String(), mint, end)
		require.NoError(t, err)
		require.ElementsMatch(t, withSamples(want), got, "%s at %d after %s", q.Expr, end, step)
	}
}

// withSamples leaves out series without samples, as shared reads do.
func withSamples(series []string) []string {
	var some []string
	for _, s := range series {
		if s[len(s)-1] != '}' {
			some = append(some, s)
		}
	}
	return some
}
