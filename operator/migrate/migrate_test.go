package migrate

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/operator/render"
)

func testOptions() Options {
	return Options{Kind: "ClusterRules", Namespace: "default", Interval: "30s", Settings: render.Settings{Scope: plan.Scope}}
}

// TestMigrate runs the scripts in testdata. Input is a file:
//
//	migrate [file=NAME] [kind=KIND] [cluster=NAME]
func TestMigrate(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			name, o := "in.yml", testOptions()
			d.MaybeScanArgs(t, "file", &name)
			d.MaybeScanArgs(t, "kind", &o.Kind)
			d.MaybeScanArgs(t, "cluster", &o.Settings.Cluster)
			result := Migrate([]File{{Name: name, Content: []byte(d.Input)}}, o)
			var out strings.Builder
			for _, n := range result.Notes {
				out.WriteString(n.String() + "\n")
			}
			for _, text := range result.Manifests {
				out.WriteString("---\n" + string(text))
			}
			return out.String()
		})
	})
}

// TestRealPacksMigrate: rule packs as their projects publish them become
// resources of every kind, but for what contradicts the scope of the kind.
func TestRealPacksMigrate(t *testing.T) {
	t.Parallel()
	_, here, _, ok := runtime.Caller(0)
	require.True(t, ok)
	root := filepath.Join(filepath.Dir(here), "..", "..", "..", "shared", "rules")
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no rule packs at ../shared/rules beside the repository: %s", err)
	}
	var files []File
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, "ml") {
			return err
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		files = append(files, File{Name: name, Content: content})
		return err
	})
	require.NoError(t, err)
	// One file has no rules, another one has two documents.
	for _, want := range []outcome{
		{"GlobalRules", "", 125, 2, 0, 0},
		{"ClusterRules", "", 125, 2, 8, 0},
		// Two files of sloth set the label cluster, in 60 rules of 8 groups.
		{"ClusterRules", "east", 123, 2, 0, 60},
		// One rule of Istio's asks for namespace istio-system.
		{"Rules", "", 124, 2, 8, 1},
	} {
		o := testOptions()
		o.Kind, o.Settings.Cluster = want.kind, want.cluster
		result := Migrate(files, o)
		got := outcome{kind: want.kind, cluster: want.cluster, manifests: len(result.Manifests)}
		for _, n := range result.Notes {
			switch n.Level {
			case Changed:
				got.changed++
			case Lost:
				got.lost++
			case Failed:
				got.failed++
			}
		}
		require.Equal(t, want, got, "%v", result.Notes)
	}
}

type outcome struct {
	kind, cluster                    string
	manifests, changed, lost, failed int
}
