package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// TestMain lets the test binary stand in for the program, so that workers are
// real processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerCommand {
		if err := command(context.Background(), os.Args[1:]); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// TestAllVariantsAgree runs the benchmark as small as it can be: what it
// compares must be equal, and every figure must be there.
func TestAllVariantsAgree(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes")
	}
	o, err := parse([]string{"--series=2k", "--rules=50", "--slots=2", "--out=" + t.TempDir()})
	require.NoError(t, err)
	require.NoError(t, bench(t.Context(), o, t.Output()))
	report, err := os.ReadFile(filepath.Join(o.out, "2k-series-50-rules.md"))
	require.NoError(t, err)
	for _, variant := range []string{
		"Tocsin, native, 1 backend", "Tocsin, native, 4 backends", "Tocsin, HTTP, 4 backends",
		"one query per rule, 1 Prometheus", "remote read, local engine, 4 backends", "Prometheus' rule manager, in-process",
	} {
		require.Contains(t, string(report), "| "+variant+" |")
	}
	for _, s := range allScenarios {
		require.Contains(t, string(report), "\n## "+titlesOf[s]+"\n")
	}
	for _, g := range append(goalsOn(1), goalsOn(4)...) {
		require.Contains(t, string(report), "| "+g.what+" |")
	}
	require.NotContains(t, string(report), "NaN")
	require.FileExists(t, filepath.Join(o.out, "2k-series-50-rules.svg"))
}

func TestARuleWithAnotherResultIsNamed(t *testing.T) {
	t.Parallel()
	one := worker.Sample{Labels: `{a="1"}`, Value: 1}
	two := worker.Sample{Labels: `{a="2"}`, Value: math.NaN()}
	rules := []dataset.Rule{{Group: "g", Record: "same"}, {Group: "g", Alert: "Odd"}}
	same := worker.Result{Samples: []worker.Sample{two, one}}
	for _, c := range []struct {
		name string
		got  worker.Result
		err  string
	}{
		{"equal in another order", worker.Result{Samples: []worker.Sample{one, two}}, ""},
		{"a last digit", worker.Result{Samples: []worker.Sample{{Labels: one.Labels, Value: 1 + 1e-12}, two}}, ""},
		{"another value", worker.Result{Samples: []worker.Sample{{Labels: one.Labels, Value: 1.1}, two}}, `{a="1"} is 1.1, want 1`},
		{"a number for NaN", worker.Result{Samples: []worker.Sample{one, {Labels: two.Labels, Value: 1}}}, `{a="2"} is 1, want NaN`},
		{"a missing series", worker.Result{Samples: []worker.Sample{one}}, `missing {a="2"}`},
		{"a surplus series", worker.Result{Samples: []worker.Sample{one, two, {Labels: `{b="1"}`}}}, `surplus {b="1"}`},
		{"an error", worker.Result{Err: "no backend"}, "no backend"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := compare(rules, clone(same, same), clone(same, c.got))
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, `"g/Odd"`)
			require.ErrorContains(t, err, c.err)
		})
	}
}

// clone copies results: to compare is to sort.
func clone(results ...worker.Result) (copies []worker.Result) {
	for _, r := range results {
		copies = append(copies, worker.Result{Samples: append([]worker.Sample(nil), r.Samples...), Err: r.Err})
	}
	return copies
}

func TestAReportSaysHowItWasMade(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{
		"--series 100k --rules 2000 --slots 3 --seed 1 --backends 1,4",
		"--series 1500 --rules 20 --slots 3 --seed 2 --backends 1 --scenarios rules,few --only native,http",
	} {
		o, err := parse(strings.Fields(flags))
		require.NoError(t, err)
		require.Equal(t, flags, o.flags())
	}
}

func TestFaultyFlagsAreNamed(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"--series=many":      `"many" is not a number`,
		"--series=2000k":     "--series must be between",
		"--rules=3":          "--rules must be between",
		"--slots=0":          "--slots must be between",
		"--backends=1,3":     "3 is neither 1 nor 4",
		"--backends=1,one":   `"one" is not a number`,
		"--scenarios=few,no": `"no" is none of rules, aggregating`,
	} {
		_, err := parse([]string{flag})
		require.ErrorContains(t, err, want, flag)
	}
}
