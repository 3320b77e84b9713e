// Package program builds the real servers that tests talk to, where Debian has
// none of the version: from a go.mod of their own below tools, so that the
// product does not depend on them. It never runs outside tests.
//
// Binaries are kept in the user's cache directory, below tocsin/programs, by
// what they are built from. The first build of a large one takes minutes.
package program

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Program is a main package of a module below tools.
type Program struct {
	// Module is the folder of the go.mod, below tools.
	Module string
	// Package is the import path of the main package.
	Package string
	Tags    []string
	// LinkerFlags are for go build's -ldflags, as to set a version.
	LinkerFlags string
}

// Thanos is Thanos with all its components. Without the tag its sidecar
// panics.
func Thanos() Program {
	return Program{Module: "thanos", Package: "github.com/thanos-io/thanos/cmd/thanos", Tags: []string{"slicelabels"}}
}

// kubernetes is the version in tools/controlplane/go.mod.
const kubernetes = "v1.36.3"

// Etcd is the store of a Kubernetes API server.
func Etcd() Program {
	return Program{Module: "controlplane", Package: "go.etcd.io/etcd/server/v3"}
}

// KubeAPIServer is the API server of Kubernetes.
func KubeAPIServer() Program { return kubernetesProgram("kube-apiserver") }

// KubeControllerManager is what makes the pods of Deployments, DaemonSets and
// StatefulSets.
func KubeControllerManager() Program { return kubernetesProgram("kube-controller-manager") }

// KubeScheduler is what puts pods on nodes.
func KubeScheduler() Program { return kubernetesProgram("kube-scheduler") }

// kubernetesProgram is a program of Kubernetes. They ask each other for their
// versions, which only the linker can tell them.
func kubernetesProgram(name string) Program {
	const variables = "k8s.io/component-base/version."
	return Program{
		Module: "controlplane", Package: "k8s.io/kubernetes/cmd/" + name,
		LinkerFlags: "-X " + variables + "gitVersion=" + kubernetes + " -X " + variables + "gitMajor=1 -X " + variables + "gitMinor=36",
	}
}

// Kubectl is the command line of Kubernetes.
func Kubectl() Program { return kubernetesProgram("kubectl") }

// Kwok plays the kubelets of nodes that do not exist: it says that their pods
// run, and runs nothing.
func Kwok() Program {
	return Program{Module: "controlplane", Package: "sigs.k8s.io/kwok/cmd/kwok"}
}

// Helm renders and checks the chart.
func Helm() Program { return Program{Module: "helm", Package: "helm.sh/helm/v4/cmd/helm"} }

// Prometheus is the server of the version that the product is built from,
// without service discovery and web page.
func Prometheus() Program {
	return Program{Module: "prometheus", Package: "github.com/prometheus/prometheus/cmd/prometheus", Tags: []string{"remove_all_sd"}}
}

// Promtool is the tool of that version.
func Promtool() Program {
	return Program{Module: "promtool", Package: "github.com/prometheus/prometheus/cmd/promtool"}
}

// Build returns the path of the program's binary, which is built unless it has
// been before. With -short the test is skipped.
func (p Program) Build(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	module := filepath.Join(root(t), "tools", p.Module)
	binary := filepath.Join(cache(t), p.fingerprint(t, module))
	defer lock(t, binary+".lock")()
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	t.Logf("building %s, which is not in the cache", p.Package)
	unfinished := binary + ".tmp"
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w "+p.LinkerFlags, "-tags", strings.Join(p.Tags, ","), "-o", unfinished, p.Package)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "build %s:\n%s", p.Package, out)
	require.NoError(t, os.Rename(unfinished, binary))
	return binary
}

// fingerprint is a file name that says what the binary is built from.
func (p Program) fingerprint(t testing.TB, module string) string {
	t.Helper()
	h := sha256.New()
	fmt.Fprintf(h, "%s {%s %s %v}\n%s", runtime.Version(), p.Module, p.Package, p.Tags, p.LinkerFlags)
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, name))
		require.NoError(t, err)
		h.Write(content)
	}
	return fmt.Sprintf("%s-%x", filepath.Base(p.Package), h.Sum(nil)[:8])
}

func cache(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	require.NoError(t, err)
	dir = filepath.Join(dir, "tocsin", "programs")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

// root is the folder of the repository.
func root(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	require.NoError(t, err)
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// lock makes test processes build one after the other.
func lock(t testing.TB, name string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	return func() { _ = f.Close() }
}
