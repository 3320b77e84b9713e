package app

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/kubernetes" // For kubernetes_sd_configs.
	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/web/targets"
)

// maxConfigBytes bounds the configuration file.
const maxConfigBytes = 4 << 20

// Config is the rule-evaluator's configuration file.
type Config struct {
	Global GlobalConfig `yaml:"global,omitempty"`
	// RuleFiles are files, directories (searched recursively) and globs.
	RuleFiles []string `yaml:"rule_files,omitempty"`
	// RuleConfigMaps are ConfigMaps of Kubernetes whose keys are rule files.
	RuleConfigMaps []source.ConfigMaps `yaml:"rule_config_maps,omitempty"`
	// Clusters are the label sets that Rules and ClusterRules manifests are
	// instantiated for.
	Clusters []map[string]string       `yaml:"clusters,omitempty"`
	Backends []evaluator.BackendConfig `yaml:"backends"`
	// Limits bound what the queries of rules and tenants may cost.
	Limits   evaluator.Limits `yaml:"limits,omitempty"`
	Alerting AlertingConfig   `yaml:"alerting,omitempty"`
	// Collectors are those whose targets /api/v1/targets shows.
	Collectors targets.Config `yaml:"collectors,omitempty"`
}

// GlobalConfig holds what applies to all groups.
type GlobalConfig struct {
	// EvaluationInterval is that of groups which give none; default 1m.
	EvaluationInterval model.Duration `yaml:"evaluation_interval,omitempty"`
	// ExternalLabels are added to alerts on their way to Alertmanager.
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
	// ExternalURL is where users reach this cluster; links in alerts point
	// there.
	ExternalURL string `yaml:"external_url,omitempty"`
	// GeneratorURL is a template for the links in alerts to what raised them,
	// see alerting.Config; default is Prometheus' form below ExternalURL.
	GeneratorURL string `yaml:"generator_url,omitempty"`
	// NotificationQueueCapacity is the number of alerts that may wait for one
	// Alertmanager; default 100,000. The oldest are dropped.
	NotificationQueueCapacity int `yaml:"notification_queue_capacity,omitempty"`
	// MaxAlertTextBytes bounds the text of one label or annotation of an alert;
	// default 64 KiB. An error takes the place of longer ones.
	MaxAlertTextBytes int `yaml:"max_alert_text_bytes,omitempty"`
	// BackfillLimit is the age beyond which missed slots are given up;
	// default 1h.
	BackfillLimit model.Duration `yaml:"backfill_limit,omitempty"`
	// ResendDelay is the shortest time between two notifications that say
	// the same; default 1m.
	ResendDelay model.Duration `yaml:"resend_delay,omitempty"`
	// QueryTimeout bounds the evaluation of one batch; default 30s.
	QueryTimeout model.Duration `yaml:"query_timeout,omitempty"`
	// WriteMaxPendingSamples bounds the recorded samples that are on their way to
	// one backend; default 1 million.
	WriteMaxPendingSamples int `yaml:"write_max_pending_samples,omitempty"`
	// MaxUnwrittenAlertSeries bounds what one alerting rule keeps while its
	// samples can't be written: a series counts once for each time that its value
	// changes; default 10,000.
	MaxUnwrittenAlertSeries int `yaml:"max_unwritten_alert_series,omitempty"`
}

// AlertingConfig is Prometheus' section of the same name, in its own format.
type AlertingConfig struct{ config.AlertingConfig }

// UnmarshalYAML reads the section with Prometheus' own decoder, so that every
// setting and every error is Prometheus'.
func (c *AlertingConfig) UnmarshalYAML(node *yaml.Node) error {
	section, err := yaml.Marshal(map[string]*yaml.Node{"alerting": node})
	if err != nil {
		return err
	}
	parsed, err := config.Load(string(section), nil)
	if err != nil {
		return fmt.Errorf("line %d: alerting: %w", node.Line, err)
	}
	c.AlertingConfig = parsed.AlertingConfig
	return nil
}

// LoadConfig reads and validates a configuration file. Relative paths in it
// are relative to its directory.
func LoadConfig(file string) (*Config, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if info.Size() > maxConfigBytes {
		return nil, fmt.Errorf("configuration file %q has %d bytes, the limit is %d", file, info.Size(), maxConfigBytes)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := parseConfig(content)
	if err != nil {
		return nil, fmt.Errorf("configuration file %q: %w", file, err)
	}
	cfg.resolve(filepath.Dir(file))
	return cfg, nil
}

// CheckConfig says whether a rule-evaluator would take a configuration file with
// this content. The error reports all faults at once.
func CheckConfig(content []byte) error {
	_, err := parseConfig(content)
	return err
}

func defaultConfig() *Config {
	return &Config{Global: GlobalConfig{
		EvaluationInterval: model.Duration(time.Minute),
		BackfillLimit:      model.Duration(time.Hour),
		ResendDelay:        model.Duration(time.Minute),
		QueryTimeout:       model.Duration(30 * time.Second),

		WriteMaxPendingSamples:  1_000_000,
		MaxUnwrittenAlertSeries: 10_000,
	}, Limits: evaluator.DefaultConfig().Limits}
}

func parseConfig(content []byte) (*Config, error) {
	cfg := defaultConfig()
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(cfg); err != nil {
		return nil, err
	}
	return cfg, cfg.validate()
}

func (c *Config) resolve(dir string) {
	for i, f := range c.RuleFiles {
		c.RuleFiles[i] = commonconfig.JoinDir(dir, f)
	}
	for i, m := range c.RuleConfigMaps {
		c.RuleConfigMaps[i].KubeconfigFile = commonconfig.JoinDir(dir, m.KubeconfigFile)
	}
	for i := range c.Backends {
		c.Backends[i].SetDirectory(dir)
	}
	for _, am := range c.Alerting.AlertmanagerConfigs {
		am.SetDirectory(dir)
	}
	c.Collectors.SetDirectory(dir)
}

func (c *Config) validate() error {
	var errs []error
	if len(c.Backends) == 0 {
		errs = append(errs, errors.New("backends: at least one is needed"))
	}
	if len(c.RuleFiles)+len(c.RuleConfigMaps) == 0 {
		errs = append(errs, errors.New("rule_files: at least one file or directory, or an entry of rule_config_maps, is needed"))
	}
	for i, m := range c.RuleConfigMaps {
		if err := m.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("rule_config_maps: entry %d: %w", i+1, err))
		}
	}
	for name, d := range map[string]model.Duration{
		"evaluation_interval": c.Global.EvaluationInterval,
		"backfill_limit":      c.Global.BackfillLimit,
		"resend_delay":        c.Global.ResendDelay,
		"query_timeout":       c.Global.QueryTimeout,
	} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("global: %s must be positive", name))
		}
	}
	for name, n := range map[string]int{
		"write_max_pending_samples":  c.Global.WriteMaxPendingSamples,
		"max_unwritten_alert_series": c.Global.MaxUnwrittenAlertSeries,
	} {
		if n <= 0 {
			errs = append(errs, fmt.Errorf("global: %s must be positive", name))
		}
	}
	if c.Global.NotificationQueueCapacity < 0 || c.Global.MaxAlertTextBytes < 0 {
		errs = append(errs, errors.New("global: notification_queue_capacity and max_alert_text_bytes must be positive"))
	}
	if _, err := url.Parse(c.Global.ExternalURL); err != nil {
		errs = append(errs, fmt.Errorf("global: external_url: %w", err))
	}
	if err := alerting.CheckGeneratorURL(c.Global.GeneratorURL); err != nil {
		errs = append(errs, fmt.Errorf("global: %w", err))
	}
	if err := c.Collectors.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("collectors: %w", err))
	}
	if err := c.Evaluator().Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) scopes() []labels.Labels {
	scopes := make([]labels.Labels, len(c.Clusters))
	for i, m := range c.Clusters {
		scopes[i] = labels.FromMap(m)
	}
	return scopes
}

// RuleOptions say how rule files become groups.
func (c *Config) RuleOptions() rule.Options {
	return rule.Options{
		DefaultInterval: time.Duration(c.Global.EvaluationInterval),
		Clusters:        c.scopes(),
		Scope:           plan.Scope,
	}
}

// Evaluator is the configuration of the evaluator.
func (c *Config) Evaluator() evaluator.Config {
	ec := evaluator.DefaultConfig()
	ec.Backends = c.Backends
	ec.Timeout = c.Global.QueryTimeout
	ec.Limits = c.Limits
	return ec
}

// readDelay is that of the slowest backend.
func (c *Config) readDelay() (longest time.Duration) {
	for _, b := range c.Backends {
		longest = max(longest, time.Duration(b.ReadDelay))
	}
	return longest
}

// writer is the configuration of the writer.
func (c *Config) writer() write.Config {
	destinations := make([]write.Destination, len(c.Backends))
	for i, b := range c.Backends {
		d := write.Destination{
			Name:             b.Name,
			Partition:        labels.FromMap(b.PartitionLabels),
			Virtual:          b.Virtual,
			URLs:             b.WriteURLs(),
			Timeout:          time.Duration(c.Global.QueryTimeout),
			HTTPClientConfig: b.HTTPClientConfig,
		}
		if w := b.RemoteWrite; w != nil && w.HTTPClientConfig != nil {
			d.HTTPClientConfig = *w.HTTPClientConfig
		}
		destinations[i] = d
	}
	return write.Config{Destinations: destinations, MaxPendingSamples: c.Global.WriteMaxPendingSamples}
}

// templates is what the templates of all rules see.
func (c *Config) templates() (alerting.TemplatesConfig, error) {
	externalURL, err := url.Parse(c.Global.ExternalURL)
	if err != nil {
		return alerting.TemplatesConfig{}, fmt.Errorf("external_url: %w", err)
	}
	return alerting.TemplatesConfig{
		ExternalLabels: labels.FromMap(c.Global.ExternalLabels),
		ExternalURL:    externalURL,
		MaxTextBytes:   c.Global.MaxAlertTextBytes,
	}, nil
}

// partitions are the partition labels of all backends.
func (c *Config) partitions() []labels.Labels {
	all := make([]labels.Labels, len(c.Backends))
	for i, b := range c.Backends {
		all[i] = labels.FromMap(b.PartitionLabels)
	}
	return all
}

// home are labels that send a series without any tenancy to a backend: none
// if one holds what carries no partition label, else those of the first.
func (c *Config) home() labels.Labels {
	for _, b := range c.Backends {
		if labels.FromMap(b.PartitionLabels).WithoutEmpty().IsEmpty() {
			return labels.EmptyLabels()
		}
	}
	return labels.FromMap(c.Backends[0].PartitionLabels)
}
