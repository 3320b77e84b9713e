package web

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// filter are the parameters of /api/v1/rules, with Prometheus' meaning.
type filter struct {
	alerting, recording  bool
	names, groups, files []string
	matchers             [][]*labels.Matcher
	excludeAlerts        bool
}

// invalid is Prometheus' wording.
func invalid(parameter string, err error) error {
	return fmt.Errorf("invalid parameter %q: %w", parameter, err)
}

func parseFilter(params url.Values) (filter, error) {
	f := filter{
		alerting:  true,
		recording: true,
		names:     params["rule_name[]"],
		groups:    params["rule_group[]"],
		files:     params["file[]"],
	}
	var err error
	if f.matchers, err = parseMatchers(params["match[]"]); err != nil {
		return f, err
	}
	switch typ := strings.ToLower(params.Get("type")); typ {
	case "":
	case "alert":
		f.recording = false
	case "record":
		f.alerting = false
	default:
		return f, invalid("type", fmt.Errorf("not supported value %q", typ))
	}
	if v := strings.ToLower(params.Get("exclude_alerts")); v != "" {
		if f.excludeAlerts, err = strconv.ParseBool(v); err != nil {
			return f, invalid("exclude_alerts", fmt.Errorf("error converting exclude_alerts: %w", err))
		}
	}
	return f, nil
}

func parseMatchers(selectors []string) ([][]*labels.Matcher, error) {
	sets, err := parser.ParseMetricSelectors(selectors)
	if err != nil {
		return nil, err
	}
	for _, ms := range sets {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return nil, errors.New("match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}

func (f filter) passesGroup(g rule.Group) bool {
	return among(g.Name, f.groups) && among(g.File, f.files)
}

func (f filter) passes(r rule.Rule) bool {
	kind := f.recording
	if r.Alert != "" {
		kind = f.alerting
	}
	return kind && among(r.Name(), f.names) && f.matches(r.Labels)
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

// among tells whether name is in the list; an empty list holds everything.
func among(name string, list []string) bool {
	return len(list) == 0 || slices.Contains(list, name)
}
