package rule

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// names is the scheme of metric and label names, the one that Prometheus 3 and
// promtool have by default.
const names = model.UTF8Validation

// ruleDef is a rule as it is written.
type ruleDef struct {
	node  *yaml.Node
	where string
	rule  rulefmt.Rule
	// nodes places the fields that rulefmt reports on.
	nodes rulefmt.RuleNode
	expr  parser.Expr
}

func (p *fileParser) ruleDef(groupWhere string, number int, n *yaml.Node) ruleDef {
	def := ruleDef{node: n, where: ruleWhere(groupWhere, number, n)}
	r := &def.rule
	// A field that is missing is reported at the rule.
	def.nodes = rulefmt.RuleNode{Record: *n, Alert: *n, Expr: *n}
	before := len(p.faults)
	p.fields(def.where, n, map[string]any{
		"record": &r.Record, "alert": &r.Alert, "expr": &r.Expr, "for": &r.For,
		"keep_firing_for": &r.KeepFiringFor, "labels": &r.Labels, "annotations": &r.Annotations,
	})
	if len(p.faults) > before {
		return def
	}
	place(&def.nodes.Record, child(n, "record"))
	place(&def.nodes.Alert, child(n, "alert"))
	place(&def.nodes.Expr, child(n, "expr"))
	p.check(&def)
	return def
}

func place(target, n *yaml.Node) {
	if n != nil {
		*target = *n
	}
}

// ruleWhere names a rule in messages.
func ruleWhere(group string, number int, n *yaml.Node) string {
	for _, kind := range []string{"alert", "record"} {
		if name := text(n, kind); name != "" {
			return fmt.Sprintf("%s, rule %d (%s %q)", group, number, kind, name)
		}
	}
	return fmt.Sprintf("%s, rule %d", group, number)
}

// check has rulefmt validate the rule: first without what it would not say the
// place of, then label by label and annotation by annotation.
func (p *fileParser) check(def *ruleDef) {
	before := len(p.faults)
	bare := def.rule
	bare.Labels = nil
	if bare.Alert != "" && bare.Record == "" {
		bare.Annotations = nil
	}
	p.validate(def.where, def.node, bare, def.nodes)
	probe := rulefmt.Rule{Record: "checked", Expr: "0"}
	if def.rule.Alert != "" {
		probe = rulefmt.Rule{Alert: def.rule.Alert, Expr: "0"}
		p.checkAnnotations(def.where, child(def.node, "annotations"), probe)
	}
	p.checkLabels(def.where, child(def.node, "labels"), probe)
	if len(p.faults) > before {
		return
	}
	expr, err := parser.ParseExpr(def.rule.Expr)
	if err != nil {
		p.add(def.where, &def.nodes.Expr, err)
		return
	}
	p.shareMatchers(expr)
	def.expr = expr
}

// shareMatchers puts one matcher in place of all equal ones of the file. They
// repeat in packs, and a compiled regular expression is as large as all else
// that is kept of a rule.
func (p *fileParser) shareMatchers(expr parser.Expr) {
	for _, selector := range parser.ExtractSelectors(expr) {
		for i, m := range selector {
			key := matcherKey{m.Type, m.Name, m.Value}
			if seen, ok := p.matchers[key]; ok {
				selector[i] = seen
			} else {
				p.matchers[key] = m
			}
		}
	}
}

type matcherKey struct {
	kind        labels.MatchType
	name, value string
}

// checkLabels validates each label of the mapping as that of the probe, a rule
// without faults of its own.
func (p *fileParser) checkLabels(where string, n *yaml.Node, probe rulefmt.Rule) {
	eachPair(n, func(key, value *yaml.Node) {
		probe.Labels = map[string]string{key.Value: value.Value}
		p.validate(where, key, probe, rulefmt.RuleNode{})
	})
}

func (p *fileParser) checkAnnotations(where string, n *yaml.Node, probe rulefmt.Rule) {
	eachPair(n, func(key, value *yaml.Node) {
		probe.Annotations = map[string]string{key.Value: value.Value}
		p.validate(where, key, probe, rulefmt.RuleNode{})
	})
}

// eachPair visits the entries of a mapping; what is none has none.
func eachPair(n *yaml.Node, visit func(key, value *yaml.Node)) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		visit(n.Content[i], n.Content[i+1])
	}
}

// validate reports what rulefmt says of r, at the places that nodes give and
// otherwise at fallback.
func (p *fileParser) validate(where string, fallback *yaml.Node, r rulefmt.Rule, nodes rulefmt.RuleNode) {
	for _, fault := range r.Validate(nodes, names) {
		err := fault.Unwrap()
		line, column := fallback.Line, fallback.Column
		// The node is private to rulefmt but printed before the message.
		printed := strings.TrimSuffix(fault.Error(), err.Error())
		var l, c int
		if _, scanErr := fmt.Sscanf(printed, "%d:%d", &l, &c); scanErr == nil && l > 0 {
			line, column = l, c
		}
		p.addAt(where, line, column, err)
	}
}
