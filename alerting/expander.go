package alerting

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// maxExpandedBytes bounds the text that one label or annotation may become.
const maxExpandedBytes = 64 << 10

// templatePrologue names what users would otherwise have to reach for through
// the dot, as Prometheus does.
const templatePrologue = `{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}` +
	`{{$externalURL := .ExternalURL}}{{$value := .Value}}`

// ExpanderConfig is what the templates of one rule see at one slot.
type ExpanderConfig struct {
	// Alert is the rule's name.
	Alert string
	Slot  time.Time
	// ExternalLabels and ExternalURL are those of the configuration.
	ExternalLabels labels.Labels
	ExternalURL    *url.URL
	// Query answers the query function of templates. It has to restrict what it
	// is given to the rule's tenancy and to bound what it returns.
	Query template.QueryFunc
}

// NewExpander returns an expander with all of Prometheus' template functions.
// It is safe for concurrent use if Query is. Queries of templates end with ctx.
func NewExpander(ctx context.Context, cfg ExpanderConfig) alert.Expander {
	externalLabels := cfg.ExternalLabels.Map()
	expand := func(text string, sample promql.Sample) (string, error) {
		data := template.AlertTemplateData(sample.Metric.Map(), externalLabels, cfg.ExternalURL.String(), sample)
		return template.NewTemplateExpander(ctx, templatePrologue+text, "__alert_"+cfg.Alert, data,
			model.Time(timestamp.FromTime(cfg.Slot)), cfg.Query, cfg.ExternalURL, nil).Expand()
	}
	return func(text string, sample promql.Sample) (string, error) {
		if !strings.Contains(text, "{{") {
			return text, nil
		}
		expanded, err := expand(text, sample)
		if len(expanded) > maxExpandedBytes {
			return "", fmt.Errorf("template of alert %q became %d bytes, the limit is %d", cfg.Alert, len(expanded), maxExpandedBytes)
		}
		return expanded, err
	}
}
