package kubelet

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Build builds programs of this repository as they are in images: they need
// nothing of the system. It returns their paths by their names. Only linking
// differs from an ordinary build, so that what is compiled is shared with it.
func Build(t testing.TB, names ...string) map[string]string {
	t.Helper()
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	require.NoError(t, err)
	dir, programs := t.TempDir(), map[string]string{}
	for _, name := range names {
		programs[name] = filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-ldflags", "-s -w -linkmode=external -extldflags=-static", "-o", programs[name], "./cmd/"+name)
		cmd.Dir = filepath.Dir(strings.TrimSpace(string(gomod)))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "build %s:\n%s", name, out)
	}
	return programs
}
