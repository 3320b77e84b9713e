package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

// TestCheck runs the scripts in testdata/check. They make files and check them:
//
//	file NAME                         the input is the file's content
//	check [FLAG ...] [paths=(A,B)]    the input is standard input
//
// Flags are those of the command line, without the leading dashes.
func TestCheck(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/check", func(t *testing.T, path string) {
		dir := t.TempDir()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "file" {
				name := filepath.Join(dir, d.CmdArgs[0].Key)
				require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
				require.NoError(t, os.WriteFile(name, []byte(d.Input), 0o644))
				return ""
			}
			var flags, paths []string
			for _, a := range d.CmdArgs {
				switch {
				case a.Key == "paths":
					for _, p := range a.Vals {
						paths = append(paths, filepath.Join(dir, p))
					}
				case len(a.Vals) == 0:
					flags = append(flags, "--"+a.Key)
				default:
					flags = append(flags, fmt.Sprintf("--%s=%s", a.Key, strings.Join(a.Vals, ",")))
				}
			}
			return strings.ReplaceAll(checked(d.Input, slices.Concat(flags, paths)), dir, "DIR")
		})
	})
}

// checked returns what a command line prints, with the status.
func checked(stdin string, args []string) string {
	app := kingpin.New("tocsin", "").Terminate(nil)
	rules := app.Command("rules", "")
	o := addCheckFlags(rules)
	if _, err := app.Parse(append([]string{"rules", "check"}, args...)); err != nil {
		return fmt.Sprintf("usage: %s\n", err)
	}
	var out bytes.Buffer
	status := Check(&out, strings.NewReader(stdin), *o)
	return fmt.Sprintf("%sstatus %d\n", out.String(), status)
}

func TestRealPacksPassTheCheck(t *testing.T) {
	t.Parallel()
	_, here, _, ok := runtime.Caller(0)
	require.True(t, ok)
	packs := filepath.Join(filepath.Dir(here), "..", "..", "..", "..", "shared", "rules")
	if _, err := os.Stat(packs); err != nil {
		t.Skipf("no rule packs at ../shared/rules beside the repository: %s", err)
	}
	var out bytes.Buffer
	require.Equal(t, command.ExitOK, Check(&out, nil, CheckOptions{Paths: []string{packs}, DuplicateRules: true}), out.String())
	require.Equal(t, 125, strings.Count(out.String(), "Checking "))
	builtin := filepath.Join(filepath.Dir(here), "..", "..", "..", "deploy", "rules")
	require.Equal(t, command.ExitOK, Check(&out, nil, CheckOptions{Paths: []string{builtin}, DuplicateRules: true, LintFatal: true}), out.String())
}
