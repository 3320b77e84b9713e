package render

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// identity are the labels that say where a series comes from. A resource can
// neither write nor drop them.
var identity = []string{projectLabel, locationLabel, clusterLabel, namespaceLabel, jobLabel, instanceLabel, "__address__"}

// controllers are the labels that say what a target belongs to; to drop them
// hides something but claims nothing.
var controllers = []string{"top_level_controller", "top_level_controller_name", "top_level_controller_type"}

// checkTarget says whether a resource may write a label.
func checkTarget(label string) error {
	switch {
	case slices.Contains(identity, label) || slices.Contains(controllers, label):
		return fmt.Errorf("cannot relabel onto protected label %q", label)
	case !model.LegacyValidation.IsValidLabelName(label):
		return fmt.Errorf("%q is not a label name", label)
	}
	return nil
}

func metricRelabeling(field string, rules []v1.RelabelingRule) ([]*relabel.Config, error) {
	var out []*relabel.Config
	var errs []error
	for i, r := range rules {
		c, err := metricRule(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%smetricRelabeling[%d]%w", field, i, err))
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

// metricRule renders one rule. What is empty is left out, and so has
// Prometheus' default.
func metricRule(in v1.RelabelingRule) (*relabel.Config, error) {
	out := &relabel.Config{
		SourceLabels: names(in.SourceLabels),
		Separator:    in.Separator,
		Regex:        anything,
		Modulus:      in.Modulus,
		TargetLabel:  in.TargetLabel,
		Replacement:  in.Replacement,
		Action:       relabel.Action(strings.ToLower(in.Action)),
	}
	if in.Regex != "" {
		var err error
		if out.Regex, err = ofUser(in.Regex); err != nil {
			return nil, fmt.Errorf(".regex: %w", err)
		}
	}
	if err := checkRule(out); err != nil {
		return nil, err
	}
	return out, prometheusTakes(*out)
}

// prometheusTakes says whether Prometheus accepts the rule.
func prometheusTakes(r relabel.Config) error {
	standard := relabel.DefaultRelabelConfig
	r.Action = cmp.Or(r.Action, standard.Action)
	r.Separator = cmp.Or(r.Separator, standard.Separator)
	r.Replacement = cmp.Or(r.Replacement, standard.Replacement)
	if err := r.Validate(model.UTF8Validation); err != nil {
		return fmt.Errorf(": %w", err)
	}
	return nil
}

// checkRule says whether the rule is one that resources may have.
func checkRule(r *relabel.Config) error {
	switch r.Action {
	case "", relabel.Replace, relabel.HashMod, relabel.Lowercase, relabel.Uppercase:
		if err := checkTarget(r.TargetLabel); err != nil {
			return fmt.Errorf(".targetLabel: %w", err)
		}
	case relabel.Keep, relabel.Drop, relabel.KeepEqual, relabel.DropEqual:
	case relabel.LabelDrop:
		return eachProtected(r, false)
	case relabel.LabelKeep:
		return eachProtected(r, true)
	default:
		return fmt.Errorf(".action: unknown relabeling action %q", r.Action)
	}
	return nil
}

// eachProtected demands that the regular expression matches all protected
// labels, or none of them.
func eachProtected(r *relabel.Config, want bool) error {
	for _, name := range identity {
		if r.Regex.MatchString(name) != want {
			return fmt.Errorf(".regex: %s %q would drop protected label %q", r.Action, r.Regex, name)
		}
	}
	return nil
}
