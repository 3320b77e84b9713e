package alerting

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

func TestTemplates(t *testing.T) {
	t.Parallel()
	slot := time.Unix(1_700_000_000, 0)
	query := func(_ context.Context, q string, at time.Time) (promql.Vector, error) {
		if q != "sum(up)" {
			return nil, errors.New("nothing else may be asked")
		}
		return promql.Vector{{Metric: labels.FromStrings("at", at.UTC().Format(time.TimeOnly)), F: 3}}, nil
	}
	sample := promql.Sample{Metric: labels.FromStrings("__name__", "x", "job", "api"), F: 0.25}
	templates := NewTemplates(TemplatesConfig{
		ExternalLabels: labels.FromStrings("fleet", "f"),
		ExternalURL:    &url.URL{Scheme: "http", Host: "tocsin.example", Path: "/rules"},
	}, prometheus.NewRegistry())
	expand := templates.Expander(t.Context(), RuleTemplates{Alert: "X", Slot: slot, Query: query})
	for name, c := range map[string]struct{ text, want, err string }{
		"text without templates":       {"100 % }} plain", "100 % }} plain", ""},
		"labels and value":             {"{{ $labels.job }}/{{ .Labels.job }} {{ $value | humanizePercentage }}", "api/api 25%", ""},
		"the metric's name":            {"{{ $labels.__name__ }}", "x", ""},
		"a label that is not there":    {"<{{ $labels.nope }}>", "<>", ""},
		"external labels and URL":      {"{{ $externalLabels.fleet }} {{ externalURL }} {{ pathPrefix }}", "f http://tocsin.example/rules /rules", ""},
		"the slot":                     {"{{ now | humanizeTimestamp }}", "2023-11-14 22:13:20 +0000 UTC", ""},
		"a query at the slot":          {`{{ with query "sum(up)" }}{{ . | first | value }} {{ . | first | label "at" }}{{ end }}`, "3 22:13:20", ""},
		"a query that fails":           {`{{ query "secret" }}`, "", "nothing else may be asked"},
		"a syntax error":               {"{{ if }}", "", "__alert_X"},
		"a panic":                      {`{{ reReplaceAll "(" "" "x" }}`, "", "missing closing )"},
		"more text than anybody wants": {`{{ printf "%70000d" 1 }}`, "", "has 70000 bytes, max_alert_text_bytes is 65536"},
		"another template by its name": {`{{ define "a" }}A{{ end }}{{ template "a" }}`, "A", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := expand(c.text, sample)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	native := promql.Sample{H: &histogram.FloatHistogram{Count: 2, Sum: 5}}
	got, err := expand("{{ $value.Sum }}", native)
	require.NoError(t, err)
	require.Equal(t, "5", got)
}

// Whoever wrote it, nobody reads ten megabytes: the alert goes out, with an
// error that names the limit.
func TestATextThatIsTooLongBecomesAnError(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	templates := NewTemplates(TemplatesConfig{ExternalURL: &url.URL{}, MaxTextBytes: 1000}, reg)
	rule := alert.Rule{Name: "Long", Annotations: labels.FromStrings(
		"literal", strings.Repeat("x", 10<<20),
		"expanded", `{{ printf "%1001d" 1 }}`,
		"broken", "{{ nope }}",
		"fine", "{{ $value }}")}
	expand := templates.Expander(t.Context(), RuleTemplates{Alert: "Long"})
	result, err := alert.Step(rule, alert.State{}, time.Unix(0, 0), promql.Vector{{F: 1}}, expand)
	require.NoError(t, err)
	require.ErrorContains(t, result.TemplateErr, "nope")
	alerts := result.State.Alerts()
	require.Len(t, alerts, 1)
	require.Equal(t, alert.Firing, alerts[0].Status)
	require.Equal(t, map[string]string{
		"literal":  `<error expanding template: a text of alert "Long" has 10485760 bytes, max_alert_text_bytes is 1000>`,
		"expanded": `<error expanding template: a text of alert "Long" has 1001 bytes, max_alert_text_bytes is 1000>`,
		"broken":   `<error expanding template: error parsing template __alert_Long: template: __alert_Long:1: function "nope" not defined>`,
		"fine":     "1",
	}, alerts[0].Annotations.Map())
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP prometheus_template_text_expansion_failures_total Templates of labels and annotations that could not be expanded.
# TYPE prometheus_template_text_expansion_failures_total counter
prometheus_template_text_expansion_failures_total 1
# HELP prometheus_template_text_expansions_total Templates of labels and annotations that were expanded.
# TYPE prometheus_template_text_expansions_total counter
prometheus_template_text_expansions_total 3
# HELP tocsin_alerting_texts_too_long_total Labels and annotations that an error took the place of, because they were longer than max_alert_text_bytes.
# TYPE tocsin_alerting_texts_too_long_total counter
tocsin_alerting_texts_too_long_total 2
`)))
}
