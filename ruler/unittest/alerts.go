package unittest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nsf/jsondiff"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// alertTests are the tests of alerts that are still to be made, by time.
type alertTests struct {
	tests []alertTest
}

func newAlertTests(t testCase) (*alertTests, error) {
	for _, a := range t.Alerts {
		if a.Name == "" {
			in := ""
			if t.Name != "" {
				in = fmt.Sprintf(" (in TestGroup %s)", t.Name)
			}
			return nil, fmt.Errorf("an item under alert_rule_test misses required attribute alertname at eval_time %v%s", a.EvalTime, in)
		}
	}
	sorted := slices.Clone(t.Alerts)
	slices.SortStableFunc(sorted, func(a, b alertTest) int { return int(a.EvalTime - b.EvalTime) })
	return &alertTests{sorted}, nil
}

// before tells whether the next test is for a time before another one.
func (a *alertTests) before(end time.Duration) bool {
	return len(a.tests) > 0 && time.Duration(a.tests[0].EvalTime) < end
}

func (a *alertTests) next() alertTest {
	first := a.tests[0]
	a.tests = a.tests[1:]
	return first
}

// alertText is what is compared of an alert.
type alertText struct {
	Labels      labels.Labels
	Annotations labels.Labels
}

func (a alertText) String() string {
	return "Labels:" + a.Labels.String() + "\nAnnotations:" + a.Annotations.String()
}

func compareAlerts(a, b alertText) int {
	if c := labels.Compare(a.Labels, b.Labels); c != 0 {
		return c
	}
	return labels.Compare(a.Annotations, b.Annotations)
}

// alerts compares the alerts that fire with those that are expected to.
func (b *bench) alerts(t alertTest) {
	got, want := b.firing(t.Name), t.alerts()
	if slices.EqualFunc(got, want, func(a, b alertText) bool { return compareAlerts(a, b) == 0 }) {
		return
	}
	head := fmt.Sprintf("    alertname: %s, time: %s, \n", t.Name, t.EvalTime)
	if b.test.Name != "" {
		head = fmt.Sprintf("    name: %s,\n", b.test.Name) + head
	}
	if !b.opts.Diff {
		b.fail("%s        exp:%v, \n        got:%v", head, alertsText(want), alertsText(got))
		return
	}
	if diff, err := difference(want, got); err != nil {
		b.fail("%s        %w", head, err)
	} else if diff != "" {
		b.fail("%s        diff: %v", head, diff)
	}
}

// firing are the alerts of all rules of a name.
func (b *bench) firing(name string) []alertText {
	var texts []alertText
	for _, g := range b.groups {
		for i, r := range g.Rules {
			if r.Alert != name {
				continue
			}
			for _, a := range g.Alerts(i) {
				if a.Status == alert.Firing {
					texts = append(texts, alertText{Labels: a.Labels, Annotations: a.Annotations})
				}
			}
		}
	}
	slices.SortFunc(texts, compareAlerts)
	return texts
}

// alerts are those that the test expects; their name is understood.
func (t alertTest) alerts() []alertText {
	var texts []alertText
	for _, e := range t.Expected {
		own := maps.Clone(e.Labels)
		if own == nil {
			own = map[string]string{}
		}
		own[model.AlertNameLabel] = t.Name
		texts = append(texts, alertText{Labels: labels.FromMap(own), Annotations: labels.FromMap(e.Annotations)})
	}
	slices.SortFunc(texts, compareAlerts)
	return texts
}

const alertIndent = "            "

func alertsText(texts []alertText) string {
	if len(texts) == 0 {
		return "[]"
	}
	items := make([]string, len(texts))
	for i, t := range texts {
		items[i] = fmt.Sprintf("%d:%s", i, indented("\n"+t.String(), "  "))
	}
	return indented("[\n"+strings.Join(items, ",\n")+"\n]", alertIndent)
}

// indented puts an indent before every line but the first.
func indented(text, indent string) string { return strings.ReplaceAll(text, "\n", "\n"+indent) }

// difference is what differs between alerts, in colours; "" if nothing does.
// No alerts are shown as one without labels.
func difference(want, got []alertText) (string, error) {
	var sides [2][]byte
	for i, texts := range [][]alertText{want, got} {
		if len(texts) == 0 {
			texts = []alertText{{}}
		}
		var err error
		if sides[i], err = json.Marshal(texts); err != nil {
			return "", err
		}
	}
	opts := jsondiff.DefaultConsoleOptions()
	outcome, text := jsondiff.Compare(sides[0], sides[1], &opts)
	if outcome == jsondiff.FullMatch {
		return "", nil
	}
	return indented(text, alertIndent), nil
}
