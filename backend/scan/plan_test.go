package scan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// TestPlan runs the scripts of testdata/plan: queries in, shared reads out.
func TestPlan(t *testing.T) {
	t.Parallel()
	datadriven.RunTest(t, "testdata/plan", func(t *testing.T, d *datadriven.TestData) string {
		start, end := int64(1000), int64(1000)
		d.MaybeScanArgs(t, "start", &start)
		d.MaybeScanArgs(t, "end", &end)
		var queries []Query
		for line := range strings.Lines(d.Input) {
			expr, err := parser.ParseExpr(strings.TrimSpace(line))
			require.NoError(t, err)
			queries = append(queries, Query{Expr: expr, Start: start * 1000, End: end * 1000, Lookback: 300_000})
		}
		b := New(Config{}, nil, prometheus.NewRegistry()).Batch(t.Context(), queries)
		defer b.Close()
		return describe(b)
	})
}

// describe prints the reads with the queries that share them.
func describe(b *Batch) string {
	var lines []string
	for _, es := range b.entries {
		for _, e := range es {
			line := fmt.Sprintf("%v [%d, %d]", e.matchers, e.window.mint/1000, e.window.maxt/1000)
			if e.wider != nil {
				line += fmt.Sprintf(" from %v", e.root().matchers)
			} else {
				line += fmt.Sprintf(" for %v", usersOf(b, e))
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(append(lines, ""), "\n")
}

func usersOf(b *Batch, e *entry) []int {
	var users []int
	for q, es := range b.users {
		if slices.Contains(es, e) {
			users = append(users, q)
		}
	}
	return users
}
