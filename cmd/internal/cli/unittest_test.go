package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	programs "github.com/tocsin-rules/tocsin/test/program"
)

// goTool runs the go command in a directory and returns what it prints.
func goTool(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// upstreamTests is the directory of promtool's own test data.
func upstreamTests(t *testing.T) string {
	t.Helper()
	dir, err := goTool(".", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus")
	require.NoError(t, err)
	return filepath.Join(dir, "cmd", "promtool", "testdata")
}

// TestUnitTestsAsPromtoolRunsThem runs all files in testdata/unittest, and
// promtool's own, with both programs, and compares what they print, the JUnit
// XML and the exit status. What is wrong with a file itself is said in
// different words; see same.
func TestUnitTestsAsPromtoolRunsThem(t *testing.T) {
	t.Parallel()
	tool := programs.Promtool().Build(t)
	var files []string
	for _, dir := range []string{"testdata/unittest", upstreamTests(t)} {
		found, err := filepath.Glob(filepath.Join(dir, "*.yml"))
		require.NoError(t, err)
		files = append(files, found...)
	}
	// Upstream's test of how long a long test takes has no place here.
	files = slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f) == "long-period.yml" })
	require.Greater(t, len(files), 50)
	for _, flags := range [][]string{
		nil, {"--diff"}, {"--debug"}, {"--run=rfc|RFC", "--run=^not"}, {"--ignore-unknown-fields"},
	} {
		for _, file := range files {
			t.Run(strings.Join(append(flags, filepath.Base(file)), " "), func(t *testing.T) {
				t.Parallel()
				compareUnitTest(t, tool, append(flags[:len(flags):len(flags)], file))
			})
		}
	}
}

func compareUnitTest(t *testing.T, tool string, args []string) {
	t.Helper()
	dir := t.TempDir()
	theirXML, ourXML := filepath.Join(dir, "theirs.xml"), filepath.Join(dir, "ours.xml")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, append([]string{"test", "--junit=" + theirXML, "rules"}, args...)...)
	var theirOut, theirErr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &theirOut, &theirErr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	status, stdout, stderr := run(Tocsin, append([]string{"rules", "test", "--junit=" + ourXML}, args...)...)
	require.Equal(t, cmd.ProcessState.ExitCode(), status, "%s\n%s", stderr, &theirErr)
	require.Equal(t, same(theirErr.String()), same(stderr))
	require.Equal(t, same(theirOut.String()), same(stdout))
	require.Equal(t, same(readFile(t, theirXML)), same(readFile(t, ourXML)))
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(content)
}

// differences are all that may differ, with what takes its place.
var differences = []struct {
	pattern *regexp.Regexp
	with    string
}{
	// Times.
	{regexp.MustCompile(`timestamp="[^"]*"`), `timestamp=""`},
	{regexp.MustCompile(`finished, took .*`), "finished"},
	// The name of a type in the program.
	{regexp.MustCompile(`(not found in type|into) (main\.\w+|rulefmt\.\w+|unittest\.\w+)`), "$1 TYPE"},
	// What is wrong with a rule file: here all faults, each with its place.
	{regexp.MustCompile(`(?m)^(\S+\.(?:rules|yml)):.*(?:\n  line \d+: .*)*$`), "$1: is at fault"},
	{regexp.MustCompile(`(<failure>)(\S+\.(?:rules|yml)):.*?(</failure>)`), "$1$2: is at fault$3"},
	// Prometheus lists the series in any order.
	{regexp.MustCompile(`: \[\{.*\}\];many-to-many`), ": many-to-many"},
	// Two results that become one: here with their labels.
	{regexp.MustCompile(`err: vector contains metrics with the same labelset after applying (rule|alert) labels.*?(\n|</failure>)`), "err: collision$2"},
	{regexp.MustCompile(`err: alert .* two results have the same labels once the rule(?:'|&#39;)s labels are set`), "err: collision"},
}

var (
	blankLines = regexp.MustCompile(`\n{2,}`)
	failures   = regexp.MustCompile(`failures="\d+"`)
)

// same takes out of a text what may differ. Of the faults of a rule file, whose
// number may, one is left.
func same(text string) string {
	for _, d := range differences {
		text = d.pattern.ReplaceAllString(text, d.with)
	}
	if strings.Contains(text, ": is at fault") {
		text = failures.ReplaceAllString(text, "")
	}
	text = strings.NewReplacer("<failure>", "\n<failure>", "</failure>", "</failure>\n").Replace(text)
	text = blankLines.ReplaceAllString(text, "\n")
	return strings.Join(slices.Compact(strings.Split(text, "\n")), "\n")
}

func TestUnitTestsOfManifests(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := run(Tocsin, "rules", "test", "--cluster=cluster=east", "--cluster=cluster=west", "testdata/manifests/tests.yml")
	require.Empty(t, stderr)
	require.Equal(t, "  SUCCESS\n\n", stdout)
	require.Equal(t, command.ExitOK, status)

	status, _, stderr = run(Tocsin, "rules", "test", "testdata/manifests/tests.yml")
	require.Contains(t, stderr, `got: {__name__="up:sum", namespace="shop"} 2E+00`, "without a cluster there is one instance")
	require.Equal(t, command.ExitFailed, status)
}
