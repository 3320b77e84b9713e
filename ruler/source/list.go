package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tocsin-rules/tocsin/kubeapi"
)

// File is a rule file that was found.
type File struct {
	// Path opens it.
	Path string
	// Name is its path relative to the root that it was found under, with
	// slashes.
	Name string
	// read returns the content of what is not on a disk, nil otherwise.
	read func(maxBytes int64) ([]byte, error)
}

func (f File) content(maxBytes int64) ([]byte, error) {
	if f.read != nil {
		return f.read(maxBytes)
	}
	return ReadFile(f.Path, maxBytes)
}

// List returns the rule files at a path, which is a directory, a file or a
// pattern, sorted by path. It reads none of them.
func List(path string, maxFiles int) ([]File, error) {
	found := list([]string{path}, nil, maxFiles)
	errs := make([]error, 0, len(found.faults))
	for _, f := range found.faults {
		errs = append(errs, f.err)
	}
	return found.files, errors.Join(errs...)
}

// listing is what is at some paths.
type listing struct {
	files []File
	// dirs are all directories that were looked into.
	dirs   []string
	faults []fault
}

// fault is a path that can't be looked at: it hides what is there.
type fault struct {
	path string
	err  error
	root bool
}

func (l listing) rootError() error {
	var errs []error
	for _, f := range l.faults {
		if f.root {
			errs = append(errs, f.err)
		}
	}
	return errors.Join(errs...)
}

// hides tells if what is at path can't be known.
func (l listing) hides(path string) bool {
	return slices.ContainsFunc(l.faults, func(f fault) bool {
		rel, err := filepath.Rel(f.path, path)
		return err == nil && filepath.IsLocal(rel)
	})
}

func list(roots []string, followers []*kubeapi.ConfigMaps, maxFiles int) listing {
	l := &lister{maxFiles: maxFiles, seen: map[string]bool{}}
	for _, root := range roots {
		l.root(filepath.Clean(root))
	}
	for _, f := range followers {
		l.configMaps(f)
	}
	slices.SortFunc(l.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return l.listing
}

// lister makes a listing. Files and directories that are reached by several
// ways, as by the symbolic links of a ConfigMap, are in it once.
type lister struct {
	listing

	maxFiles int
	seen     map[string]bool
}

func (l *lister) root(path string) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		l.dir(scope{root: path, fault: path}, path)
	case err == nil:
		l.dirs = append(l.dirs, filepath.Dir(path))
		l.file(scope{root: filepath.Dir(path), fault: path}, path, info)
	case errors.Is(err, os.ErrNotExist) && strings.ContainsAny(path, `*?[`):
		base := patternBase(path)
		l.dir(scope{root: base, fault: base, pattern: path}, base)
	default:
		l.fault(path, err, true)
	}
}

// patternBase is the directory before the first wildcard.
func patternBase(pattern string) string {
	base := pattern
	for strings.ContainsAny(base, `*?[`) {
		base = filepath.Dir(base)
	}
	return base
}

// scope is what is looked for below a root.
type scope struct {
	root string
	// fault is the path that a fault at the root itself is recorded for.
	fault string
	// pattern, if any, is what paths have to match; without it, files have to
	// have the extension of rule files.
	pattern string
}

// enter tells what to do about an entry of a directory: take it, if it is a
// file, or look into it, if it is a directory, and with which scope.
func (s scope) enter(path string, isDir bool) (scope, bool) {
	switch {
	case s.pattern == "" && isDir:
		return s, true
	case s.pattern == "":
		return s, slices.Contains([]string{".yml", ".yaml", ".json"}, filepath.Ext(path))
	}
	separator := string(filepath.Separator)
	parts, depth := strings.Split(s.pattern, separator), strings.Count(path, separator)+1
	if depth > len(parts) {
		return s, false
	}
	// The pattern was validated.
	matches, _ := filepath.Match(strings.Join(parts[:depth], separator), path)
	if depth == len(parts) && isDir {
		s.pattern = ""
	}
	return s, matches && (isDir || depth == len(parts))
}

func (l *lister) dir(s scope, path string) {
	if l.visited(path) {
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		l.fault(path, err, path == s.fault)
		return
	}
	l.dirs = append(l.dirs, path)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			l.entry(s, filepath.Join(path, entry.Name()))
		}
	}
}

func (l *lister) entry(s scope, path string) {
	info, err := os.Stat(path)
	inner, wanted := s.enter(path, err == nil && info.IsDir())
	switch {
	case !wanted:
	case err != nil:
		l.fault(path, err, false)
	case info.IsDir():
		l.dir(inner, path)
	default:
		l.file(inner, path, info)
	}
}

func (l *lister) file(s scope, path string, info os.FileInfo) {
	name, err := filepath.Rel(s.root, path)
	switch {
	case err != nil:
		l.fault(path, err, false)
	case !info.Mode().IsRegular():
		l.fault(path, fmt.Errorf("rule file %s is not a regular file", path), path == s.fault)
	default:
		l.take(s.fault, File{Path: path, Name: filepath.ToSlash(name)})
	}
}

// configMaps takes the files in the ConfigMaps of one selector.
func (l *lister) configMaps(f *kubeapi.ConfigMaps) {
	files, err := configMapFiles(f)
	for _, file := range files {
		l.take(f.String(), file)
	}
	if err != nil {
		l.fault(f.String(), err, false)
	}
}

// take adds a file of the root that is named, unless it was reached before.
func (l *lister) take(root string, f File) {
	switch {
	case l.visited(f.Path):
	case len(l.files) >= l.maxFiles:
		l.fault(root, fmt.Errorf("there are more than max-files (%d) rule files, with those of %s", l.maxFiles, root), true)
	default:
		l.files = append(l.files, f)
	}
}

// visited tells if the real file or directory was reached before. What can't
// be resolved counts as new; opening it will tell why.
func (l *lister) visited(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if seen := l.seen[path]; seen {
		return true
	}
	l.seen[path] = true
	return false
}

func (l *lister) fault(path string, err error, root bool) {
	for i, f := range l.faults {
		if f.path == path {
			l.faults[i].root = f.root || root
			return
		}
	}
	l.faults = append(l.faults, fault{path: path, err: err, root: root})
}
