package alert_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v2"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// base is the time 0 of all scripts.
var base = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// TestScripts runs the scripts in testdata. Their commands are:
//
//	rule                     the rule, as YAML; state is kept over edits
//	step at=T [partial]      one step; the body has the result, a sample a line
//	step-bytes at=T          the same; a line is a label's name and value, with escapes, and the sample's value
//	send at=T                what has to be sent
//	restore at=T ...         a state from nothing but ALERTS_FOR_STATE and ALERTS
//	forget                   a new member that was handed nothing
//	identities, selectors    of the rule
//
// Times are offsets from the script's beginning. Before each command the state
// is encoded and decoded, as if the rule moved to another member at every turn.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Parallel()
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.state = handedOver(t, s.state)
			return s.run(t, d)
		})
	})
}

type script struct {
	rule  alert.Rule
	state alert.State
}

// handedOver is a state as another member gets it.
func handedOver(t *testing.T, state alert.State) alert.State {
	t.Helper()
	encoded, err := json.Marshal(state)
	require.NoError(t, err)
	var decoded alert.State
	require.NoError(t, json.Unmarshal(encoded, &decoded))
	require.Equal(t, state.String(), decoded.String())
	again, err := json.Marshal(decoded)
	require.NoError(t, err)
	require.Equal(t, string(encoded), string(again))
	return decoded
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	switch d.Cmd {
	case "rule":
		s.rule = parseRule(t, d.Input)
		return ""
	case "forget":
		s.state = alert.State{}
		return ""
	case "step":
		return s.step(t, d, parseVector(t, d.Input))
	case "step-bytes":
		return s.step(t, d, parseBytes(t, d.Input))
	case "send":
		var due []alert.Notification
		due, s.state = alert.ToSend(s.rule, s.state, argTime(t, d, "at"))
		return relative(lines(due))
	case "restore":
		return s.restore(t, d)
	case "identities":
		return lines(alert.Identities([]alert.Rule{s.rule, s.rule, {Name: "Other"}}))
	case "selectors":
		forState, firing := s.rule.EvidenceSelectors()
		return fmt.Sprintf("%s\n%s\n", forState, firing)
	}
	d.Fatalf(t, "unknown command %q", d.Cmd)
	return ""
}

func (s *script) step(t *testing.T, d *datadriven.TestData, vector promql.Vector) string {
	t.Helper()
	slot := argTime(t, d, "at")
	step := alert.Step
	if d.HasArg("partial") {
		step = alert.StepPartial
	}
	result, err := step(s.rule, s.state, slot, vector, expander(s.rule.Name, slot))
	s.state = result.State
	var out strings.Builder
	out.WriteString(s.state.String())
	for _, sample := range result.Samples {
		fmt.Fprintf(&out, "  %s\n", formatSample(sample))
	}
	if result.TemplateErr != nil {
		fmt.Fprintf(&out, "template error: %s\n", result.TemplateErr)
	}
	if err != nil {
		fmt.Fprintf(&out, "error: %s\n", err)
	}
	return relative(out.String())
}

// restore reads lines of the form "SERIES active=T @T" and "SERIES @T"; "ended"
// in place of active is a staleness marker.
func (s *script) restore(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	found := alert.Evidence{}
	if d.HasArg("last") {
		found.LastSlot = argTime(t, d, "last")
	}
	for line := range strings.Lines(d.Input) {
		series, rest, ok := strings.Cut(strings.TrimSpace(line), "} ")
		require.True(t, ok, line)
		sample := promql.Sample{F: 1}
		var err error
		sample.Metric, err = parser.ParseMetric(series + "}")
		require.NoError(t, err)
		for _, word := range strings.Fields(rest) {
			switch {
			case word == "ended":
				sample.F = math.Float64frombits(value.StaleNaN)
			case strings.HasPrefix(word, "active="):
				sample.F = float64(parseTime(t, strings.TrimPrefix(word, "active=")).Unix())
			default:
				sample.T = timestamp.FromTime(parseTime(t, strings.TrimPrefix(word, "@")))
			}
		}
		if sample.Metric.Get(labels.MetricName) == "ALERTS" {
			found.Firing = append(found.Firing, sample)
		} else {
			found.ForState = append(found.ForState, sample)
		}
	}
	tolerance := alert.Tolerance{Outage: time.Hour, ForGracePeriod: 10 * time.Minute}
	s.state = alert.Restore(s.rule, argTime(t, d, "at"), found, tolerance)
	return relative(s.state.String())
}

func expander(name string, slot time.Time) alert.Expander {
	templates := alerting.NewTemplates(alerting.TemplatesConfig{
		ExternalLabels: labels.FromStrings("fleet", "test"),
		ExternalURL:    &url.URL{Scheme: "http", Host: "tocsin.example"},
	}, prometheus.NewRegistry())
	return templates.Expander(context.Background(), alerting.RuleTemplates{Alert: name, Slot: slot})
}

func parseRule(t *testing.T, input string) alert.Rule {
	t.Helper()
	var y struct {
		Name          string
		For           model.Duration
		KeepFiringFor model.Duration `yaml:"keep_firing_for"`
		Interval      model.Duration
		QueryOffset   model.Duration `yaml:"query_offset"`
		ResendDelay   model.Duration `yaml:"resend_delay"`
		Limit         int
		Labels        map[string]string
		Annotations   map[string]string
		Enforced      map[string]string
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(input), &y))
	return alert.Rule{
		Name:          y.Name,
		For:           time.Duration(y.For),
		KeepFiringFor: time.Duration(y.KeepFiringFor),
		Interval:      time.Duration(y.Interval),
		QueryOffset:   time.Duration(y.QueryOffset),
		ResendDelay:   time.Duration(y.ResendDelay),
		Limit:         y.Limit,
		Labels:        labels.FromMap(y.Labels),
		Annotations:   labels.FromMap(y.Annotations),
		Enforced:      labels.FromMap(y.Enforced),
	}
}

func parseVector(t *testing.T, input string) promql.Vector {
	t.Helper()
	var vector promql.Vector
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		i := strings.LastIndex(line, " ")
		metric, err := parser.ParseMetric(line[:i])
		require.NoError(t, err)
		v, err := strconv.ParseFloat(line[i+1:], 64)
		require.NoError(t, err)
		vector = append(vector, promql.Sample{Metric: metric, F: v})
	}
	return vector
}

// parseBytes reads what no text form of a series can hold.
func parseBytes(t *testing.T, input string) promql.Vector {
	t.Helper()
	var vector promql.Vector
	for line := range strings.Lines(input) {
		text, err := strconv.Unquote(`"` + strings.TrimSpace(line) + `"`)
		require.NoError(t, err)
		words := strings.Fields(text)
		v, err := strconv.ParseFloat(words[2], 64)
		require.NoError(t, err)
		vector = append(vector, promql.Sample{Metric: labels.FromStrings(words[0], words[1]), F: v})
	}
	return vector
}

func argTime(t *testing.T, d *datadriven.TestData, name string) time.Time {
	t.Helper()
	var offset string
	d.ScanArgs(t, name, &offset)
	return parseTime(t, offset)
}

func parseTime(t *testing.T, offset string) time.Time {
	t.Helper()
	o, err := time.ParseDuration(offset)
	require.NoError(t, err)
	return base.Add(o)
}

func formatSample(s promql.Sample) string {
	v := strconv.FormatFloat(s.F, 'g', -1, 64)
	if s.Metric.Get(labels.MetricName) == "ALERTS_FOR_STATE" {
		v = time.Unix(int64(s.F), 0).UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("%s %s @%s", s.Metric, v, timestamp.Time(s.T).UTC().Format(time.RFC3339Nano))
}

var timePattern = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)

// relative turns the times of a text into offsets from the script's beginning.
func relative(text string) string {
	return timePattern.ReplaceAllStringFunc(text, func(s string) string {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return errors.Join(errors.New(s), err).Error()
		}
		return at.Sub(base).String()
	})
}

func lines[T any](items []T) string {
	var b strings.Builder
	for _, item := range items {
		fmt.Fprintf(&b, "%v\n", item)
	}
	return b.String()
}
