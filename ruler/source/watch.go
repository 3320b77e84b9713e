package source

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxUnquiet bounds how long changes that never pause put off a look at them.
const maxUnquiet = time.Second

// Run hands every new snapshot to deliver, beginning with the first that is not
// Incomplete, until ctx ends. Its error is that of the first Load.
//
// Files are looked at on notifications from the file system and from the
// Kubernetes API, on Reload and after every PollInterval, which sees what has
// no notification: symbolic links into other directories, network file systems.
func (l *Loader) Run(ctx context.Context, deliver func(Snapshot)) error {
	w := newWatcher(l.logger)
	defer w.close()
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, f := range l.followers {
		following.Go(func() { f.Run(ctx) })
	}
	return l.loop(ctx, w, deliver)
}

// Reload asks Run to look at all files now, without waiting for it. To learn
// the result, call Load as well.
func (l *Loader) Reload() {
	select {
	case l.reload <- struct{}{}:
	default:
	}
}

func (l *Loader) loop(ctx context.Context, w *watcher, deliver func(Snapshot)) error {
	poll := time.NewTicker(l.cfg.PollInterval)
	defer poll.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	var delivered uint64
	var noticed time.Time // first change since the last look
	notice := func() {
		if noticed.IsZero() {
			noticed = time.Now()
		}
		quiet.Reset(min(l.cfg.Debounce, max(0, maxUnquiet-time.Since(noticed))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.events:
			notice()
			continue
		case <-l.changed:
			notice()
			continue
		case err := <-w.errors:
			l.logger.Warn("notification of rule file changes failed", "err", err)
			notice()
			continue
		case <-quiet.C:
		case <-poll.C:
		case <-l.reload:
		}
		noticed = time.Time{}
		snapshot, err := l.Load(ctx)
		if err != nil {
			return ignoreCanceled(ctx, err)
		}
		if w.follow(l.directories()) {
			// What changed there before it was followed has not been noticed.
			notice()
		}
		if snapshot.Generation > delivered && l.Incomplete() == nil {
			delivered = snapshot.Generation
			l.logErrors(snapshot)
			deliver(snapshot)
		}
	}
}

func ignoreCanceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (l *Loader) directories() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirs
}

func (l *Loader) logErrors(s Snapshot) {
	for _, e := range s.Errors {
		l.logger.Warn("rule file does not load, its last good version is kept", "file", e.File, "err", e.Err)
	}
}

// watcher notices changes in directories. One goroutine uses it.
type watcher struct {
	// events and errors are nil where the system has no notifications.
	events <-chan fsnotify.Event
	errors <-chan error

	fs     *fsnotify.Watcher
	logger *slog.Logger
}

// newWatcher returns a watcher that follows nothing yet. Without notifications
// it stays silent, and polling has to do.
func newWatcher(logger *slog.Logger) *watcher {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		logger.Warn("rule files are polled, since notification of changes is not available", "err", err)
		return &watcher{}
	}
	return &watcher{events: fs.Events, errors: fs.Errors, fs: fs, logger: logger}
}

func (w *watcher) close() {
	if w.fs != nil {
		// Nothing depends on the outcome: the process or the test ends.
		_ = w.fs.Close()
	}
}

// follow makes dirs the directories that are watched and tells if there are
// new ones. A directory that can't be watched is tried again the next time;
// until then polling has to do for it.
func (w *watcher) follow(dirs []string) (grown bool) {
	if w.fs == nil {
		return false
	}
	// The system drops directories that are removed by itself.
	watched := map[string]bool{}
	for _, dir := range w.fs.WatchList() {
		watched[dir] = true
	}
	for _, dir := range dirs {
		if watched[dir] {
			delete(watched, dir)
			continue
		}
		if err := w.fs.Add(dir); err != nil {
			w.logger.Debug("rule directory is polled, since it can't be watched", "file", dir, "err", err)
			continue
		}
		grown = true
	}
	for dir := range watched {
		// It may be gone by now, which is as good.
		_ = w.fs.Remove(dir)
	}
	return grown
}
