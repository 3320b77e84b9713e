package evaluator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
)

// TestStepsAreInstants compares EvaluateSteps with Evaluate at every instant,
// for all expressions of the package's promise and some that a range query can't answer.
func TestStepsAreInstants(t *testing.T) {
	t.Parallel()
	exprs := append(slices.Clone(expressions),
		"gauge @ start()",
		"sum_over_time(gauge[2m] @ end())",
		`label_replace(gauge, "job", "", "", "")`, // collides, at most instants
		"scalar(gauge)",
		"time()",
		"absent(gauge)",
	)
	for _, m := range []mode{overVirtual, overNative} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, m, sampleData(rand.New(rand.NewPCG(9, 9))))
			queries := parsed(t, exprs)
			steps := evaluator.Steps{First: slot.Add(-10 * time.Minute), Every: 47 * time.Second, Count: 12}
			got := f.evaluator.EvaluateSteps(context.Background(), steps, queries)
			require.Len(t, got, len(queries))
			var differences []string
			for n := range steps.Count {
				for i, want := range f.evaluator.Evaluate(context.Background(), steps.At(n), queries) {
					if d := difference(exprs[i], want.Vector, want.Err, got[i][n]); d != "" {
						differences = append(differences, fmt.Sprintf("%s at step %d\n%s", exprs[i], n, d))
					}
				}
			}
			require.Empty(t, strings.Join(differences, "\n"))
		})
	}
}

func TestStepsRefuseWhatIsNoInstantVector(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overNative, nil)
	matrix, err := parser.ParseExpr("m[5m]")
	require.NoError(t, err)
	got := f.evaluator.EvaluateSteps(context.Background(), evaluator.Steps{First: slot, Every: time.Minute, Count: 2}, []evaluator.Query{{Name: "q", Expr: matrix}})
	for _, r := range got[0] {
		require.ErrorContains(t, r.Err, "a rule needs an instant vector or a scalar")
	}
}
