package alerting

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/sigv4"
)

const (
	// pathLabel is the label by which relabelling sees and changes the path.
	pathLabel  = "__alerts_path__"
	alertsPath = "/api/v2/alerts"
	// maxAlertmanagers bounds what discovery may return for one entry of the
	// configuration.
	maxAlertmanagers = 256
)

// route is how notifications reach the Alertmanagers of one entry of the
// configuration. It is immutable; a reload makes a new one.
type route struct {
	cfg    *config.AlertmanagerConfig
	client *http.Client
	// externalLabels and relabel apply to the alerts of all entries.
	externalLabels labels.Labels
	relabel        []*relabel.Config
}

func newRoute(cfg *config.AlertmanagerConfig, alertRelabel []*relabel.Config, externalLabels labels.Labels) (*route, error) {
	client, err := commonconfig.NewClientFromConfig(cfg.HTTPClientConfig, "alertmanager")
	if err != nil {
		return nil, fmt.Errorf("HTTP client: %w", err)
	}
	if cfg.SigV4Config != nil {
		if client.Transport, err = sigv4.NewSigV4RoundTripper(cfg.SigV4Config, client.Transport); err != nil {
			return nil, fmt.Errorf("sigv4: %w", err)
		}
	}
	return &route{cfg: cfg, client: client, externalLabels: externalLabels, relabel: alertRelabel}, nil
}

func (r *route) timeout() time.Duration {
	if r.cfg.Timeout == 0 {
		return time.Duration(config.DefaultAlertmanagerConfig.Timeout)
	}
	return time.Duration(r.cfg.Timeout)
}

// payload encodes a batch for Alertmanager. The number is that of the alerts
// that relabelling has left. Relabelling may drop an alert, but not move it into
// another tenancy.
func (r *route) payload(batch []*item) ([]byte, int, error) {
	alerts := make(models.PostableAlerts, 0, len(batch))
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, i := range batch {
		b.Reset(i.Labels)
		r.externalLabels.Range(func(l labels.Label) {
			if !i.Labels.Has(l.Name) {
				b.Set(l.Name, l.Value)
			}
		})
		if !relabel.ProcessBuilder(b, r.relabel...) || !relabel.ProcessBuilder(b, r.cfg.AlertRelabelConfigs...) {
			continue
		}
		i.Enforced.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		alerts = append(alerts, &models.PostableAlert{
			Annotations: i.Annotations.Map(),
			StartsAt:    strfmt.DateTime(i.StartsAt),
			EndsAt:      strfmt.DateTime(i.EndsAt),
			Alert: models.Alert{
				GeneratorURL: strfmt.URI(i.generatorURL),
				Labels:       b.Labels().Map(),
			},
		})
	}
	body, err := json.Marshal(alerts)
	return body, len(alerts), err
}

// alertmanagers are the URLs that a discovery result stands for, sorted and
// without repetitions, and those that relabelling dropped. Targets that are no
// addresses are left out and returned as errors.
func (r *route) alertmanagers(groups []*targetgroup.Group) (active, dropped []*url.URL, errs []error) {
	for _, group := range groups {
		for _, target := range group.Targets {
			b := r.targetLabels(target, group.Labels)
			before := targetURL(b)
			if !relabel.ProcessBuilder(b, r.cfg.RelabelConfigs...) {
				dropped = append(dropped, before)
				continue
			}
			if err := config.CheckTargetAddress(model.LabelValue(b.Get(model.AddressLabel))); err != nil {
				errs = append(errs, fmt.Errorf("discovered Alertmanager: %w", err))
				continue
			}
			active = append(active, targetURL(b))
		}
	}
	active = sortURLs(active)
	if n := len(active) - maxAlertmanagers; n > 0 {
		errs = append(errs, fmt.Errorf("%d Alertmanagers discovered, the limit is %d: the last %d get no alerts", len(active), maxAlertmanagers, n))
		active = active[:maxAlertmanagers]
	}
	return active, sortURLs(dropped), errs
}

// targetLabels are what relabelling sees of a target: its labels, those of its
// group that it does not have itself, and the scheme and path configured.
func (r *route) targetLabels(target, group model.LabelSet) *labels.Builder {
	b := labels.NewBuilder(labels.EmptyLabels())
	for name, value := range target {
		b.Set(string(name), string(value))
	}
	b.Set(model.SchemeLabel, r.cfg.Scheme)
	b.Set(pathLabel, path.Join("/", r.cfg.PathPrefix, alertsPath))
	for name, value := range group {
		if _, own := target[name]; !own {
			b.Set(string(name), string(value))
		}
	}
	return b
}

func targetURL(b *labels.Builder) *url.URL {
	return &url.URL{Scheme: b.Get(model.SchemeLabel), Host: b.Get(model.AddressLabel), Path: b.Get(pathLabel)}
}

func sortURLs(urls []*url.URL) []*url.URL {
	compare := func(a, b *url.URL) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(urls, compare)
	return slices.CompactFunc(urls, func(a, b *url.URL) bool { return compare(a, b) == 0 })
}
