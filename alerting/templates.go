package alerting

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// DefaultMaxTextBytes is the length of a label or an annotation that no alert
// exceeds, unless it is configured.
const DefaultMaxTextBytes = 64 << 10

// templatePrologue names what users would otherwise have to reach for through
// the dot, as Prometheus does.
const templatePrologue = `{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}` +
	`{{$externalURL := .ExternalURL}}{{$value := .Value}}`

// TemplatesConfig is what the templates of all rules see, and what they may
// become.
type TemplatesConfig struct {
	// ExternalLabels and ExternalURL are those of the configuration.
	ExternalLabels labels.Labels
	ExternalURL    *url.URL
	// MaxTextBytes bounds the text of one label or annotation; 0 means
	// DefaultMaxTextBytes.
	MaxTextBytes int
}

// Templates makes expanders. It is safe for concurrent use.
type Templates struct {
	cfg                           TemplatesConfig
	externalLabels                map[string]string
	expansions, failures, tooLong prometheus.Counter
}

// NewTemplates registers the metrics of all expanders, which have Prometheus'
// names where Prometheus has them.
func NewTemplates(cfg TemplatesConfig, reg prometheus.Registerer) *Templates {
	if cfg.MaxTextBytes == 0 {
		cfg.MaxTextBytes = DefaultMaxTextBytes
	}
	f := promauto.With(reg)
	return &Templates{
		cfg:            cfg,
		externalLabels: cfg.ExternalLabels.Map(),
		expansions: f.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_template_text_expansions_total",
			Help: "Templates of labels and annotations that were expanded.",
		}),
		failures: f.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_template_text_expansion_failures_total",
			Help: "Templates of labels and annotations that could not be expanded.",
		}),
		tooLong: f.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerting_texts_too_long_total",
			Help: "Labels and annotations that an error took the place of, because they were longer than max_alert_text_bytes.",
		}),
	}
}

// RuleTemplates is what the templates of one rule see at one slot.
type RuleTemplates struct {
	// Alert is the rule's name.
	Alert string
	Slot  time.Time
	// Query answers the query function of templates. It has to restrict what it
	// is given to the rule's tenancy and to bound what it returns.
	Query template.QueryFunc
}

// Expander returns an expander with all of Prometheus' template functions. It is
// safe for concurrent use if Query is. Queries of templates end with ctx.
func (t *Templates) Expander(ctx context.Context, r RuleTemplates) alert.Expander {
	return func(text string, sample promql.Sample) (string, error) {
		if strings.Contains(text, "{{") {
			t.expansions.Inc()
			expanded, err := t.expand(ctx, r, text, sample)
			if err != nil {
				t.failures.Inc()
				return expanded, err
			}
			text = expanded
		}
		if len(text) > t.cfg.MaxTextBytes {
			t.tooLong.Inc()
			return "", fmt.Errorf("a text of alert %q has %d bytes, max_alert_text_bytes is %d", r.Alert, len(text), t.cfg.MaxTextBytes)
		}
		return text, nil
	}
}

func (t *Templates) expand(ctx context.Context, r RuleTemplates, text string, sample promql.Sample) (string, error) {
	data := template.AlertTemplateData(sample.Metric.Map(), t.externalLabels, t.cfg.ExternalURL.String(), sample)
	return template.NewTemplateExpander(ctx, templatePrologue+text, "__alert_"+r.Alert, data,
		model.Time(timestamp.FromTime(r.Slot)), r.Query, t.cfg.ExternalURL, nil).Expand()
}
