package render

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// ruleFile is a resource as the rule-evaluator reads it: what the user wrote,
// without status and metadata that say nothing about rules. The evaluator does
// the scoping, on syntax trees and also for the queries of templates, and knows
// whose rules these are; text that was scoped here would lose both.
type ruleFile struct {
	APIVersion string       `yaml:"apiVersion"`
	Kind       string       `yaml:"kind"`
	Metadata   ruleMetadata `yaml:"metadata"`
	Spec       ruleSpec     `yaml:"spec"`
}

type ruleMetadata struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace,omitempty"`
}

type ruleSpec struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name                    string            `yaml:"name"`
	Interval                string            `yaml:"interval,omitempty"`
	QueryOffset             string            `yaml:"query_offset,omitempty"`
	Limit                   int32             `yaml:"limit,omitempty"`
	Labels                  map[string]string `yaml:"labels,omitempty"`
	PartialResponseStrategy string            `yaml:"partial_response_strategy,omitempty"`
	Rules                   []ruleText        `yaml:"rules"`
}

type ruleText struct {
	Record        string            `yaml:"record,omitempty"`
	Alert         string            `yaml:"alert,omitempty"`
	Expr          string            `yaml:"expr"`
	For           string            `yaml:"for,omitempty"`
	KeepFiringFor string            `yaml:"keep_firing_for,omitempty"`
	Labels        map[string]string `yaml:"labels,omitempty"`
	Annotations   map[string]string `yaml:"annotations,omitempty"`
}

// Rules renders the file of a Rules object, whose rules are scoped to its
// namespace in this cluster. The error names every group and rule at fault.
func (r *Renderer) Rules(o *v1.Rules) (Piece, error) {
	return r.rulePiece("Rules", o.ObjectMeta, o.Spec)
}

// ClusterRules renders the file of a ClusterRules object, whose rules are
// scoped to this cluster. The error names every group and rule at fault.
func (r *Renderer) ClusterRules(o *v1.ClusterRules) (Piece, error) {
	return r.rulePiece("ClusterRules", o.ObjectMeta, o.Spec)
}

// GlobalRules renders the file of a GlobalRules object, whose rules are not
// scoped. The error names every group and rule at fault.
func (r *Renderer) GlobalRules(o *v1.GlobalRules) (Piece, error) {
	return r.rulePiece("GlobalRules", o.ObjectMeta, o.Spec)
}

func (r *Renderer) rulePiece(kind string, meta metav1.ObjectMeta, spec v1.RulesSpec) (Piece, error) {
	file := ruleFile{
		APIVersion: v1.GroupVersion.String(),
		Kind:       kind,
		Metadata:   ruleMetadata{Name: meta.Name, Namespace: meta.Namespace},
		Spec:       ruleSpec{Groups: ruleGroups(spec.Groups)},
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	if err := encoder.Encode(file); err != nil {
		return Piece{}, err
	}
	name := RuleFile(kind, meta.Namespace, meta.Name)
	if err := r.checkRules(name, text.Bytes()); err != nil {
		return Piece{}, err
	}
	return Piece{Key: name, Text: text.Bytes()}, nil
}

func ruleGroups(in []v1.RuleGroup) []ruleGroup {
	out := make([]ruleGroup, len(in))
	for i, g := range in {
		rules := make([]ruleText, len(g.Rules))
		for j, r := range g.Rules {
			rules[j] = ruleText(r)
		}
		out[i] = ruleGroup{
			Name:                    g.Name,
			Interval:                g.Interval,
			QueryOffset:             g.QueryOffset,
			Limit:                   g.Limit,
			Labels:                  g.Labels,
			PartialResponseStrategy: g.PartialResponseStrategy,
			Rules:                   rules,
		}
	}
	return out
}

// checkRules reads the file as the rule-evaluator will.
func (r *Renderer) checkRules(name string, text []byte) error {
	_, faults := rule.Parse(name, text, rule.Options{Clusters: r.clusters(), Scope: r.settings.Scope})
	var errs []error
	for _, fault := range faults {
		// Its line is one of what is rendered and says nothing to the author.
		if at := (*rule.Error)(nil); errors.As(fault, &at) {
			fault = at.Err
			if at.Where != "" {
				fault = fmt.Errorf("%s: %w", at.Where, at.Err)
			}
		}
		errs = append(errs, fault)
	}
	return errors.Join(errs...)
}

// clusters are what ClusterRules are instantiated for: this cluster, if it has
// a name.
func (r *Renderer) clusters() []labels.Labels {
	if r.place.IsEmpty() {
		return nil
	}
	return []labels.Labels{r.place}
}

// RuleFile is the key of the piece of a rules object. It is unique among all
// resources, since neither names nor namespaces have underscores. The name is
// cut where it would be too long for the key of a ConfigMap.
func RuleFile(kind, namespace, name string) string {
	prefix := strings.ToLower(kind) + "__"
	if namespace != "" {
		prefix += namespace + "__"
	}
	const suffix = ".yaml"
	if room := maxKeyLength - len(prefix) - len(suffix); len(name) > room {
		hash := fmt.Sprintf("__%x", sha256.Sum256([]byte(name)))[:18]
		name = name[:room-len(hash)] + hash
	}
	return prefix + name + suffix
}
