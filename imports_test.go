// Package tocsin_test checks rules about the repository as a whole.
package tocsin_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/tocsin-rules/tocsin/"

// direction is a rule about what the packages below a folder may import.
// Test files are free to import what they compare against.
type direction struct {
	from, not []string
	except    []string
	why       string
}

var directions = []direction{
	{
		from: []string{"sharding"}, not: []string{"evaluator", "alerting", "operator", "collector", "backend", "ruler", "up", "web"},
		except: []string{"sharding/handoff/rpc"},
		why:    "components are joined by ruler and the composition roots, not by each other",
	},
	{
		from: []string{"evaluator"}, not: []string{"sharding", "alerting", "operator", "collector", "backend", "ruler", "up", "web"},
		why: "components are joined by ruler and the composition roots, not by each other",
	},
	{
		from: []string{"alerting"}, not: []string{"sharding", "evaluator", "operator", "collector", "backend", "ruler", "up"},
		why: "components are joined by ruler and the composition roots, not by each other",
	},
	{
		from: []string{"collector"}, not: []string{"sharding", "evaluator", "alerting", "operator", "backend", "ruler", "up"},
		why: "components are joined by ruler and the composition roots, not by each other",
	},
	{
		from: []string{"backend"}, not: []string{"sharding", "evaluator", "alerting", "operator", "collector", "ruler", "up"},
		why: "the backend is on the other side of the wire",
	},
	{
		from: []string{"api"}, not: []string{"sharding", "evaluator", "alerting", "collector", "backend", "operator", "ruler", "up", "web"},
		why: "custom resources are types alone",
	},
	{
		from: []string{"ruler"}, not: []string{"backend", "collector", "operator", "up"},
		why: "the evaluation loop knows backends only through the evaluator",
	},
	{
		from: []string{"operator"},
		not: []string{
			"sharding", "evaluator", "alerting", "collector", "backend", "up", "web",
			"ruler/app", "ruler/schedule", "ruler/source", "ruler/write", "ruler/backfill", "ruler/unittest",
		},
		except: []string{"operator/app"},
		why:    "the operator knows what rules are and nothing else of the programs that it configures",
	},
	{
		from: []string{"ruler/rule", "ruler/schedule", "ruler/write", "ruler/source"}, not: []string{"evaluator", "sharding", "alerting", "web"},
		why: "the parts of the ruler do not know each other's neighbours",
	},
	{
		from: []string{"."}, not: []string{"github.com/hashicorp/memberlist"},
		except: []string{"sharding/gossip"},
		why:    "only sharding/gossip knows how members find each other",
	},
	{
		from: []string{"."}, not: []string{"github.com/thanos-io/promql-engine"},
		except: []string{"backend"},
		why:    "only the backend knows which engine runs PromQL over its data",
	},
	{
		from: []string{"."}, not: []string{"k8s.io/", "sigs.k8s.io/"},
		except: []string{"operator", "api", "collector/discovery", "kubeapi", "test/kube"},
		why:    "everything else runs without Kubernetes",
	},
	{
		from: []string{"."}, not: []string{"sigs.k8s.io/controller-runtime"},
		except: []string{"operator"},
		why:    "only the operator reconciles; everything else that reads Kubernetes does with client-go",
	},
}

// notInCollector is what the program collector must not link, because every
// node would pay for it.
var notInCollector = []string{
	module + "ruler", module + "evaluator", module + "alerting", module + "backend", module + "sharding", module + "operator",
	"sigs.k8s.io/controller-runtime", "k8s.io/client-go/kubernetes", "k8s.io/client-go/informers", "github.com/prometheus/prometheus/discovery/kubernetes",
	"github.com/prometheus/prometheus/rules", "github.com/prometheus/prometheus/web",
	"github.com/thanos-io/promql-engine", "github.com/hashicorp/memberlist",
}

// TestCollectorLinksOnlyWhatItNeeds covers indirect imports, too.
func TestCollectorLinksOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "./cmd/collector").Output()
	require.NoError(t, err)
	deps := strings.Fields(string(out))
	require.Contains(t, deps, module+"collector/discovery")
	require.NotContains(t, deps, "github.com/prometheus/prometheus/promql", "its parser is enough")
	for _, dep := range deps {
		for _, not := range notInCollector {
			not = strings.TrimSuffix(not, "/")
			require.False(t, dep == not || strings.HasPrefix(dep, not+"/"), "the collector links %s", dep)
		}
	}
}

// pure lists the packages that decide and do nothing else. They are driven by
// scripts and simulations, so they must not know of time, chance or the world.
var pure = []string{"ruler/rule", "ruler/schedule", "evaluator/plan", "sharding", "sharding/handoff", "alerting/alert", "operator/render", "operator/migrate"}

var impure = []string{"context", "sync", "log", "log/slog", "os", "net", "net/http", "math/rand", "math/rand/v2", "google.golang.org/grpc", "github.com/hashicorp/memberlist"}

// TestImportDirections keeps arrows between packages pointing one way.
func TestImportDirections(t *testing.T) {
	t.Parallel()
	for dir, imports := range importsByFolder(t) {
		for _, d := range directions {
			if !below(dir, d.from) || below(dir, d.except) {
				continue
			}
			for _, imp := range imports {
				for _, not := range d.not {
					bad := imp == not || strings.HasPrefix(imp, strings.TrimSuffix(not, "/")+"/")
					require.False(t, bad, "%s imports %s: %s", dir, imp, d.why)
				}
			}
		}
	}
}

// TestPurePackagesImportNothingImpure covers direct imports only: Prometheus'
// parser itself reaches os and net.
func TestPurePackagesImportNothingImpure(t *testing.T) {
	t.Parallel()
	folders := importsByFolder(t)
	for _, dir := range pure {
		require.NotEmpty(t, folders[dir], "pure package %s", dir)
		for _, imp := range folders[dir] {
			require.NotContains(t, impure, imp, "%s is pure", dir)
		}
	}
}

// TestPackagesAreIntroduced demands one package comment for every package.
func TestPackagesAreIntroduced(t *testing.T) {
	t.Parallel()
	docs := map[string]int{}
	walkGo(t, func(dir, file string) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
		require.NoError(t, err)
		n := 0
		if f.Doc != nil {
			n = 1
		}
		docs[dir] += n
	})
	for dir, n := range docs {
		if strings.HasPrefix(dir, "proto/") && strings.HasSuffix(dir, "/v1") {
			continue // generated
		}
		require.Equal(t, 1, n, "package comments in %s", dir)
	}
}

func importsByFolder(t *testing.T) map[string][]string {
	t.Helper()
	folders := map[string][]string{}
	walkGo(t, func(dir, file string) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			folders[dir] = append(folders[dir], strings.TrimPrefix(imp, module))
		}
	})
	return folders
}

// walkGo visits every Go file that is not a test.
func walkGo(t *testing.T, visit func(dir, file string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (strings.HasPrefix(e.Name(), ".") && p != "." || e.Name() == "testdata" || e.Name() == "tools") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go") {
			visit(path.Dir(filepath.ToSlash(p)), p)
		}
		return nil
	})
	require.NoError(t, err)
	_, err = os.Stat("go.mod")
	require.NoError(t, err, "the test runs at the root of the repository")
}

func below(dir string, folders []string) bool {
	for _, f := range folders {
		if f == "." || dir == f || strings.HasPrefix(dir, f+"/") {
			return true
		}
	}
	return false
}
