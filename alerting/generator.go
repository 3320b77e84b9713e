package alerting

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/template"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/strutil"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// generator makes the generator URLs of alerts: where somebody who got one looks
// at what raised it.
type generator struct {
	external string
	// template is nil for Prometheus' form.
	template *template.Template
}

// generatorData is what a template of generator URLs sees.
type generatorData struct {
	ExternalURL string
	// Expr is that of the rule, restricted to its tenancy.
	Expr     string
	Labels   map[string]string
	StartsAt time.Time
}

// generatorFunctions complement those of text/template, of which urlquery is the
// one that is needed.
var generatorFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		encoded, err := json.Marshal(v)
		return string(encoded), err
	},
}

// CheckGeneratorURL is an error if text is no template of generator URLs, see
// Config.GeneratorURL.
func CheckGeneratorURL(text string) error {
	_, err := newGenerator(&url.URL{Scheme: "http", Host: "localhost"}, text)
	return err
}

// newGenerator parses a template and tries it out; empty text means Prometheus'
// form.
func newGenerator(external *url.URL, text string) (generator, error) {
	g := generator{external: external.String()}
	if text == "" {
		return g, nil
	}
	t, err := template.New("generator_url").Funcs(generatorFunctions).Option("missingkey=zero").Parse(text)
	if err != nil {
		return g, fmt.Errorf("generator_url: %w", err)
	}
	g.template = t
	probe := alert.Notification{Labels: labels.FromStrings(labels.AlertName, "Example"), StartsAt: time.Unix(0, 0)}
	if _, err = g.expand(`rate(example{a="b"}[5m]) > 1`, probe); err != nil {
		return g, fmt.Errorf("generator_url: %w", err)
	}
	return g, nil
}

// url is that of the template or, if it fails for this alert, Prometheus' form:
// an alert without a link is worth more than none.
func (g generator) url(expr string, n alert.Notification) string {
	if g.template != nil {
		if expanded, err := g.expand(expr, n); err == nil {
			return expanded
		}
	}
	return g.external + strutil.TableLinkForExpression(expr)
}

func (g generator) expand(expr string, n alert.Notification) (string, error) {
	var b strings.Builder
	data := generatorData{ExternalURL: g.external, Expr: expr, Labels: n.Labels.Map(), StartsAt: n.StartsAt}
	if err := g.template.Execute(&b, data); err != nil {
		return "", err
	}
	u, err := url.Parse(b.String())
	if err != nil {
		return "", err
	}
	if u.Scheme == "" || u.Host == "" {
		return "", fmt.Errorf("%q is no URL with scheme and host", b.String())
	}
	return b.String(), nil
}
