package rule

import (
	"fmt"
	"slices"
	"strings"
)

// Set is the groups of several files, with unique keys. The zero value is
// empty. It is not safe for concurrent use.
type Set struct {
	files  map[string]string
	groups []Group
}

// Add takes the groups of one file, all or none of them: an error names the
// key that is taken and both files. The file is named as the user knows it.
func (s *Set) Add(file string, groups []Group) error {
	if s.files == nil {
		s.files = map[string]string{}
	}
	for _, g := range groups {
		if other, taken := s.files[g.Key]; taken {
			return fmt.Errorf("group %q with key %q is defined in %s and in %s", g.Name, g.Key, other, file)
		}
	}
	for _, g := range groups {
		s.files[g.Key] = file
	}
	s.groups = append(s.groups, groups...)
	return nil
}

// Groups returns the groups sorted by key. The file is part of a key only where
// several files have a group of the name: otherwise the group stays the same
// when its file is renamed or it moves to another one.
func (s *Set) Groups() []Group {
	out := slices.Clone(s.groups)
	files := map[string]int{}
	for _, g := range out {
		files[g.withoutFile()]++
	}
	for i, g := range out {
		if key := g.withoutFile(); files[key] == 1 {
			out[i].Key = key
		}
	}
	slices.SortFunc(out, func(a, b Group) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// CountRules returns how many rules there are in the groups.
func CountRules(groups []Group) int {
	n := 0
	for _, g := range groups {
		n += len(g.Rules)
	}
	return n
}

// Duplicates returns the identities that more than one rule of groups has in
// the same scope, sorted, each once. Such rules write the same series, or raise
// the same alerts, and so one of them is useless or wrong.
func Duplicates(groups []Group) []string {
	count := map[string]int{}
	for _, g := range groups {
		for _, r := range g.Rules {
			identity := r.Identity()
			if !g.Scope.IsEmpty() {
				identity += " in " + g.Scope.String()
			}
			count[identity]++
		}
	}
	var out []string
	for identity, n := range count {
		if n > 1 {
			out = append(out, identity)
		}
	}
	slices.Sort(out)
	return out
}
