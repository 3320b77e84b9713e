package rule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// fallbackInterval is Prometheus' default of global.evaluation_interval.
const fallbackInterval = time.Minute

// ScopeFunc returns expr with every selector restricted to scope. It must not
// change expr and must refuse an expression that asks for anything outside.
type ScopeFunc func(expr parser.Expr, scope labels.Labels) (parser.Expr, error)

// Options says how the content of a file becomes groups.
type Options struct {
	// DefaultInterval is that of groups that state none, in whole seconds; 0
	// means a minute.
	DefaultInterval time.Duration
	// Clusters are the partitions that ClusterRules and Rules are instantiated
	// for, each as the labels that pin it. Without any there is one instance,
	// not restricted to a cluster.
	Clusters []labels.Labels
	// Scope enforces tenancy. Without it, objects that are scoped are errors.
	Scope ScopeFunc
	// IgnoreUnknownFields accepts, and ignores, fields that no rule has.
	IgnoreUnknownFields bool
}

// Validate returns all faults at once.
func (o Options) Validate() error {
	var errs []error
	if o.DefaultInterval < 0 {
		errs = append(errs, fmt.Errorf("default rule interval %s is less than 0", o.DefaultInterval))
	}
	if err := checkInterval(o.DefaultInterval); err != nil {
		errs = append(errs, fmt.Errorf("default rule %w", err))
	}
	if len(o.Clusters) > 0 && o.Scope == nil {
		errs = append(errs, errors.New("rules for clusters need a function that scopes expressions"))
	}
	return errors.Join(errs...)
}

// Parse reads the groups of one file: Prometheus rule files and the Kubernetes
// kinds PrometheusRule, Rules, ClusterRules, GlobalRules and lists of them, in
// YAML or JSON, several documents in a file, of any mixture.
//
// The file's name is its path relative to the root of the rule source, with
// slashes; keys and messages contain it. Groups come in file order, the
// instances of a group in the order of Options.Clusters.
//
// A file is good or bad as a whole: if there is an error there are no groups.
// All faults of the file are returned, in file order, each an *Error. What
// promtool refuses is refused. In addition, intervals must be whole seconds,
// and no label of a rule may be one of its scope.
//
// Groups of every kind may have partial_response_strategy, as those of Thanos
// and PrometheusRule: abort, which is the default, or warn.
func Parse(file string, content []byte, opts Options) ([]Group, []error) {
	p := &fileParser{
		report:   report{file: file},
		opts:     opts,
		lines:    map[string]int{},
		matchers: map[matcherKey]*labels.Matcher{},
	}
	p.stream(content)
	if errs := p.errors(); len(errs) > 0 {
		return nil, errs
	}
	return p.groups, nil
}

// fileParser reads one file.
type fileParser struct {
	report

	opts   Options
	groups []Group
	// lines has where each key was first defined.
	lines map[string]int
	// matchers are those of all expressions.
	matchers map[matcherKey]*labels.Matcher
}

// stream reads document after document. A syntax error ends it, since the
// parser can't tell where the next document begins.
func (p *fileParser) stream(content []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.syntaxError(err)
			return
		}
		p.document(&doc)
	}
}

func (p *fileParser) syntaxError(err error) {
	line, text := cutLine(strings.TrimPrefix(err.Error(), "yaml: "))
	p.addAt("", line, 0, fmt.Errorf("YAML syntax: %s", text))
}

func (p *fileParser) document(doc *yaml.Node) {
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return
	}
	root, err := expand(doc.Content[0])
	if err != nil {
		p.add("", doc.Content[0], err)
		return
	}
	if isManifest(root) {
		p.manifest(root)
		return
	}
	var groups yaml.Node
	p.fields("", root, map[string]any{"groups": &groups})
	p.define(object{kind: fileKind, name: strings.TrimSuffix(p.file, path.Ext(p.file))}, &groups)
}

// fields decodes the values of the mapping n into the targets of their keys.
// What does not fit is reported where it is.
func (p *fileParser) fields(where string, n *yaml.Node, targets map[string]any) {
	if n.Kind != yaml.MappingNode {
		p.add(where, n, fmt.Errorf("found %s where a mapping is needed", kindText(n)))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		target, known := targets[key.Value]
		first, repeated := seen[key.Value]
		seen[key.Value] = key.Line
		switch {
		case repeated:
			p.add(where, key, fmt.Errorf("field %q is repeated, first in line %d", key.Value, first))
		case known:
			p.decode(where, key.Value, value, target)
		case !p.opts.IgnoreUnknownFields:
			p.add(where, key, fmt.Errorf("unknown field %q", key.Value))
		}
	}
}

// decode stores one value.
func (p *fileParser) decode(where, name string, value *yaml.Node, target any) {
	if node, ok := target.(*yaml.Node); ok {
		*node = *value
		return
	}
	err := value.Decode(target)
	typeErr := (*yaml.TypeError)(nil)
	switch {
	case errors.As(err, &typeErr):
		for _, text := range typeErr.Errors {
			line, message := cutLine(text)
			column := 0
			if line == value.Line {
				column = value.Column
			}
			p.addAt(where, line, column, fmt.Errorf("field %q: %s", name, message))
		}
	case err != nil:
		p.add(where, value, fmt.Errorf("field %q: %w", name, err))
	}
}

// cutLine takes the line off a message of the YAML package, the only place
// where it is; 0 means none.
func cutLine(text string) (int, string) {
	var line int
	if _, err := fmt.Sscanf(text, "line %d:", &line); err != nil {
		return 0, text
	}
	_, rest, _ := strings.Cut(text, ": ")
	return line, rest
}

// list returns the items of a list; nothing at all counts as an empty one.
func (p *fileParser) list(where, name string, n *yaml.Node) []*yaml.Node {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.add(where, n, fmt.Errorf("field %q: found %s where a list is needed", name, kindText(n)))
		return nil
	}
	return n.Content
}
