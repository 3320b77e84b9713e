package render

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/util/strutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// object tells how service discovery names the labels of pods and of nodes.
type object string

const (
	pod  object = "__meta_kubernetes_pod_"
	node object = "__meta_kubernetes_node_"
)

func (o object) label(key string) string {
	return string(o) + "label_" + strutil.SanitizeLabelName(key)
}

func (o object) labelPresent(key string) string {
	return string(o) + "labelpresent_" + strutil.SanitizeLabelName(key)
}

// selected keeps what a selector selects: the labels it names in order, then
// its expressions. A value is text here, whatever it would be as a regular
// expression, and a label that is empty is not one that is missing.
func selected(o object, sel metav1.LabelSelector) ([]*relabel.Config, error) {
	var rules []*relabel.Config
	for _, key := range slices.Sorted(maps.Keys(sel.MatchLabels)) {
		regex, sources := o.oneOf(key, []string{sel.MatchLabels[key]})
		rules = append(rules, keepIf(regex, sources...))
	}
	var errs []error
	for i, e := range sel.MatchExpressions {
		rule, err := o.requirement(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.selector.matchExpressions[%d]: %w", i, err))
		}
		rules = append(rules, rule)
	}
	return rules, errors.Join(errs...)
}

func (o object) requirement(e metav1.LabelSelectorRequirement) (*relabel.Config, error) {
	present := relabel.MustNewRegexp("true")
	switch e.Operator {
	case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
		if len(e.Values) == 0 {
			return nil, fmt.Errorf("values: operator %s needs at least one", e.Operator)
		}
		regex, sources := o.oneOf(e.Key, e.Values)
		if e.Operator == metav1.LabelSelectorOpIn {
			return keepIf(regex, sources...), nil
		}
		return dropIf(regex, sources...), nil
	case metav1.LabelSelectorOpExists:
		return keepIf(present, o.labelPresent(e.Key)), nil
	case metav1.LabelSelectorOpDoesNotExist:
		return dropIf(present, o.labelPresent(e.Key)), nil
	default:
		return nil, fmt.Errorf("operator: %q is none of In, NotIn, Exists and DoesNotExist", e.Operator)
	}
}

// oneOf matches objects whose label has one of the values.
func (o object) oneOf(key string, values []string) (relabel.Regexp, []string) {
	if !slices.Contains(values, "") {
		return exactly(values...), []string{o.label(key)}
	}
	return relabel.MustNewRegexp("true;(" + exactly(values...).String() + ")"), []string{o.labelPresent(key), o.label(key)}
}

// distinct makes sure that the labels can be told apart: service discovery
// gives labels of objects the same name if they differ only in characters that
// names of labels can't have, and of one object that has both shows either.
func distinct(fields, keys []string) error {
	first := map[string]int{}
	var errs []error
	for i, key := range keys {
		name := strutil.SanitizeLabelName(key)
		j, seen := first[name]
		if !seen {
			first[name] = i
		} else if keys[j] != key {
			errs = append(errs, fmt.Errorf("%s: label %q can't be told from %q of %s", fields[i], key, keys[j], fields[j]))
		}
	}
	return errors.Join(errs...)
}
