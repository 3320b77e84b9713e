package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Error is one fault of a rule file, at the place in the file where it is.
type Error struct {
	File string
	// Line and Column count from 1; both are 0 if the place is unknown.
	Line   int
	Column int
	// Where names the group and the rule, as in `group "g", rule 3 (alert
	// "X")`. Empty for faults outside of a group.
	Where string
	Err   error
}

// Error renders as "file:line:col: where: message", on one line.
func (e *Error) Error() string {
	text := e.File
	switch {
	case e.Column > 0:
		text += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	case e.Line > 0:
		text += fmt.Sprintf(":%d", e.Line)
	}
	if e.Where != "" {
		text += ": " + e.Where
	}
	return text + ": " + strings.ReplaceAll(e.Err.Error(), "\n", "; ")
}

// Unwrap returns the fault without its place.
func (e *Error) Unwrap() error { return e.Err }

// report collects the faults of one file.
type report struct {
	file   string
	faults []*Error
}

func (r *report) add(where string, at *yaml.Node, err error) {
	r.addAt(where, at.Line, at.Column, err)
}

func (r *report) addAt(where string, line, column int, err error) {
	r.faults = append(r.faults, &Error{File: r.file, Line: line, Column: column, Where: where, Err: err})
}

// errors returns the faults in file order, each once: the instances of one
// object for several clusters tend to fail alike.
func (r *report) errors() []error {
	slices.SortStableFunc(r.faults, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Error(), b.Error()))
	})
	var out []error
	last := ""
	for _, f := range r.faults {
		if text := f.Error(); text != last {
			out, last = append(out, f), text
		}
	}
	return out
}
