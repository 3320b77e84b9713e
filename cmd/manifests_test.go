package cmd_test

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/tocsin-rules/tocsin/cmd/internal/cli"
	"github.com/tocsin-rules/tocsin/cmd/internal/collector"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/cmd/internal/operator"
)

// programs are what the images are made of, by the images' names.
var programs = map[string]func([]string, command.Streams) int{
	"collector":      runCollector,
	"operator":       operator.Run,
	"rule-evaluator": cli.RuleEvaluator,
	"tocsin":         cli.Tocsin,
}

// runCollector has the collector's command line without its discovery of pods,
// which no process can have beside that of Prometheus.
func runCollector(args []string, s command.Streams) int {
	p := command.New("collector", "", s)
	p.Add("", collector.Flags(p.App))
	return p.Run(args)
}

// workload is what is needed of a DaemonSet, a Deployment or a StatefulSet.
type workload struct {
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Image string
					Args  []string
				}
			}
		}
	}
}

// TestProgramsTakeTheArgumentsOfTheManifests parses the arguments with the
// programs themselves, which say what they do not know before they show their
// help.
func TestProgramsTakeTheArgumentsOfTheManifests(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../deploy/manifests/*.yaml")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for document := range strings.SplitSeq(string(content), "\n---\n") {
			var w workload
			require.NoError(t, yaml.Unmarshal([]byte(document), &w), file)
			for _, c := range w.Spec.Template.Spec.Containers {
				name, _, _ := strings.Cut(path.Base(c.Image), ":")
				program := programs[name]
				require.NotNil(t, program, "no program is known for image %s", c.Image)
				var stdout, stderr bytes.Buffer
				status := program(append(c.Args, "--help"), command.Streams{Stdout: &stdout, Stderr: &stderr})
				require.Equal(t, command.ExitOK, status, "%s %s: %s", name, c.Args, stderr.String())
				require.Contains(t, stdout.String(), "--help")
				seen[name] = true
			}
		}
	}
	require.Len(t, seen, len(programs))
}
