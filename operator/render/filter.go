package render

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// matched is 1 on series that fit a selector, while rules are at work.
const matched = "__tmp_matched"

// filter renders the filter of what is written as relabeling rules: series that
// fit one of the selectors are kept.
func filter(f v1.ExportFilters) ([]*relabel.Config, error) {
	if len(f.MatchOneOf) == 0 || f.EnableMatchOneOf != nil && !*f.EnableMatchOneOf {
		return nil, nil
	}
	var rules []*relabel.Config
	var errs []error
	for i, text := range f.MatchOneOf {
		matchers, err := parser.ParseMetricSelector(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("collection.filter.matchOneOf[%d]: %w", i, err))
		}
		rules = append(rules, fits(fmt.Sprintf("%s_%d", matched, i), matchers)...)
	}
	one := exactly("1")
	return append(rules, keepIf(one, matched), &relabel.Config{Regex: relabel.MustNewRegexp(matched + ".*"), Action: relabel.LabelDrop}), errors.Join(errs...)
}

// fits marks series that all matchers fit. Each has a label of its own, which
// is 1 if that of the matcher before is and the series fits.
func fits(prefix string, matchers []*labels.Matcher) []*relabel.Config {
	last := prefix
	rules := []*relabel.Config{setLabel(last, "1")}
	for j, m := range matchers {
		next := fmt.Sprintf("%s_%d", prefix, j)
		pattern := m.Value
		if m.Type == labels.MatchEqual || m.Type == labels.MatchNotEqual {
			pattern = exactly(m.Value).String()
		}
		if m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp {
			rules = append(rules, rewrite(next, "1", relabel.MustNewRegexp("1;(?:"+pattern+")"), last, m.Name))
		} else {
			// An empty group at the front is what the label is set to.
			rules = append(rules, copyLabel(next, last), rewrite(next, "", relabel.MustNewRegexp("()(?:"+pattern+")"), m.Name))
		}
		last = next
	}
	return append(rules, rewrite(matched, "1", exactly("1"), last))
}
