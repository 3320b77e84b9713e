// Package source finds rule files and keeps their groups up to date: from
// directories, single files and patterns, as they are on a disk or mounted
// from a ConfigMap, and from ConfigMaps that the Kubernetes API shows.
//
// A bad update changes nothing: a file that can't be read, does not parse, or
// defines a group that another file has keeps its last good version running,
// and the error is in the Snapshot. A file that was never good is left out. A
// file that is deleted takes its groups with it; one whose directory can't be
// read any more, or whose API server is away, does not.
//
// It never decides what a rule means, which is ruler/rule's part, nor what runs
// where. A Loader is safe for concurrent use; Run calls its callback from one
// goroutine.
package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/kubeapi"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// Config says where rules are and how much of them there may be.
type Config struct {
	// Paths are directories, files and patterns as in path/filepath.Match. Of
	// directories, all .yml, .yaml and .json files are read, at any depth, but
	// nothing whose name starts with a dot. The names of files in keys of
	// groups are relative to the directory, or to what is before the first
	// wildcard of a pattern; of a single file it is the base name.
	Paths []string
	// ConfigMaps are taken beside the files at Paths.
	ConfigMaps []ConfigMaps
	// Rules says how files become groups.
	Rules rule.Options
	// PollInterval is the time between two looks at all files. Most changes
	// are seen sooner, by notification.
	PollInterval time.Duration
	// Debounce is how long notifications must pause before files are read.
	Debounce time.Duration
	// MaxFileBytes, MaxFiles and MaxRules bound the size of a file, the number
	// of files and the number of rules in all of them.
	MaxFileBytes int64
	MaxFiles     int
	MaxRules     int
}

// DefaultConfig returns everything but where rules are.
func DefaultConfig() Config {
	return Config{
		PollInterval: 30 * time.Second,
		Debounce:     500 * time.Millisecond,
		MaxFileBytes: 16 << 20,
		MaxFiles:     10_000,
		MaxRules:     500_000,
	}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	errs := []error{c.Rules.Validate()}
	for _, p := range c.Paths {
		if _, err := filepath.Match(p, ""); err != nil || p == "" {
			errs = append(errs, fmt.Errorf("rule path %q is neither a path nor a pattern", p))
		}
	}
	for _, m := range c.ConfigMaps {
		errs = append(errs, m.Validate())
	}
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"poll-interval", int64(c.PollInterval)},
		{"debounce", int64(c.Debounce)},
		{"max-file-bytes", c.MaxFileBytes},
		{"max-files", int64(c.MaxFiles)},
		{"max-rules", int64(c.MaxRules)},
	} {
		if limit.value <= 0 {
			errs = append(errs, fmt.Errorf("%s of the rule source must be more than 0", limit.name))
		}
	}
	return errors.Join(errs...)
}

// Snapshot is what runs, and what is wrong with the files that it is from.
type Snapshot struct {
	// Generation counts from 1 and grows whenever groups or errors change.
	Generation uint64
	// Groups are sorted by key, which is unique. Those of an unchanged file
	// are the same values as in the snapshot before.
	Groups []rule.Group
	// Errors are sorted by file.
	Errors []FileError
	// Files is the number of files that groups are from.
	Files int
}

// FileError is why a file does not run as it is, or why a directory can't be
// looked at.
type FileError struct {
	// File is the path of the file or directory.
	File string
	// Err has one *rule.Error for each fault if the file does not parse.
	Err error
	// Since is when the file was first found at fault after it was good.
	Since time.Time
}

// Loader reads rule files. Make one with New.
type Loader struct {
	cfg    Config
	logger *slog.Logger
	reload chan struct{}
	// changed tells that a follower has something new.
	changed   chan struct{}
	followers []*kubeapi.ConfigMaps

	mu     sync.Mutex
	files  map[string]*file
	faults map[string]FileError
	last   Snapshot
	// dirs are those that last was found in.
	dirs        []string
	fingerprint string
}

// New returns a Loader that has not read anything yet.
func New(cfg Config, logger *slog.Logger) (*Loader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Loader{
		cfg:     cfg,
		logger:  logger,
		reload:  make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		files:   map[string]*file{},
		faults:  map[string]FileError{},
	}
	for _, m := range cfg.ConfigMaps {
		f, err := kubeapi.Follow(kubeapi.Selection(m), l.noteChange, logger)
		if err != nil {
			return nil, fmt.Errorf("ConfigMaps with %s: %w", m.LabelSelector, err)
		}
		l.followers = append(l.followers, f)
	}
	return l, nil
}

// noteChange tells Run that there is something new, without waiting for it.
func (l *Loader) noteChange() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Incomplete is an error as long as there are ConfigMaps that were never read,
// so that nobody knows what groups there are.
func (l *Loader) Incomplete() error {
	var errs []error
	for _, f := range l.followers {
		if err := f.Unread(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

// Load looks at all files now. Bad files are in the snapshot's Errors; they are
// not an error of Load. Only the first Load has errors of its own, for a path
// that can't be read at all, and any Load that of ctx.
func (l *Loader) Load(ctx context.Context) (Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := list(l.cfg.Paths, l.followers, l.cfg.MaxFiles)
	if l.last.Generation == 0 {
		if err := found.rootError(); err != nil {
			return Snapshot{}, err
		}
	}
	files, err := l.read(ctx, found)
	if err != nil {
		return Snapshot{}, err
	}
	now := time.Now()
	set := admit(files, l.cfg.MaxRules)
	for _, f := range files {
		f.settle(now)
	}
	l.files, l.dirs = files, found.dirs
	l.keepFaults(found.faults, now)
	l.publish(set)
	return l.last, nil
}

// read returns the files as they are now, those that can't be seen as they
// were.
func (l *Loader) read(ctx context.Context, found listing) (map[string]*file, error) {
	files := make(map[string]*file, len(found.files))
	for _, path := range slices.Sorted(maps.Keys(l.files)) {
		if found.hides(path) {
			files[path] = l.files[path].unchanged()
		}
	}
	for _, f := range found.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !found.hides(f.Path) {
			files[f.Path] = l.files[f.Path].refresh(f, l.cfg)
		}
	}
	return files, nil
}

// keepFaults takes over since when known faults are there.
func (l *Loader) keepFaults(faults []fault, now time.Time) {
	known := l.faults
	l.faults = make(map[string]FileError, len(faults))
	for _, f := range faults {
		since := now
		if old, ok := known[f.path]; ok {
			since = old.Since
		}
		l.faults[f.path] = FileError{File: f.path, Err: f.err, Since: since}
	}
}

// publish makes the next snapshot if anything is different.
func (l *Loader) publish(set *rule.Set) {
	next := Snapshot{Generation: l.last.Generation + 1, Groups: set.Groups()}
	var print strings.Builder
	for _, path := range slices.Sorted(maps.Keys(l.files)) {
		f := l.files[path]
		if f.good {
			next.Files++
			fmt.Fprintf(&print, "%q %x\n", path, f.goodHash)
		}
		if _, hidden := l.faults[path]; f.err != nil && !hidden {
			next.Errors = append(next.Errors, FileError{File: path, Err: f.err, Since: f.since})
		}
	}
	for _, fault := range l.faults {
		next.Errors = append(next.Errors, fault)
	}
	slices.SortFunc(next.Errors, func(a, b FileError) int { return strings.Compare(a.File, b.File) })
	for _, e := range next.Errors {
		fmt.Fprintf(&print, "%q %q\n", e.File, e.Err)
	}
	if l.last.Generation > 0 && print.String() == l.fingerprint {
		return
	}
	l.last, l.fingerprint = next, print.String()
}
