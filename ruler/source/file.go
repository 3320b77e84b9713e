package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// file is a rule file as it is and as it was when it was last good. Values are
// not changed once a load has ended.
type file struct {
	path string
	// hash is that of the content that parsed and parseErr are from.
	hash     [sha256.Size]byte
	parsed   []rule.Group
	parseErr error
	// good tells that goodGroups run; goodHash is the content's that they are
	// from.
	good       bool
	goodHash   [sha256.Size]byte
	goodGroups []rule.Group
	// err is why parsed does not run.
	err   error
	since time.Time
}

// unchanged returns the file for a load that can't see it.
func (f *file) unchanged() *file {
	next := *f
	return &next
}

// refresh returns the file as it is now; f is nil if it is new. Content that
// was seen before is not parsed again.
func (f *file) refresh(found File, cfg Config) *file {
	next := &file{path: found.Path}
	if f != nil {
		*next = *f
	}
	content, err := found.content(cfg.MaxFileBytes)
	hash := sha256.Sum256(content)
	switch {
	case err != nil:
		next.hash, next.parsed, next.parseErr = [sha256.Size]byte{}, nil, err
	case f != nil && hash == f.hash:
	case f != nil && f.good && hash == f.goodHash:
		next.hash, next.parsed, next.parseErr = hash, f.goodGroups, nil
	default:
		groups, errs := rule.Parse(found.Name, content, cfg.Rules)
		next.hash, next.parsed, next.parseErr = hash, groups, errors.Join(errs...)
	}
	next.err = next.parseErr
	return next
}

// ReadFile reads a rule file of at most maxBytes.
func ReadFile(path string, maxBytes int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > maxBytes {
		return nil, tooLarge(path, maxBytes)
	}
	return content, nil
}

func tooLarge(path string, maxBytes int64) error {
	return fmt.Errorf("rule file %s has more than max-file-bytes (%d)", path, maxBytes)
}

// settle records the outcome of a load.
func (f *file) settle(now time.Time) {
	switch {
	case f.err == nil:
		f.good, f.goodHash, f.goodGroups, f.since = true, f.hash, f.parsed, time.Time{}
	case f.since.IsZero():
		f.since = now
	}
}

// admit decides which files run as they are now: those whose groups neither
// collide with another file's nor go beyond the limit. The others get an error
// and run as they last did. What is not changed goes first, then the changed
// files by path.
func admit(files map[string]*file, maxRules int) *rule.Set {
	paths := slices.Sorted(maps.Keys(files))
	for {
		set, again := attempt(files, paths, maxRules)
		if !again {
			return set
		}
	}
}

// attempt is one try of admit. It must be repeated if a file has to run as it
// last did, since a changed file before it may have got what it needs for that.
// The last good versions of all files never collide: they ran together.
func attempt(files map[string]*file, paths []string, maxRules int) (_ *rule.Set, again bool) {
	set := &rule.Set{}
	rules := 0
	add := func(f *file, groups []rule.Group) error {
		n := rule.CountRules(groups)
		if rules+n > maxRules {
			return fmt.Errorf("the %d rules of %s are beyond max-rules (%d) of all files", n, f.path, maxRules)
		}
		if err := set.Add(f.path, groups); err != nil {
			return err
		}
		rules += n
		return nil
	}
	var changed []*file
	for _, path := range paths {
		f := files[path]
		switch {
		case f.err == nil && (!f.good || f.hash != f.goodHash):
			changed = append(changed, f)
		case f.good:
			if err := add(f, f.goodGroups); err != nil {
				f.err = err
			}
		}
	}
	for _, f := range changed {
		f.err = add(f, f.parsed)
		if f.err != nil && f.good {
			return nil, true
		}
	}
	return set, false
}
