package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
)

// exitLint is the status of "rules check" if files are good but lint is fatal
// and found something; promtool has the same.
const exitLint = 3

// CheckOptions are what "rules check" is asked for.
type CheckOptions struct {
	// Paths are files, directories and patterns, as a rule-evaluator takes
	// them. Without any, standard input is checked.
	Paths []string
	// DuplicateRules lints for rules that write the same series; LintFatal
	// makes what lint finds count.
	DuplicateRules bool
	LintFatal      bool
	// IgnoreUnknownFields accepts fields that no rule has.
	IgnoreUnknownFields bool
}

// AddCheck registers "check" below the command "rules" and returns what runs
// it, once the command line is parsed. Its status is 0 if all files are good, 1
// if not, and 3 if lint is fatal and found something.
func AddCheck(rules *kingpin.CmdClause) func() int {
	o := addCheckFlags(rules)
	return func() int { return Check(os.Stdout, os.Stdin, *o) }
}

func addCheckFlags(rules *kingpin.CmdClause) *CheckOptions {
	var o CheckOptions
	cmd := rules.Command("check", "Check rule files and manifests, as promtool does.")
	cmd.Flag("lint", "Linting to apply, separated by commas: all, duplicate-rules, none.").
		Default("duplicate-rules").SetValue((*lintValue)(&o.DuplicateRules))
	cmd.Flag("lint-fatal", "Exit with status 3 if linting finds something.").BoolVar(&o.LintFatal)
	cmd.Flag("ignore-unknown-fields", "Ignore fields that no rule has.").BoolVar(&o.IgnoreUnknownFields)
	cmd.Arg("path", "Rule file, directory or pattern (repeatable). Default: standard input.").StringsVar(&o.Paths)
	return &o
}

// lintValue is the flag --lint: whether duplicate rules are looked for.
type lintValue bool

// Set adds up the options; none wins over the others.
func (v *lintValue) Set(text string) error {
	on, none := false, false
	for option := range strings.SplitSeq(text, ",") {
		switch option {
		case "all", "duplicate-rules":
			on = true
		case "none":
			none = true
		default:
			return fmt.Errorf("unknown lint option %q", option)
		}
	}
	*v = lintValue(on && !none)
	return nil
}

func (v *lintValue) String() string {
	if *v {
		return "duplicate-rules"
	}
	return "none"
}

// Check writes the outcome of each file and returns the exit status.
func Check(w io.Writer, stdin io.Reader, o CheckOptions) int {
	c := &checker{w: w, o: o, seen: map[string]bool{}}
	if len(o.Paths) == 0 {
		c.standardInput(stdin)
	}
	for _, p := range o.Paths {
		c.path(p)
	}
	switch {
	case c.failed:
		return command.ExitFailed
	case c.lint && o.LintFatal:
		return exitLint
	default:
		return command.ExitOK
	}
}

// checker checks file after file.
type checker struct {
	w io.Writer
	o CheckOptions
	// set has the groups of all files, whose keys must differ.
	set rule.Set
	// seen are the files that were checked; paths may overlap.
	seen         map[string]bool
	failed, lint bool
}

func (c *checker) standardInput(stdin io.Reader) {
	fmt.Fprintln(c.w, "Checking standard input")
	limit := source.DefaultConfig().MaxFileBytes
	content, err := io.ReadAll(io.LimitReader(stdin, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("standard input has more than max-file-bytes (%d)", limit)
	}
	c.content("stdin", content, err)
}

func (c *checker) path(path string) {
	limits := source.DefaultConfig()
	files, err := source.List(path, limits.MaxFiles)
	if err == nil && len(files) == 0 {
		err = errors.New("there are no rule files (.yml, .yaml, .json)")
	}
	if err != nil {
		fmt.Fprintln(c.w, "Checking", path)
		c.fail(err)
		fmt.Fprintln(c.w)
	}
	for _, f := range files {
		if c.seen[f.Path] {
			continue
		}
		c.seen[f.Path] = true
		fmt.Fprintln(c.w, "Checking", f.Path)
		content, err := source.ReadFile(f.Path, limits.MaxFileBytes)
		c.content(f.Path, content, err)
	}
}

// content checks what was read from a file, unless that failed.
func (c *checker) content(file string, content []byte, err error) {
	defer fmt.Fprintln(c.w)
	if err != nil {
		c.fail(err)
		return
	}
	groups, errs := rule.Parse(file, content, rule.Options{Scope: plan.Scope, IgnoreUnknownFields: c.o.IgnoreUnknownFields})
	if len(errs) == 0 {
		if err := c.set.Add(file, groups); err != nil {
			errs = []error{err}
		}
	}
	if len(errs) > 0 {
		c.fail(errs...)
		return
	}
	if c.o.DuplicateRules && c.duplicates(groups) {
		return
	}
	fmt.Fprintf(c.w, "  SUCCESS: %d rules found\n", rule.CountRules(groups))
}

func (c *checker) duplicates(groups []rule.Group) bool {
	found := rule.Duplicates(groups)
	if len(found) == 0 {
		return false
	}
	c.lint = true
	fmt.Fprintln(c.w, "  FAILED:\n    lint error: more than one rule in this file for each of")
	for _, identity := range found {
		fmt.Fprintf(c.w, "      %s\n", identity)
	}
	return true
}

func (c *checker) fail(errs ...error) {
	c.failed = true
	fmt.Fprintln(c.w, "  FAILED:")
	for _, err := range errs {
		fmt.Fprintf(c.w, "    %s\n", err)
	}
}
