package source

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// tree is a directory of rule files and a loader of it.
type tree struct {
	*testing.T

	dir    string
	loader *Loader
}

func newTree(t *testing.T, change func(*Config)) *tree {
	tr := &tree{T: t, dir: t.TempDir()}
	cfg := DefaultConfig()
	cfg.Paths = []string{tr.dir}
	if change != nil {
		change(&cfg)
	}
	var err error
	tr.loader, err = New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return tr
}

func (t *tree) path(name string) string { return filepath.Join(t.dir, name) }

// write makes a rule file with a group for each name.
func (t *tree) write(name string, groups ...string) {
	content := "groups:\n"
	for _, g := range groups {
		content += fmt.Sprintf("- {name: %s, rules: [{record: x, expr: 1}]}\n", g)
	}
	t.writeText(name, content)
}

func (t *tree) writeText(name, content string) {
	require.NoError(t, os.MkdirAll(filepath.Dir(t.path(name)), 0o755))
	require.NoError(t, os.WriteFile(t.path(name), []byte(content), 0o644))
}

func (t *tree) remove(name string) { require.NoError(t, os.RemoveAll(t.path(name))) }

func (t *tree) load() Snapshot {
	s, err := t.loader.Load(t.Context())
	require.NoError(t, err)
	return s
}

// expect loads and compares the places of groups and the faults, each as
// "file: part of the message".
func (t *tree) expect(places []string, faults ...string) Snapshot {
	t.Helper()
	s := t.load()
	require.Equal(t, places, placesOf(s.Groups), "errors: %v", s.Errors)
	require.Len(t, s.Errors, len(faults), "%v", s.Errors)
	for i, want := range faults {
		file, message, _ := strings.Cut(want, ": ")
		require.Equal(t, t.path(file), s.Errors[i].File)
		require.ErrorContains(t, s.Errors[i].Err, message)
		require.False(t, s.Errors[i].Since.IsZero())
	}
	return s
}

// placesOf names groups by where they are defined, as FILE/GROUP.
func placesOf(groups []rule.Group) []string {
	places := []string{}
	for _, g := range groups {
		places = append(places, strings.TrimSuffix(g.File, filepath.Ext(g.File))+"/"+g.Name)
	}
	slices.Sort(places)
	return places
}

func TestDirectoriesAreReadAtAnyDepthWithoutHiddenAndForeignFiles(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	tr.write("b.yml", "g")
	tr.write("a/b/c.yaml", "g")
	tr.writeText("d.json", `{"groups": [{"name": "g", "rules": []}]}`)
	tr.writeText("README.md", "no rules")
	tr.writeText(".hidden.yml", "no rules")
	tr.writeText(".git/x.yml", "no rules")
	s := tr.expect([]string{"a/b/c/g", "b/g", "d/g"})
	require.Equal(t, uint64(1), s.Generation)
	require.Equal(t, 3, s.Files)
	require.Equal(t, "a/b/c.yaml", s.Groups[0].File)
}

func TestABadFileKeepsItsLastGoodVersionWhileOthersUpdate(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	tr.write("a.yml", "one")
	tr.write("b.yml", "one")
	tr.writeText("never.yml", "groups: 5")
	first := tr.expect([]string{"a/one", "b/one"}, "never.yml: a list is needed")

	tr.writeText("a.yml", "groups: [")
	tr.write("b.yml", "two")
	second := tr.expect([]string{"a/one", "b/two"}, "a.yml: syntax", "never.yml: a list is needed")
	require.Equal(t, first.Errors[0].Since, second.Errors[1].Since)

	var fault *rule.Error
	require.ErrorAs(t, second.Errors[0].Err, &fault)
	require.Equal(t, "a.yml", fault.File)

	tr.write("a.yml", "three")
	tr.remove("never.yml")
	tr.expect([]string{"a/three", "b/two"})
}

func TestGenerationsCountChangesAndUnchangedFilesKeepTheirValues(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	tr.write("a.yml", "one")
	tr.write("b.yml", "one")
	first := tr.load()
	require.Equal(t, first, tr.load(), "nothing changed")

	tr.write("b.yml", "two")
	second := tr.load()
	require.Equal(t, first.Generation+1, second.Generation)
	require.Same(t, &first.Groups[0].Rules[0], &second.Groups[0].Rules[0])

	tr.writeText("b.yml", "groups: 5")
	third := tr.load()
	require.Equal(t, second.Generation+1, third.Generation, "a new error is a change")
	tr.write("b.yml", "two")
	fourth := tr.load()
	require.Equal(t, third.Generation+1, fourth.Generation)
	require.Same(t, &second.Groups[1].Rules[0], &fourth.Groups[1].Rules[0], "back to what runs")
}

func TestADeletedFileTakesItsGroupsAlong(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	tr.write("a.yml", "one")
	tr.write("sub/b.yml", "one")
	tr.expect([]string{"a/one", "sub/b/one"})
	tr.remove("sub")
	tr.expect([]string{"a/one"})
	tr.remove("a.yml")
	tr.expect([]string{})
}

func TestWhatVanishesWithoutBeingDeletedKeepsRunning(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) { c.Paths = []string{filepath.Join(c.Paths[0], "rules")} })
	tr.write("rules/a.yml", "one")
	tr.write("elsewhere/linked.yml", "one")
	require.NoError(t, os.Symlink("../elsewhere/linked.yml", tr.path("rules/link.yml")))
	both := []string{"a/one", "link/one"}
	tr.expect(both)

	tr.remove("elsewhere")
	tr.expect(both, "rules/link.yml: no such file")
	require.NoError(t, os.Rename(tr.path("rules"), tr.path("away")))
	tr.expect(both, "rules: no such file")
	require.NoError(t, os.Rename(tr.path("away"), tr.path("rules")))
	tr.remove("rules/link.yml")
	tr.expect([]string{"a/one"})
}

func TestAFileThatIsAPathItselfKeepsRunningWhenItIsGone(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) { c.Paths = []string{filepath.Join(c.Paths[0], "a.yml")} })
	_, err := tr.loader.Load(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	tr.write("a.yml", "one")
	tr.expect([]string{"a/one"})
	tr.remove("a.yml")
	tr.expect([]string{"a/one"}, "a.yml: no such file")
	require.NoError(t, os.Mkdir(tr.path("a.yml"), 0o755))
	tr.write("a.yml/b.yml", "two")
	tr.expect([]string{"b/two"})
}

func TestPathsThatCannotBeReadAreErrorsAtTheStart(t *testing.T) {
	t.Parallel()
	for name, missing := range map[string]string{
		"a directory":             "missing",
		"the base of a pattern":   "missing/*.yml",
		"a directory in a middle": "missing/rules",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t, func(c *Config) { c.Paths = append(c.Paths, filepath.Join(c.Paths[0], missing)) })
			_, err := tr.loader.Load(t.Context())
			require.ErrorIs(t, err, os.ErrNotExist)
			require.ErrorContains(t, err, tr.path("missing"))
		})
	}
}

func TestPatternsSelectFilesAndDirectories(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) {
		dir := c.Paths[0]
		c.Paths = []string{filepath.Join(dir, "team-*", "*.rules"), filepath.Join(dir, "all", "[ab]*"), filepath.Join(dir, "none*")}
	})
	tr.write("team-a/x.rules", "g")
	tr.write("team-a/x.yml", "g")
	tr.write("team-b/sub/x.rules", "g")
	tr.write("other/x.rules", "g")
	tr.write("all/a/deep/x.yml", "g")
	tr.write("all/b.yml", "g")
	tr.write("all/c.yml", "g")
	tr.write("all/.a.yml", "g")
	tr.expect([]string{"a/deep/x/g", "b/g", "team-a/x/g"})
}

// TestConfigMapMounts does what the kubelet does to a volume: files are links
// into ..data, which is a link to a directory with the time in its name that is
// swapped as a whole.
func TestConfigMapMounts(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	tr.write("..2026_01/a.yml", "one")
	require.NoError(t, os.Symlink("..2026_01", tr.path("..data")))
	require.NoError(t, os.Symlink("..data/a.yml", tr.path("a.yml")))
	s := tr.expect([]string{"a/one"})
	require.Equal(t, "a.yml", s.Groups[0].File)

	tr.write("..2026_02/a.yml", "two")
	tr.write("..2026_02/b.yml", "two")
	require.NoError(t, os.Symlink("..2026_02", tr.path("..data_tmp")))
	require.NoError(t, os.Rename(tr.path("..data_tmp"), tr.path("..data")))
	require.NoError(t, os.Symlink("..data/b.yml", tr.path("b.yml")))
	tr.remove("..2026_01")
	tr.expect([]string{"a/two", "b/two"})
}

func TestAFileReachedByTwoWaysIsReadOnce(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) { c.Paths = append(c.Paths, filepath.Join(c.Paths[0], "sub"), c.Paths[0]) })
	tr.write("sub/a.yml", "g")
	require.NoError(t, os.Symlink("sub/a.yml", tr.path("z.yml")))
	require.NoError(t, os.Symlink("..", tr.path("sub/loop")))
	require.Equal(t, 1, tr.load().Files)
}

// manifest makes a file whose groups have keys that do not depend on the file.
func (t *tree) manifest(name string, groups ...string) {
	content := `{"apiVersion": "monitoring.googleapis.com/v1", "kind": "GlobalRules", "metadata": {"name": "n"}, "spec": {"groups": [`
	for i, g := range groups {
		content += strings.Repeat(",", min(i, 1)) + fmt.Sprintf(`{"name": %q}`, g)
	}
	t.writeText(name, content+"]}}")
}

func TestAGroupStaysTheSameWhereverItsFileMoves(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	key := func() string {
		s := tr.load()
		require.Empty(t, s.Errors)
		require.NotEmpty(t, s.Groups)
		return s.Groups[0].Key
	}
	tr.write("a.yml", "cpu")
	was := key()
	require.NoError(t, os.Mkdir(tr.path("team"), 0o755))
	require.NoError(t, os.Rename(tr.path("a.yml"), tr.path("team/b.yaml")))
	require.Equal(t, was, key(), "a renamed file")
	tr.write("c.yml", "cpu", "zoom")
	tr.remove("team")
	require.Equal(t, was, key(), "a group that moved to another file")
	tr.write("d.yml", "cpu")
	s := tr.load()
	require.Equal(t, "file/c/cpu", s.Groups[0].Key, "two files with groups of one name")
	require.Equal(t, "file/d/cpu", s.Groups[1].Key)
	tr.remove("d.yml")
	require.Equal(t, was, key())
}

func TestGroupsOfTwoFilesDoNotCollide(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	manifest := tr.manifest
	manifest("a.yml", "one")
	manifest("b.yml", "one")
	s := tr.expect([]string{"a/one"}, "b.yml: is defined in "+tr.path("a.yml")+" and in "+tr.path("b.yml"))
	require.Equal(t, "a.yml", s.Groups[0].File, "the first path wins")

	manifest("b.yml", "two")
	tr.expect([]string{"a/one", "b/two"})
	manifest("a.yml", "two")
	tr.expect([]string{"a/one", "b/two"}, "a.yml: is defined in")

	manifest("b.yml", "one")
	s = tr.expect([]string{"a/two", "b/one"})
	require.Equal(t, "b.yml", s.Groups[0].File, "they changed places")

	manifest("c.yml", "three")
	tr.load()
	manifest("a.yml", "one")
	manifest("b.yml", "three")
	tr.expect([]string{"a/two", "b/one", "c/three"}, "a.yml: is defined in", "b.yml: is defined in")
}

// TestQuickEveryFileRunsAsItIsOrAsItWas edits files at random, good and bad and
// in each other's way. Whatever happens, keys are unique, a file without an
// error runs as it is, and one with an error as in the snapshot before.
func TestQuickEveryFileRunsAsItIsOrAsItWas(t *testing.T) {
	t.Parallel()
	tr := newTree(t, nil)
	rng := rand.New(rand.NewPCG(3, 4))
	content := map[string][]string{}
	before := map[string][]string{}
	for range 500 {
		for range 1 + rng.IntN(3) {
			name := fmt.Sprintf("%d.yml", rng.IntN(5))
			content[name] = []string{}
			for _, g := range rng.Perm(8)[:rng.IntN(4)] {
				content[name] = append(content[name], fmt.Sprint("globalrules/n/", g))
			}
			tr.manifest(name, strings.Fields(strings.ReplaceAll(strings.Join(content[name], " "), "globalrules/n/", ""))...)
		}
		s := tr.load()
		now := map[string][]string{}
		for i, g := range s.Groups {
			require.True(t, i == 0 || s.Groups[i-1].Key < g.Key, "unique and sorted")
			now[g.File] = append(now[g.File], g.Key)
		}
		bad := map[string]bool{}
		for _, e := range s.Errors {
			bad[filepath.Base(e.File)] = true
		}
		for name := range content {
			want := content[name]
			if bad[name] {
				want = before[name]
			}
			require.ElementsMatch(t, want, now[name], name)
		}
		before = now
	}
}

func TestBoundsHaveNames(t *testing.T) {
	t.Parallel()
	t.Run("a file is too large", func(t *testing.T) {
		t.Parallel()
		tr := newTree(t, func(c *Config) { c.MaxFileBytes = 100 })
		tr.write("a.yml", "g")
		tr.expect([]string{"a/g"})
		tr.write("a.yml", "g", "h", "i")
		tr.expect([]string{"a/g"}, "a.yml: more than max-file-bytes (100)")
	})
	t.Run("there are too many rules", func(t *testing.T) {
		t.Parallel()
		tr := newTree(t, func(c *Config) { c.MaxRules = 3 })
		tr.write("a.yml", "g", "h")
		tr.write("b.yml", "g")
		tr.expect([]string{"a/g", "a/h", "b/g"})
		tr.write("b.yml", "g", "h")
		tr.expect([]string{"a/g", "a/h", "b/g"}, "b.yml: beyond max-rules (3)")
		tr.write("a.yml", "g")
		tr.expect([]string{"a/g", "b/g", "b/h"})
	})
	t.Run("there are too many files", func(t *testing.T) {
		t.Parallel()
		tr := newTree(t, func(c *Config) { c.MaxFiles = 2 })
		tr.write("a.yml", "g")
		tr.write("b.yml", "g")
		tr.load()
		tr.write("aa.yml", "g")
		s := tr.load()
		require.Equal(t, []string{"a/g", "b/g"}, placesOf(s.Groups))
		require.ErrorContains(t, s.Errors[0].Err, "more than max-files (2)")

		fresh := newTree(t, func(c *Config) { c.Paths, c.MaxFiles = []string{tr.dir}, 2 })
		_, err := fresh.loader.Load(t.Context())
		require.ErrorContains(t, err, "more than max-files (2)")
	})
}

func TestValidateReportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Paths: []string{"[", "fine"},
		Rules: rule.Options{DefaultInterval: 1, Clusters: []labels.Labels{labels.FromStrings("cluster", "a")}},
	}, slog.New(slog.DiscardHandler))
	for _, want := range []string{`rule path "["`, "whole number of seconds", "scopes expressions", "poll-interval", "max-rules"} {
		require.ErrorContains(t, err, want)
	}
	var joined interface{ Unwrap() []error }
	require.ErrorAs(t, err, &joined)
}
