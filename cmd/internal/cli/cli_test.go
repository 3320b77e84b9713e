package cli

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

// run returns what a program prints and its exit status.
func run(program func([]string, command.Streams) int, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = program(args, command.Streams{Stdout: &out, Stderr: &errs})
	return status, out.String(), errs.String()
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		program func([]string, command.Streams) int
		args    []string
		stderr  string
	}{
		{"an unknown command", Tocsin, []string{"down"}, "tocsin: expected command but got \"down\"; try --help\n"},
		{"an unknown flag", Tocsin, []string{"up", "--nodes=3"}, "tocsin: unknown long flag '--nodes'; try --help\n"},
		{"a number that is none", Tocsin, []string{"up", "--members=many"}, "tocsin: strconv.ParseFloat: parsing \"many\": invalid syntax; try --help\n"},
		{"a duration that is none", Tocsin, []string{"backend", "--storage.retention.time=long"}, "tocsin: not a valid duration string: \"long\"; try --help\n"},
		{"a label without a value", Tocsin, []string{"backend", "--storage.external-label=cluster"}, "tocsin: expected KEY=VALUE got 'cluster'; try --help\n"},
		{"a log level that is none", RuleEvaluator, []string{"--log.level=loud"}, "rule-evaluator: unrecognized log level loud; try --help\n"},
		{"options that contradict each other", Tocsin, []string{"up", "--ephemeral", "--data-dir=x"}, "tocsin: --data-dir and --ephemeral exclude each other; try --help\n"},
		{"several faults", Tocsin, []string{"up", "--members=0", "--scrape=web"}, "tocsin: --members 0: must be from 1 to 10\n--scrape \"web\": no = in it; expected JOB=host:port or CLUSTER/JOB=host:port; try --help\n"},
		{"an argument too many", RuleEvaluator, []string{"up"}, "rule-evaluator: unexpected up; try --help\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := run(tc.program, tc.args...)
			require.Equal(t, tc.stderr, stderr)
			require.Empty(t, stdout)
			require.Equal(t, command.ExitUsage, status)
		})
	}
}

func TestHelpAndVersionGoToStandardOutput(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		program func([]string, command.Streams) int
		args    []string
		stdout  string
	}{
		{"long help", Tocsin, []string{"--help"}, "rule-evaluator"},
		{"short help", Tocsin, []string{"-h"}, "alertmanager"},
		{"help of a command", Tocsin, []string{"up", "--help"}, "--port-base=19090"},
		{"nothing asked for", Tocsin, nil, "usage: tocsin"},
		{"version", Tocsin, []string{"--version"}, "tocsin, version"},
		{"help of a program that is one command", RuleEvaluator, []string{"--help"}, "--cluster.peer=HOST:PORT"},
		{"version of another program", RuleEvaluator, []string{"--version"}, "rule-evaluator, version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := run(tc.program, tc.args...)
			require.Contains(t, stdout+stderr, tc.stdout)
			require.Equal(t, command.ExitOK, status)
		})
	}
}

func TestACommandThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.yml")
	status, _, stderr := run(Tocsin, "collector", "--config.file="+missing, "--storage.path="+t.TempDir(), "--web.listen-address=127.0.0.1:0")
	require.Contains(t, stderr, "tocsin: ")
	require.Contains(t, stderr, missing)
	require.Equal(t, command.ExitFailed, status)
}
