package deploy

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/tocsin-rules/tocsin/test/program"
)

var rewrite = flag.Bool("rewrite", false, "render the manifests from the chart")

// helm runs helm, and demands that it succeeds.
func helm(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program.Helm().Build(t), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "helm %s: %s", args, stderr.String())
	return out
}

// render is what the chart makes of a template.
func render(t *testing.T, template string, args ...string) []byte {
	t.Helper()
	out := helm(t, append([]string{"template", "tocsin", "helm", "--show-only", "templates/" + template}, args...)...)
	const source = "# Rendered from deploy/helm by `make rewrite`; change it there.\n"
	lines := slices.DeleteFunc(strings.SplitAfter(string(out), "\n"), func(line string) bool {
		return line == "\n" || strings.HasPrefix(line, "# Source: ")
	})
	return []byte(source + strings.Join(lines, ""))
}

// TestManifestsAreWhatTheChartRenders keeps the two ways to install the same.
func TestManifestsAreWhatTheChartRenders(t *testing.T) {
	t.Parallel()
	want := map[string][]byte{
		"components/autoscaling/autoscaling.yaml": render(t, "autoscaling.yaml", "--set", "ruleEvaluator.autoscaling.enabled=true"),
	}
	for _, template := range []string{"admission-policies.yaml", "admission-webhooks.yaml", "alertmanager.yaml", "collector.yaml", "namespaces.yaml", "network-policies.yaml", "operator.yaml", "rule-evaluator.yaml"} {
		want["manifests/"+template] = render(t, template)
	}
	if *rewrite {
		require.NoError(t, os.MkdirAll("manifests", 0o755))
		for file, content := range want {
			require.NoError(t, os.WriteFile(file, content, 0o644))
		}
	}
	for file, content := range want {
		require.Equal(t, string(content), string(read(t, file)), "%s: run `make rewrite`", file)
	}
	for _, file := range files(t, "manifests") {
		require.Contains(t, want, file, "nothing renders it")
	}
}

func TestTheChartIsClean(t *testing.T) {
	t.Parallel()
	helm(t, "lint", "--strict", "helm")
}

func TestTheKustomizationHasEverything(t *testing.T) {
	var k struct{ Resources []string }
	require.NoError(t, yaml.Unmarshal(read(t, "kustomization.yaml"), &k))
	var all []string
	for _, folder := range []string{"crds", "manifests"} {
		all = append(all, files(t, folder)...)
	}
	require.ElementsMatch(t, all, k.Resources)
}

// files are those below a folder, which may be missing.
func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return names
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return content
}
