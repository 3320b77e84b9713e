package app

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/prometheus/config"
)

const (
	// watchPoll is how often the file is compared even if the system reports
	// no change, as some network file systems don't.
	watchPoll = 15 * time.Second
	// watchSettle is how long a file must be left alone before it is read, so
	// that it isn't read half-written.
	watchSettle = 200 * time.Millisecond
)

// fileWatch notices that a configuration file, or a file of scrape
// configurations that it names, has other content than before.
type fileWatch struct {
	file   string
	logger *slog.Logger
	last   string
}

// newFileWatch takes the content that the file has now as the known one.
func newFileWatch(file string, logger *slog.Logger) *fileWatch {
	w := &fileWatch{file: file, logger: logger}
	w.last = w.fingerprint()
	return w
}

// run calls changed for every change until ctx ends.
func (w *fileWatch) run(ctx context.Context, changed func()) error {
	poll := time.NewTicker(watchPoll)
	defer poll.Stop()
	settle := time.NewTimer(watchSettle)
	defer settle.Stop()
	events, stop := w.subscribe()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			settle.Reset(watchSettle)
			continue
		case <-poll.C:
		case <-settle.C:
		}
		if now := w.fingerprint(); now != w.last {
			w.last = now
			changed()
		}
	}
}

// subscribe watches the directory, because a mounted ConfigMap changes by the
// replacement of a link beside the file. Where the system has no watch left to
// give, polling has to do.
func (w *fileWatch) subscribe() (<-chan fsnotify.Event, func()) {
	fw, err := fsnotify.NewWatcher()
	if err == nil {
		err = fw.Add(filepath.Dir(w.file))
	}
	if err != nil {
		w.logger.Warn("configuration file is polled, watching it failed", "file", w.file, "err", err)
		return nil, func() {}
	}
	return fw.Events, func() { _ = fw.Close() }
}

// fingerprint is empty for a file that can't be read; its reload then says
// why.
func (w *fileWatch) fingerprint() string {
	sum, err := config.GenerateChecksum(w.file)
	if err != nil {
		return ""
	}
	return sum
}
