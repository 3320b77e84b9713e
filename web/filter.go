package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// filter are the parameters of /api/v1/rules, with Prometheus' meaning.
type filter struct {
	alerting, recording  bool
	names, groups, files []string
	matchers             [][]*labels.Matcher
	excludeAlerts        bool
}

func parseFilter(r *http.Request) (filter, error) {
	if err := r.ParseForm(); err != nil {
		return filter{}, fmt.Errorf("error parsing form values: %w", err)
	}
	f := filter{
		alerting:  true,
		recording: true,
		names:     r.Form["rule_name[]"],
		groups:    r.Form["rule_group[]"],
		files:     r.Form["file[]"],
	}
	switch typ := strings.ToLower(r.Form.Get("type")); typ {
	case "":
	case "alert":
		f.recording = false
	case "record":
		f.alerting = false
	default:
		return f, fmt.Errorf("invalid parameter %q: not supported value %q", "type", typ)
	}
	if v := r.Form.Get("exclude_alerts"); v != "" {
		var err error
		if f.excludeAlerts, err = strconv.ParseBool(v); err != nil {
			return f, fmt.Errorf("invalid parameter %q: %w", "exclude_alerts", err)
		}
	}
	return f, f.parseMatchers(r.Form["match[]"])
}

func (f *filter) parseMatchers(selectors []string) error {
	for _, text := range selectors {
		ms, err := parser.ParseMetricSelector(text)
		if err != nil {
			return fmt.Errorf("invalid parameter %q: %w", "match[]", err)
		}
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return errors.New("match[] must contain at least one non-empty matcher")
		}
		f.matchers = append(f.matchers, ms)
	}
	return nil
}

// apply returns the groups and rules that pass; groups without any are left
// out.
func (f filter) apply(groups []Group) []Group {
	passed := []Group{}
	for _, g := range groups {
		if !among(g.Name, f.groups) || !among(g.File, f.files) {
			continue
		}
		kept := []Rule{}
		for _, r := range g.Rules {
			if f.passes(r) {
				kept = append(kept, f.strip(r))
			}
		}
		if len(kept) > 0 {
			g.Rules = kept
			passed = append(passed, g)
		}
	}
	return passed
}

func (f filter) passes(r Rule) bool {
	if r.Alerting != nil {
		return f.alerting && among(r.Alerting.Name, f.names) && f.matches(r.Alerting.Labels)
	}
	return f.recording && among(r.Recording.Name, f.names) && f.matches(r.Recording.Labels)
}

// matches tells whether any of the selectors matches the rule's labels.
func (f filter) matches(lset labels.Labels) bool {
	if len(f.matchers) == 0 {
		return true
	}
	return slices.ContainsFunc(f.matchers, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
	})
}

func (f filter) strip(r Rule) Rule {
	if !f.excludeAlerts || r.Alerting == nil {
		return r
	}
	stripped := *r.Alerting
	stripped.Alerts = nil
	return Rule{Alerting: &stripped}
}

// among tells whether name is in the list; an empty list holds everything.
func among(name string, list []string) bool {
	return len(list) == 0 || slices.Contains(list, name)
}

// activeAlerts are all alerts of all groups, in their order.
func activeAlerts(groups []Group) []*v1.Alert {
	all := []*v1.Alert{}
	for _, g := range groups {
		for _, r := range g.Rules {
			if r.Alerting != nil {
				all = append(all, r.Alerting.Alerts...)
			}
		}
	}
	return all
}
