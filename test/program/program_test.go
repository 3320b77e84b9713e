package program_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/test/program"
)

// TestPrograms builds everything, which the tests that need it would do one by
// one, and asks each for its version.
func TestPrograms(t *testing.T) {
	for _, p := range []program.Program{
		program.Thanos(), program.Etcd(), program.KubeAPIServer(), program.KubeControllerManager(), program.KubeScheduler(), program.Kwok(),
		program.Prometheus(), program.Promtool(),
	} {
		requireVersion(t, p, "--version")
	}
	requireVersion(t, program.Kubectl(), "version", "--client")
	requireVersion(t, program.Helm(), "version")
}

func requireVersion(t *testing.T, p program.Program, args ...string) {
	t.Helper()
	out, err := exec.Command(p.Build(t), args...).CombinedOutput()
	require.NoError(t, err, "%s: %s", p.Package, out)
	require.Contains(t, string(out), ".", p.Package)
}
