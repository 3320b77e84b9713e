package migrate

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

var groupReasons = reasons{
	"align_evaluation_time_on_interval": lost("slots are aligned to the interval, plus an offset that is the group's own"),
	"concurrency":                       changed("rules of a group that do not read each other are evaluated at one time anyway"),
	"eval_alignment":                    lost("slots are aligned to the interval, plus an offset that is the group's own"),
	"eval_offset":                       lost("the offset of a group within its interval can't be chosen"),
	"extra_filter_labels":               lost("write the matchers into the expressions, or use Rules, whose selectors are restricted"),
	"headers":                           lost("headers belong to the backend: OperatorConfig.backends.headers"),
	"notifier_headers":                  lost("headers of alerts can't be set"),
	"params":                            lost("query parameters belong to the backend: OperatorConfig.backends.params"),
	"source_tenants":                    lost("data of several tenants is read by GlobalRules, over all backends"),
	"tenant":                            lost("the tenant belongs to the backend: OperatorConfig.backends.headers or url"),
}

var ruleReasons = reasons{
	"debug":                changed("tocsin rules explain --analyze shows what an evaluation does"),
	"update_entries_limit": changed("the API shows the last evaluation only"),
}

// ruleFile migrates the content of a rule file. The files of Mimir and Cortex
// have a namespace, or several with a list of groups in each.
func (m *migration) ruleFile(obj object) {
	base := strings.TrimSuffix(path.Base(obj.file), path.Ext(obj.file))
	if _, ok := obj.root.entries["groups"]; !ok && m.byNamespace(obj, base) {
		return
	}
	namespace := obj.root.text("namespace")
	name := objectName(cmp.Or(namespace, base))
	if obj.number > 1 {
		name = objectName(name, fmt.Sprint(obj.number))
	}
	m.rules(obj, obj.root, m.options.Namespace, name)
}

// byNamespace migrates a file that maps names to lists of groups.
func (m *migration) byNamespace(obj object, base string) bool {
	names := make([]string, 0, len(obj.root.entries))
	for name, n := range obj.root.entries {
		if n.Kind != yaml.SequenceNode {
			return false
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		root := fields{entries: map[string]*yaml.Node{"groups": obj.root.entries[name]}}
		m.rules(obj, root, m.options.Namespace, objectName(base, name))
	}
	return len(names) > 0
}

func (m *migration) prometheusRule(obj object) {
	spec, _ := obj.root.sub("spec")
	name, namespace := obj.name, cmp.Or(obj.namespace, m.options.Namespace, "default")
	if m.options.Kind != "Rules" {
		name = objectName(obj.namespace, obj.name)
	}
	m.rules(obj, spec, namespace, name)
	obj.root.take("status")
	m.left(obj, obj.root, nil)
}

// rules makes the object of the groups in root.
func (m *migration) rules(obj object, root fields, namespace, name string) {
	before := len(m.result.Notes)
	var spec v1.RulesSpec
	for _, g := range root.subs("groups") {
		group := m.group(obj, g)
		if len(group.Rules) == 0 {
			m.note(obj, Changed, g.path, "has no rules and is left out")
			continue
		}
		spec.Groups = append(spec.Groups, group)
	}
	m.left(obj, root, nil)
	if slices.ContainsFunc(m.result.Notes[before:], func(n Note) bool { return n.Level == Failed }) {
		return
	}
	if len(spec.Groups) == 0 {
		m.note(obj, Changed, "", "has no rules, and nothing is made of it")
		return
	}
	key, piece, err := m.renderRules(metav1.ObjectMeta{Name: name, Namespace: namespace}, spec)
	m.emit(obj, key, piece.Text, err)
	if err == nil {
		m.ownLabels(obj, spec)
	}
}

func (m *migration) renderRules(meta metav1.ObjectMeta, spec v1.RulesSpec) (key string, p render.Piece, err error) {
	switch m.options.Kind {
	case "Rules":
		out := &v1.Rules{ObjectMeta: meta, Spec: spec}
		key = out.GetKey()
		p, err = m.renderer.Rules(out)
	case "GlobalRules":
		out := &v1.GlobalRules{ObjectMeta: metav1.ObjectMeta{Name: meta.Name}, Spec: spec}
		key = out.GetKey()
		p, err = m.renderer.GlobalRules(out)
	default:
		out := &v1.ClusterRules{ObjectMeta: metav1.ObjectMeta{Name: meta.Name}, Spec: spec}
		key = out.GetKey()
		p, err = m.renderer.ClusterRules(out)
	}
	return key, p, err
}

// ownLabels reports labels that rules set and that the cluster's operator will
// not let them, once it has a name.
func (m *migration) ownLabels(obj object, spec v1.RulesSpec) {
	if m.options.Kind == "GlobalRules" {
		return
	}
	for _, g := range spec.Groups {
		for _, name := range []string{"cluster", "location", "project_id"} {
			set := g.Labels[name] != ""
			for _, r := range g.Rules {
				set = set || r.Labels[name] != ""
			}
			if set {
				m.note(obj, Lost, fmt.Sprintf("group %q", g.Name), fmt.Sprintf("sets label %q, which is that of the cluster wherever the operator knows its name: GlobalRules may set it", name))
			}
		}
	}
}

func (m *migration) group(obj object, g fields) v1.RuleGroup {
	out := v1.RuleGroup{
		Name:        g.text("name"),
		Interval:    g.text("interval"),
		QueryOffset: cmp.Or(g.text("query_offset"), g.text("evaluation_delay"), g.text("eval_delay")),
	}
	g.into("limit", &out.Limit)
	g.into("labels", &out.Labels)
	out.PartialResponseStrategy = g.text("partial_response_strategy")
	if kind := g.text("type"); kind != "" && kind != "prometheus" {
		m.note(obj, Failed, g.at("type"), fmt.Sprintf("rules of type %q are not PromQL", kind))
	}
	for _, r := range g.subs("rules") {
		out.Rules = append(out.Rules, m.rule(obj, r))
	}
	m.left(obj, g, groupReasons)
	return out
}

func (m *migration) rule(obj object, r fields) v1.Rule {
	out := v1.Rule{
		Record:        r.text("record"),
		Alert:         r.text("alert"),
		Expr:          r.text("expr"),
		For:           r.text("for"),
		KeepFiringFor: r.text("keep_firing_for"),
	}
	r.into("labels", &out.Labels)
	r.into("annotations", &out.Annotations)
	m.left(obj, r, ruleReasons)
	return out
}
