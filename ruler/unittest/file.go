package unittest

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v2"

	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
)

// file is a unit-test file. The format is promtool's, and so is the decoder, so
// that no file means something else here.
type file struct {
	// RuleFiles are patterns, relative to the file; once loaded, the files that
	// match, each once.
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval,omitempty"`
	GroupEvalOrder     []string       `yaml:"group_eval_order"`
	Tests              []testCase     `yaml:"tests"`
	FuzzyCompare       bool           `yaml:"fuzzy_compare,omitempty"`
}

// testCase is a set of series and what rules make of it.
type testCase struct {
	Interval       model.Duration `yaml:"interval"`
	InputSeries    []inputSeries  `yaml:"input_series"`
	Alerts         []alertTest    `yaml:"alert_rule_test,omitempty"`
	Exprs          []exprTest     `yaml:"promql_expr_test,omitempty"`
	ExternalLabels labels.Labels  `yaml:"external_labels,omitempty"`
	ExternalURL    string         `yaml:"external_url,omitempty"`
	Name           string         `yaml:"name,omitempty"`
	Start          timestamp      `yaml:"start_timestamp,omitempty"`
}

// inputSeries is in the notation of Prometheus' own test language.
type inputSeries struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type alertTest struct {
	EvalTime model.Duration  `yaml:"eval_time"`
	Name     string          `yaml:"alertname"`
	Expected []expectedAlert `yaml:"exp_alerts"`
}

type expectedAlert struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

type exprTest struct {
	Expr     string           `yaml:"expr"`
	EvalTime model.Duration   `yaml:"eval_time"`
	Expected []expectedSample `yaml:"exp_samples"`
}

// expectedSample has a histogram, or else a value.
type expectedSample struct {
	Labels    string  `yaml:"labels"`
	Value     float64 `yaml:"value"`
	Histogram string  `yaml:"histogram"`
}

// timestamp is written in seconds since the epoch or in RFC 3339.
type timestamp struct{ time.Time }

// UnmarshalYAML implements yaml.Unmarshaler.
func (t *timestamp) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		seconds, fraction := math.Modf(f)
		t.Time = time.Unix(int64(seconds), int64(fraction*float64(time.Second))).UTC()
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("cannot parse %q to a valid timestamp", text)
	}
	t.Time = at
	return nil
}

// loadFile reads a unit-test file and finds its rule files. Patterns that match
// nothing are remarked on.
func loadFile(name string, stderr io.Writer) (*file, error) {
	content, err := source.ReadFile(name, source.DefaultConfig().MaxFileBytes)
	if err != nil {
		return nil, err
	}
	f := &file{}
	if err := yaml.UnmarshalStrict(content, f); err != nil {
		return nil, err
	}
	if err := f.findRules(filepath.Dir(name), stderr); err != nil {
		return nil, err
	}
	for i, group := range f.GroupEvalOrder {
		if slices.Contains(f.GroupEvalOrder[:i], group) {
			return nil, fmt.Errorf("group name repeated in evaluation order: %s", group)
		}
	}
	if f.EvaluationInterval == 0 {
		f.EvaluationInterval = model.Duration(time.Minute)
	}
	for i := range f.Tests {
		if f.Tests[i].Interval == 0 {
			f.Tests[i].Interval = f.EvaluationInterval
		}
	}
	return f, nil
}

func (f *file) findRules(dir string, stderr io.Writer) error {
	var found []string
	for _, pattern := range f.RuleFiles {
		if pattern != "" && !filepath.IsAbs(pattern) {
			pattern = filepath.Join(dir, pattern)
		}
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		if len(matches) == 0 {
			fmt.Fprintln(stderr, "  WARNING: no file match pattern", pattern)
		}
		for _, m := range matches {
			if !slices.Contains(found, m) {
				found = append(found, m)
			}
		}
	}
	f.RuleFiles = found
	return nil
}

// groups reads the rule files. Groups are in the order of group_eval_order;
// those that it does not name count as its first, and what is equal is in the
// order of the files.
func (f *file) groups(opts rule.Options) ([]rule.Group, []error) {
	var groups []rule.Group
	var faults []error
	for _, name := range f.RuleFiles {
		content, err := source.ReadFile(name, source.DefaultConfig().MaxFileBytes)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		parsed, errs := rule.Parse(name, content, opts)
		groups, faults = append(groups, parsed...), append(faults, errs...)
	}
	slices.SortStableFunc(groups, func(a, b rule.Group) int { return f.position(a) - f.position(b) })
	return groups, faults
}

func (f *file) position(g rule.Group) int { return max(0, slices.Index(f.GroupEvalOrder, g.Name)) }

// span is the greatest time that something is asked at.
func (t testCase) span() time.Duration {
	var last model.Duration
	for _, a := range t.Alerts {
		last = max(last, a.EvalTime)
	}
	for _, e := range t.Exprs {
		last = max(last, e.EvalTime)
	}
	return time.Duration(last)
}

// start is the time that all others are counted from.
func (t testCase) start() time.Time {
	if t.Start.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return t.Start.Time
}

// load is the command of Prometheus' test language that makes the series.
func (t testCase) load() string {
	var b strings.Builder
	fmt.Fprintf(&b, "load %v\n", t.Interval)
	for _, s := range t.InputSeries {
		fmt.Fprintf(&b, "  %v %v\n", s.Series, s.Values)
	}
	return b.String()
}
