package alerting

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
)

func TestExpander(t *testing.T) {
	t.Parallel()
	slot := time.Unix(1_700_000_000, 0)
	query := func(_ context.Context, q string, at time.Time) (promql.Vector, error) {
		if q != "sum(up)" {
			return nil, errors.New("nothing else may be asked")
		}
		return promql.Vector{{Metric: labels.FromStrings("at", at.UTC().Format(time.TimeOnly)), F: 3}}, nil
	}
	sample := promql.Sample{Metric: labels.FromStrings("__name__", "x", "job", "api"), F: 0.25}
	expand := NewExpander(t.Context(), ExpanderConfig{
		Alert:          "X",
		Slot:           slot,
		ExternalLabels: labels.FromStrings("fleet", "f"),
		ExternalURL:    &url.URL{Scheme: "http", Host: "tocsin.example", Path: "/rules"},
		Query:          query,
	})
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
		"more text than anybody wants": {`{{ printf "%70000d" 1 }}`, "", "70000 bytes, the limit is 65536"},
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
