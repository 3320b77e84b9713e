package alertmanager

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	// persistInterval is how long a change may be in memory alone.
	persistInterval = time.Second
	// cleanInterval is the time between two removals of what is older than
	// the retention.
	cleanInterval = 15 * time.Minute
)

// persistent is state that Alertmanager keeps in memory: the silences or the
// notification log.
type persistent interface {
	// GC removes what is older than the retention.
	GC() (int, error)
	// Snapshot writes the whole state.
	Snapshot(io.Writer) (int64, error)
	// SetBroadcast sets what is called after every change. It is meant for
	// gossip, which this process doesn't do.
	SetBroadcast(func([]byte))
}

// maintenance calls do every interval and once more when stop is closed; it
// is a method of the state.
type maintenance func(interval time.Duration, file string, stop <-chan struct{}, do func() (int64, error))

// keeper writes state to its file soon after it changes.
type keeper struct {
	state   persistent
	file    string
	changed atomic.Bool
	// Only Maintenance's goroutine uses the rest.
	size    int64
	cleaned time.Time
}

// keep returns what keeps state in file until stop is closed, and writes it
// once more then.
func keep(state persistent, m maintenance, file string, stop <-chan struct{}) func() {
	k := &keeper{state: state, file: file, cleaned: time.Now()}
	state.SetBroadcast(func([]byte) { k.changed.Store(true) })
	return func() { m(persistInterval, file, stop, k.maintain) }
}

// maintain returns the size of the file.
func (k *keeper) maintain() (int64, error) {
	if time.Since(k.cleaned) >= cleanInterval {
		k.cleaned = time.Now()
		if _, err := k.state.GC(); err != nil {
			return k.size, fmt.Errorf("remove what is past its retention in %q: %w", k.file, err)
		}
		k.changed.Store(true)
	}
	if !k.changed.Swap(false) {
		return k.size, nil
	}
	size, err := k.write()
	if err != nil {
		k.changed.Store(true)
		return k.size, fmt.Errorf("write %q: %w", k.file, err)
	}
	k.size = size
	return size, nil
}

// write replaces the file at once, so that a crash leaves the old or the new.
func (k *keeper) write() (int64, error) {
	f, err := os.CreateTemp(filepath.Dir(k.file), filepath.Base(k.file)+".*")
	if err != nil {
		return 0, err
	}
	size, err := k.state.Snapshot(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), k.file)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(f.Name()))
	}
	return size, nil
}
