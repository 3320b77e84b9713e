package rule

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"gopkg.in/yaml.v3"
)

// groupDef is a group as it is written, before it is instantiated.
type groupDef struct {
	node  *yaml.Node
	where string
	group rulefmt.RuleGroup
	// partial: see Group.Partial.
	partial bool
	rules   []ruleDef
}

// define adds the instances of all groups in the list to the file's.
func (p *fileParser) define(obj object, list *yaml.Node) {
	for i, n := range p.list("", "groups", list) {
		before := len(p.faults)
		def := p.groupDef(i+1, n)
		if len(p.faults) > before {
			continue
		}
		for _, scope := range obj.instances() {
			p.instance(def, obj, scope)
		}
	}
}

func (p *fileParser) groupDef(number int, n *yaml.Node) groupDef {
	def := groupDef{node: n, where: groupWhere(number, n)}
	g := &def.group
	var groupLabels, rules yaml.Node
	var partial string
	targets := map[string]any{
		"name": &g.Name, "interval": &g.Interval, "query_offset": &g.QueryOffset, "limit": &g.Limit,
		"labels": &groupLabels, "rules": &rules,
		"partial_response_strategy": &partial,
	}
	p.fields(def.where, n, targets)
	if g.Name == "" {
		p.add(def.where, n, errors.New("the group has no name"))
	}
	if err := checkInterval(time.Duration(g.Interval)); err != nil {
		p.add(def.where, child(n, "interval"), err)
	}
	switch strings.ToLower(partial) {
	case "", "abort":
	case "warn":
		def.partial = true
	default:
		p.add(def.where, n, fmt.Errorf("partial_response_strategy %q is neither abort nor warn", partial))
	}
	p.decode(def.where, "labels", &groupLabels, &g.Labels)
	p.checkLabels(def.where, &groupLabels, rulefmt.Rule{Record: "checked", Expr: "0"})
	for i, r := range p.list(def.where, "rules", &rules) {
		def.rules = append(def.rules, p.ruleDef(def.where, i+1, r))
	}
	return def
}

// groupWhere names a group in messages, by its number if it has no name.
func groupWhere(number int, n *yaml.Node) string {
	if name := text(n, "name"); name != "" {
		return fmt.Sprintf("group %q", name)
	}
	return fmt.Sprintf("group %d", number)
}

func checkInterval(d time.Duration) error {
	if d%time.Second != 0 {
		return fmt.Errorf("interval %s is not a whole number of seconds", d)
	}
	return nil
}

// instance adds the group as it is under one scope.
func (p *fileParser) instance(def groupDef, obj object, scope labels.Labels) {
	key := obj.key(def.group.Name, scope)
	if line, repeated := p.lines[key]; repeated {
		p.add(def.where, def.node, fmt.Errorf("the group is repeated, first in line %d", line))
		return
	}
	p.lines[key] = def.node.Line
	g := Group{
		Key:      key,
		Name:     def.group.Name,
		File:     p.file,
		Interval: p.interval(def.group.Interval),
		Limit:    max(def.group.Limit, 0),
		Scope:    scope,
		Partial:  def.partial,
		Rules:    make([]Rule, 0, len(def.rules)),
	}
	if def.group.QueryOffset != nil {
		g.QueryOffset = time.Duration(*def.group.QueryOffset)
	}
	for _, r := range def.rules {
		g.Rules = append(g.Rules, p.scoped(r, def.group.Labels, scope))
	}
	p.groups = append(p.groups, g)
}

func (p *fileParser) interval(d model.Duration) time.Duration {
	switch {
	case d != 0:
		return time.Duration(d)
	case p.opts.DefaultInterval != 0:
		return p.opts.DefaultInterval
	default:
		return fallbackInterval
	}
}

// scoped returns the rule as it is under one scope.
func (p *fileParser) scoped(def ruleDef, groupLabels map[string]string, scope labels.Labels) Rule {
	own := make(map[string]string, len(groupLabels)+len(def.rule.Labels))
	maps.Copy(own, groupLabels)
	maps.Copy(own, def.rule.Labels)
	scope.Range(func(l labels.Label) {
		if _, ok := own[l.Name]; ok {
			p.add(def.where, def.node, fmt.Errorf("label %q belongs to the scope %s of the group and can't be set", l.Name, scope))
		}
	})
	r := Rule{
		Record:        def.rule.Record,
		Alert:         def.rule.Alert,
		Expr:          def.expr,
		For:           time.Duration(def.rule.For),
		KeepFiringFor: time.Duration(def.rule.KeepFiringFor),
		Labels:        labels.FromMap(own),
		Annotations:   labels.FromMap(def.rule.Annotations),
	}
	if scope.IsEmpty() {
		return r
	}
	if p.opts.Scope == nil {
		p.add(def.where, def.node, fmt.Errorf("the rule is scoped to %s but no scoping is set up", scope))
		return r
	}
	expr, err := p.opts.Scope(def.expr, scope)
	if err != nil {
		p.add(def.where, &def.nodes.Expr, fmt.Errorf("scope to %s: %w", scope, err))
	}
	r.Expr = expr
	return r
}
