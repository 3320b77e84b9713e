package app

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/tocsin-rules/tocsin/collector"
)

const (
	// watchPoll is how often the configuration is compared even if nobody
	// reports a change, as some network file systems don't, and how often one
	// that is not good enough is tried again: the files that it names may have
	// come.
	watchPoll = 15 * time.Second
	// watchSettle is how long a configuration must be left alone before it is
	// read, so that it isn't read half-written.
	watchSettle = 200 * time.Millisecond
)

// watch notices that a configuration is another one than before.
type watch struct {
	source collector.Source
	// events tell that something may have changed.
	events <-chan struct{}
	last   string
}

// newWatch takes what is there now as known.
func newWatch(s collector.Source, events <-chan struct{}) *watch {
	return &watch{source: s, events: events, last: s.Fingerprint()}
}

// run calls changed for every change until ctx ends, and unchanged for every
// poll that finds none.
func (w *watch) run(ctx context.Context, changed, unchanged func()) {
	poll := time.NewTicker(watchPoll)
	defer poll.Stop()
	settle := time.NewTimer(watchSettle)
	defer settle.Stop()
	for {
		polled := false
		select {
		case <-ctx.Done():
			return
		case <-w.events:
			settle.Reset(watchSettle)
			continue
		case <-poll.C:
			polled = true
		case <-settle.C:
		}
		now := w.source.Fingerprint()
		switch {
		case now != w.last:
			w.last = now
			changed()
		case polled:
			unchanged()
		}
	}
}

// fileEvents watches the directory, because a mounted ConfigMap changes by the
// replacement of a link beside the file. Where the system has no watch left to
// give, polling has to do.
func fileEvents(ctx context.Context, file string, logger *slog.Logger) <-chan struct{} {
	fw, err := fsnotify.NewWatcher()
	if err == nil {
		err = fw.Add(filepath.Dir(file))
	}
	if err != nil {
		logger.Warn("configuration file is polled, watching it failed", "file", file, "err", err)
		return nil
	}
	events := make(chan struct{}, 1)
	go func() {
		defer func() { _ = fw.Close() }()
		for {
			select {
			case <-ctx.Done():
				return
			case <-fw.Events:
				notify(events)
			}
		}
	}()
	return events
}

// notify does not wait for whoever is told.
func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
