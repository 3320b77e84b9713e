package alerting

import (
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// grafana is what docs/operations.md suggests.
const grafana = `https://grafana.example/explore?schemaVersion=1&panes={{ printf
	"{\"a\":{\"datasource\":\"tocsin\",\"queries\":[{\"refId\":\"A\",\"expr\":%s}],\"range\":{\"from\":\"now-1h\",\"to\":\"now\"}}}"
	(json .Expr) | urlquery }}`

func TestGeneratorURLs(t *testing.T) {
	t.Parallel()
	external := &url.URL{Scheme: "https", Host: "tocsin.example", Path: "/rules"}
	const expr = `rate(x{a="ü"}[5m]) > 1`
	n := alert.Notification{Labels: labels.FromStrings("alertname", "X", "pod", "a b"), StartsAt: time.Unix(1700000000, 0)}
	for name, c := range map[string]struct{ template, want string }{
		"Prometheus' form":      {"", "https://tocsin.example/rules/graph?g0.expr=rate%28x%7Ba%3D%22%C3%BC%22%7D%5B5m%5D%29+%3E+1&g0.tab=1"},
		"Grafana":               {grafana, "https://grafana.example/explore?schemaVersion=1&panes=%7B%22a%22%3A%7B%22datasource%22%3A%22tocsin%22%2C%22queries%22%3A%5B%7B%22refId%22%3A%22A%22%2C%22expr%22%3A%22rate%28x%7Ba%3D%5C%22%C3%BC%5C%22%7D%5B5m%5D%29+%5Cu003e+1%22%7D%5D%2C%22range%22%3A%7B%22from%22%3A%22now-1h%22%2C%22to%22%3A%22now%22%7D%7D%7D"},
		"labels and times":      {"{{ .ExternalURL }}/a/{{ .Labels.alertname }}?pod={{ urlquery .Labels.pod }}&x={{ .Labels.nope }}&from={{ .StartsAt.UnixMilli }}", "https://tocsin.example/rules/a/X?pod=a+b&x=&from=1700000000000"},
		"one that fails for it": {`http://x/{{ if eq .Labels.alertname "X" }}{{ index .Labels.pod 100 }}{{ end }}`, "https://tocsin.example/rules/graph?g0.expr=rate%28x%7Ba%3D%22%C3%BC%22%7D%5B5m%5D%29+%3E+1&g0.tab=1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := newGenerator(external, c.template)
			require.NoError(t, err)
			require.Equal(t, c.want, g.url(expr, n))
		})
	}
	for template, want := range map[string]string{
		"{{ nope }}":           `function "nope" not defined`,
		"{{ .Nope }}":          "can't evaluate field Nope",
		"/graph?{{ .Expr }}":   "is no URL with scheme and host",
		"http://a b/{{ 1 }}":   "invalid character",
		"{{ if }}":             "missing value for if",
		"{{ json .ToString }}": "can't evaluate field ToString",
	} {
		_, err := newGenerator(external, template)
		require.ErrorContains(t, err, want, template)
	}
}
