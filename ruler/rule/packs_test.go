package rule

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRealPacksLoad reads rule packs as their projects publish them. None of
// their files is at fault.
func TestRealPacksLoad(t *testing.T) {
	t.Parallel()
	_, here, _, ok := runtime.Caller(0)
	require.True(t, ok)
	root := filepath.Join(filepath.Dir(here), "..", "..", "..", "shared", "rules")
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no rule packs at ../shared/rules beside the repository: %s", err)
	}
	for _, want := range []packSize{
		{"awesome-prometheus-alerts", 112, 112, 954},
		{"kube-prometheus", 8, 38, 234},
		{"sloth", 5, 24, 136},
	} {
		t.Run(want.pack, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, loadPack(t, root, want.pack))
		})
	}
}

type packSize struct {
	pack                 string
	files, groups, rules int
}

func loadPack(t *testing.T, root, pack string) packSize {
	var set Set
	files := 0
	err := fs.WalkDir(os.DirFS(root), pack, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, "ml") {
			return err
		}
		files++
		content, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		groups, errs := Parse(name, content, Options{})
		require.Empty(t, errs, name)
		require.NotEmpty(t, groups, name)
		return set.Add(name, groups)
	})
	require.NoError(t, err)
	return packSize{pack: pack, files: files, groups: len(set.Groups()), rules: CountRules(set.Groups())}
}
