package render

import (
	"errors"
	"fmt"
	"slices"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// evaluatorFile is the rule-evaluator's configuration, in its own format.
type evaluatorFile struct {
	Global         evaluatorGlobal           `yaml:"global,omitempty"`
	RuleConfigMaps []ruleConfigMaps          `yaml:"rule_config_maps"`
	Clusters       []map[string]string       `yaml:"clusters,omitempty"`
	Backends       []backend                 `yaml:"backends"`
	Limits         limits                    `yaml:"limits,omitempty"`
	Alerting       promconfig.AlertingConfig `yaml:"alerting,omitempty"`
	Collectors     collectors                `yaml:"collectors"`
}

// collectors are where members ask for targets.
type collectors struct {
	Addresses []string `yaml:"addresses"`
}

type evaluatorGlobal struct {
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
	ExternalURL    string            `yaml:"external_url,omitempty"`
	BackfillLimit  model.Duration    `yaml:"backfill_limit,omitempty"`
	ResendDelay    model.Duration    `yaml:"resend_delay,omitempty"`
	QueryTimeout   model.Duration    `yaml:"query_timeout,omitempty"`
}

type ruleConfigMaps struct {
	Namespace     string `yaml:"namespace"`
	LabelSelector string `yaml:"label_selector"`
}

type backend struct {
	Name             string                  `yaml:"name"`
	PartitionLabels  map[string]string       `yaml:"partition_labels,omitempty"`
	Virtual          bool                    `yaml:"virtual,omitempty"`
	URL              *config.URL             `yaml:"url"`
	HTTPClientConfig config.HTTPClientConfig `yaml:"http_client_config"`
	NoRemoteRead     bool                    `yaml:"no_remote_read,omitempty"`
	ReadDelay        model.Duration          `yaml:"read_delay,omitempty"`
	Thanos           *thanos                 `yaml:"thanos,omitempty"`
	RemoteWrite      *backendWrite           `yaml:"remote_write,omitempty"`
}

type thanos struct {
	Address   string            `yaml:"address"`
	TLSConfig *config.TLSConfig `yaml:"tls_config,omitempty"`
}

type backendWrite struct {
	URL              *config.URL             `yaml:"url"`
	HTTPClientConfig config.HTTPClientConfig `yaml:"http_client_config"`
}

type limits struct {
	Query   bounds         `yaml:"query,omitempty"`
	Tenant  bounds         `yaml:"tenant,omitempty"`
	Tenants []tenantLimits `yaml:"tenants,omitempty"`
}

type tenantLimits struct {
	Scope  map[string]string `yaml:"scope"`
	Query  bounds            `yaml:"query,omitempty"`
	Tenant bounds            `yaml:"tenant,omitempty"`
}

type bounds struct {
	Samples int64            `yaml:"samples,omitempty"`
	Series  int64            `yaml:"series,omitempty"`
	Bytes   units.Base2Bytes `yaml:"bytes,omitempty"`
	Time    model.Duration   `yaml:"time,omitempty"`
}

// Evaluator renders the rule-evaluators' configuration. The port is that of the
// managed Alertmanager's Service, 0 if there is none. The error names every
// field at fault; a rule-evaluator needs at least one backend.
func (r *Renderer) Evaluator(alertmanagerPort int32) (Config, error) {
	e := evaluation{credentials: credentials{scope: onlyNamespace(r.settings.PublicNamespace)}, namespace: r.settings.PublicNamespace}
	file := evaluatorFile{
		Global:         e.global(r.config.RuleEvaluation),
		RuleConfigMaps: []ruleConfigMaps{{Namespace: r.settings.SystemNamespace, LabelSelector: ConfigLabel + "=" + RulesConfig}},
		Backends:       e.backends(r.config.Backends),
		Limits:         e.limits(r.config.RuleEvaluation.Limits),
		Collectors:     collectors{Addresses: []string{"collector." + r.settings.SystemNamespace + ".svc:19090"}},
	}
	file.Global.ExternalLabels = r.externalLabels(r.config.Rules.ExternalLabels)
	file.Global.ExternalURL = r.config.Rules.GeneratorURL
	for _, cluster := range r.clusters() {
		file.Clusters = append(file.Clusters, cluster.Map())
	}
	if alertmanagerPort != 0 {
		file.Alerting.AlertmanagerConfigs = append(file.Alerting.AlertmanagerConfigs, managedAlertmanager(r.settings.SystemNamespace, alertmanagerPort))
	}
	for i, a := range r.config.Rules.Alerting.Alertmanagers {
		file.Alerting.AlertmanagerConfigs = append(file.Alerting.AlertmanagerConfigs, e.alertmanager(fmt.Sprintf("rules.alerting.alertmanagers[%d].", i), a))
	}
	if err := errors.Join(e.errs...); err != nil {
		return Config{}, err
	}
	text, err := yaml.Marshal(file)
	if err == nil && r.settings.CheckEvaluator != nil {
		err = r.settings.CheckEvaluator(text)
	}
	if err != nil {
		return Config{}, fmt.Errorf("the rule-evaluators' configuration is not valid: %w", err)
	}
	return Config{Text: text, Secrets: sortedSecrets(e.keys), Warnings: append(e.warnings, r.evaluatorWarnings()...)}, nil
}

// evaluatorWarnings say which fields of section rules don't do what they say.
func (r *Renderer) evaluatorWarnings() []string {
	var out []string
	rules := r.config.Rules
	for _, name := range []string{projectLabel, locationLabel, clusterLabel} {
		if value, ok := rules.ExternalLabels[name]; ok && value != r.place.Get(name) {
			out = append(out, fmt.Sprintf("rules.externalLabels: %s=%q differs from what collectors set, %q, which is what counts", name, value, r.place.Get(name)))
		}
	}
	if rules.QueryProjectID != "" {
		out = append(out, "rules.queryProjectID has no effect: the backends say what is queried")
	}
	if rules.Credentials != nil {
		out = append(out, "rules.credentials has no effect: give credentials to the entries of backends")
	}
	return out
}

// evaluation gathers what comes up while the configuration is rendered.
type evaluation struct {
	credentials

	// namespace is where the OperatorConfig and its Secrets are.
	namespace string
	warnings  []string
}

func (e *evaluation) global(in v1.RuleEvaluationSpec) evaluatorGlobal {
	return evaluatorGlobal{
		BackfillLimit: e.duration("ruleEvaluation.backfillLimit", in.BackfillLimit),
		ResendDelay:   e.duration("ruleEvaluation.resendDelay", in.ResendDelay),
		QueryTimeout:  e.duration("ruleEvaluation.queryTimeout", in.QueryTimeout),
	}
}

func (e *evaluation) duration(field, text string) model.Duration {
	if text == "" {
		return 0
	}
	d, err := duration(field, text)
	if err != nil {
		e.errs = append(e.errs, err)
	}
	return d
}

func (e *evaluation) limits(in v1.EvaluationLimits) limits {
	out := limits{Query: e.bounds("query", in.Query), Tenant: e.bounds("tenant", in.Tenant)}
	for i, t := range in.Tenants {
		field := fmt.Sprintf("tenants[%d].", i)
		out.Tenants = append(out.Tenants, tenantLimits{Scope: t.Scope, Query: e.bounds(field+"query", t.Query), Tenant: e.bounds(field+"tenant", t.Tenant)})
	}
	return out
}

func (e *evaluation) bounds(field string, in v1.CostBounds) bounds {
	field = "ruleEvaluation.limits." + field
	bytes, err := size(field+".bytes", in.Bytes)
	if err != nil {
		e.errs = append(e.errs, err)
	}
	return bounds{Samples: in.Samples, Series: in.Series, Bytes: bytes, Time: e.duration(field+".time", in.Time)}
}

func (e *evaluation) backends(in []v1.Backend) []backend {
	if len(in) == 0 {
		e.fail("backends", errors.New("at least one is needed to evaluate rules"))
	}
	out := make([]backend, len(in))
	for i, b := range in {
		out[i] = e.backend(fmt.Sprintf("backends[%d].", i), b)
	}
	return out
}

func (e *evaluation) backend(field string, in v1.Backend) backend {
	out := backend{
		Name:             in.Name,
		PartitionLabels:  in.PartitionLabels,
		Virtual:          in.Virtual,
		URL:              e.url(field+"url", in.URL),
		HTTPClientConfig: withHeaders(e.client(field, in.HTTPClientConfig), in.Headers),
		NoRemoteRead:     in.NoRemoteRead,
	}
	if in.ReadDelay != "" && in.ReadDelay != "0" {
		out.ReadDelay = e.duration(field+"readDelay", in.ReadDelay)
	}
	if out.URL != nil && len(in.Params) > 0 {
		query := out.URL.Query()
		for name, values := range in.Params {
			query[name] = slices.Concat(query[name], values)
		}
		out.URL.RawQuery = query.Encode()
	}
	if in.Thanos != nil {
		out.Thanos = &thanos{Address: in.Thanos.Address}
		if in.Thanos.TLS != nil {
			tls := e.tls(field+"thanos.tls.", *in.Thanos.TLS)
			out.Thanos.TLSConfig = &tls
		}
	}
	if in.RemoteWrite != nil {
		w := writeOf(in)
		out.RemoteWrite = &backendWrite{
			URL:              e.url(field+"remoteWrite.url", w.url),
			HTTPClientConfig: withHeaders(e.client(field+w.field, w.client), w.headers),
		}
	}
	return out
}

func (e *evaluation) url(field, text string) *config.URL {
	u, err := endpointURL(text)
	if err != nil {
		e.fail(field, err)
		return nil
	}
	return &config.URL{URL: u}
}

func withHeaders(c config.HTTPClientConfig, headers map[string]string) config.HTTPClientConfig {
	if len(headers) == 0 {
		return c
	}
	c.HTTPHeaders = &config.Headers{Headers: map[string]config.Header{}}
	for name, value := range headers {
		c.HTTPHeaders.Headers[name] = config.Header{Values: []string{value}}
	}
	return c
}
