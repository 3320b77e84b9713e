package source

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/require"
)

// start runs the loader and returns what it delivers.
func (t *tree) start(run func(context.Context, func(Snapshot)) error) <-chan Snapshot {
	out := make(chan Snapshot, 100)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- run(ctx, func(s Snapshot) { out <- s }) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return out
}

// await returns the first snapshot with the groups; others may come before it
// when a file is seen half written.
func await(t *tree, snapshots <-chan Snapshot, keys ...string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case s := <-snapshots:
			if slices.Equal(keys, placesOf(s.Groups)) {
				return
			}
		case <-deadline:
			require.Fail(t, "no snapshot with the expected groups", keys)
		}
	}
}

// TestChangesAreNoticed uses the system's notifications: the poll is further
// away than the test's deadline.
func TestChangesAreNoticed(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) { c.PollInterval, c.Debounce = time.Hour, time.Millisecond })
	tr.write("a.yml", "one")
	snapshots := tr.start(tr.loader.Run)
	await(tr, snapshots, "a/one")
	tr.write("a.yml", "two")
	await(tr, snapshots, "a/two")
	tr.write("new/sub/b.yml", "one")
	await(tr, snapshots, "a/two", "new/sub/b/one")
	tr.write("new/sub/b.yml", "two")
	await(tr, snapshots, "a/two", "new/sub/b/two")
	tr.remove("new")
	await(tr, snapshots, "a/two")
}

func TestASwappedConfigMapIsNoticed(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) { c.PollInterval, c.Debounce = time.Hour, time.Millisecond })
	tr.write("..1/a.yml", "one")
	require.NoError(t, os.Symlink("..1", tr.path("..data")))
	require.NoError(t, os.Symlink("..data/a.yml", tr.path("a.yml")))
	snapshots := tr.start(tr.loader.Run)
	await(tr, snapshots, "a/one")
	tr.write("..2/a.yml", "two")
	require.NoError(t, os.Symlink("..2", tr.path("..tmp")))
	require.NoError(t, os.Rename(tr.path("..tmp"), tr.path("..data")))
	await(tr, snapshots, "a/two")
}

func TestASingleFileThatIsReplacedIsNoticed(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) {
		c.Paths = []string{filepath.Join(c.Paths[0], "a.yml")}
		c.PollInterval, c.Debounce = time.Hour, time.Millisecond
	})
	tr.write("a.yml", "one")
	snapshots := tr.start(tr.loader.Run)
	await(tr, snapshots, "a/one")
	tr.write("b.yml", "two")
	require.NoError(t, os.Rename(tr.path("b.yml"), tr.path("a.yml")))
	await(tr, snapshots, "a/two")
}

func TestRunFailsIfItsPathsCannotBeRead(t *testing.T) {
	t.Parallel()
	tr := newTree(t, func(c *Config) { c.Paths = []string{filepath.Join(c.Paths[0], "missing")} })
	require.ErrorIs(t, tr.loader.Run(t.Context(), func(Snapshot) {}), os.ErrNotExist)
}

// silent is a run without notifications but those of the test.
func (t *tree) silent(events <-chan fsnotify.Event) func(context.Context, func(Snapshot)) error {
	return func(ctx context.Context, deliver func(Snapshot)) error {
		return t.loader.loop(ctx, &watcher{events: events}, deliver)
	}
}

func TestPollingSeesChangesAndDeliversNothingWithoutOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, nil)
		tr.write("a.yml", "one")
		snapshots := tr.start(tr.silent(nil))
		synctest.Wait()
		require.Equal(t, uint64(1), (<-snapshots).Generation)
		tr.write("a.yml", "two")
		<-time.After(29 * time.Second)
		synctest.Wait()
		require.Empty(t, snapshots)
		<-time.After(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"a/two"}, placesOf((<-snapshots).Groups))
		<-time.After(10 * time.Minute)
		require.Empty(t, snapshots)
	})
}

func TestNotificationsAreAwaitedUntilTheyPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, nil)
		tr.write("a.yml", "one")
		events := make(chan fsnotify.Event)
		snapshots := tr.start(tr.silent(events))
		synctest.Wait()
		<-snapshots
		tr.write("a.yml", "two")
		for range 2 {
			events <- fsnotify.Event{}
			<-time.After(400 * time.Millisecond)
		}
		require.Empty(t, snapshots)
		<-time.After(101 * time.Millisecond)
		synctest.Wait()
		require.Len(t, snapshots, 1)
	})
}

func TestNotificationsThatNeverPauseAreNotAwaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, nil)
		tr.write("a.yml", "one")
		events := make(chan fsnotify.Event)
		snapshots := tr.start(tr.silent(events))
		synctest.Wait()
		<-snapshots
		tr.write("a.yml", "two")
		for range 11 {
			events <- fsnotify.Event{}
			<-time.After(100 * time.Millisecond)
		}
		synctest.Wait()
		require.Len(t, snapshots, 1)
	})
}

func TestReloadDeliversAtOnceAlsoWhatLoadFoundBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, nil)
		tr.write("a.yml", "one")
		snapshots := tr.start(tr.silent(nil))
		synctest.Wait()
		<-snapshots
		tr.write("a.yml", "two")
		loaded := tr.load()
		tr.loader.Reload()
		tr.loader.Reload()
		synctest.Wait()
		require.Len(t, snapshots, 1)
		require.Equal(t, loaded, <-snapshots)
	})
}
