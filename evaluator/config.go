package evaluator

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/proto/transport"
)

// Config says where the data is and bounds what may be asked.
type Config struct {
	Backends []BackendConfig `yaml:"backends"`
	// Timeout ends a batch, and a single query of the API.
	Timeout model.Duration `yaml:"timeout,omitempty"`
	// Limits bound what queries may cost.
	Limits Limits `yaml:"limits,omitempty"`
	// MaxConcurrentPerBackend is the number of requests in progress at one
	// backend at a time: batches over gRPC, fragments over HTTP.
	MaxConcurrentPerBackend int `yaml:"max_concurrent_per_backend,omitempty"`
	// MaxResponseBytes bounds one answer: of a batch over gRPC, of a fragment
	// over HTTP.
	MaxResponseBytes int64 `yaml:"max_response_bytes,omitempty"`
	// LookbackDelta is how far instant selectors look for a sample.
	LookbackDelta model.Duration `yaml:"lookback_delta,omitempty"`
	// SubqueryStep is the step of subqueries that name none.
	SubqueryStep model.Duration `yaml:"subquery_step,omitempty"`
}

// BackendConfig describes one backend.
type BackendConfig struct {
	Name string `yaml:"name"`
	// PartitionLabels are the labels that every series of this backend has
	// and no series of another one; an empty value means that the series lack
	// the label. All backends name the same labels.
	PartitionLabels map[string]string `yaml:"partition_labels,omitempty"`
	// Virtual means that the stored series do not carry the partition labels,
	// as those of a plain Prometheus server with external labels.
	Virtual bool `yaml:"virtual,omitempty"`
	// URL is the base of the Prometheus API of the only endpoint, without
	// /api/v1. It serves queries unless GRPC is set, and always remote read and
	// label names. Its
	// query parameters are sent with every query; VictoriaMetrics needs
	// nocache=1 there, and a Thanos querier without a thanos section
	// partial_response=false. VictoriaMetrics runs fragments as MetricsQL,
	// whose rollups differ from PromQL's.
	URL config.URL `yaml:"url,omitempty"`
	// ServiceDiscoveryConfigs find endpoints, in place of URL, in the sections
	// that Prometheus has for it: static_configs, dns_sd_configs and so on.
	// All endpoints of a backend are replicas: they hold the same slice.
	ServiceDiscoveryConfigs discovery.Configs `yaml:"-"`
	// Scheme, PathPrefix and Params complete the addresses that are found.
	Scheme     string     `yaml:"scheme,omitempty"`
	PathPrefix string     `yaml:"path_prefix,omitempty"`
	Params     url.Values `yaml:"params,omitempty"`
	// RelabelConfigs change or drop what is found. They see __address__,
	// __scheme__, __path_prefix__ and what discovery adds.
	RelabelConfigs   []*relabel.Config       `yaml:"relabel_configs,omitempty"`
	HTTPClientConfig config.HTTPClientConfig `yaml:"http_client_config,omitempty"`
	// NoRemoteRead is for backends without Prometheus' remote read, as
	// VictoriaMetrics: raw series, and the state that a group resumes from, are
	// read by range selectors, which show no staleness markers.
	NoRemoteRead bool `yaml:"no_remote_read,omitempty"`
	// ReadDelay is the longest time after which a sample that was acknowledged
	// is visible to queries: 0, if that is at once. For that time what a group
	// records here is remembered, and its rules that read it are evaluated
	// from raw series and what is remembered.
	ReadDelay model.Duration `yaml:"read_delay,omitempty"`
	// GRPC makes queries use the native pushdown protocol.
	GRPC *GRPCConfig `yaml:"grpc,omitempty"`
	// Thanos makes queries, and raw series, use the gRPC APIs of a Thanos
	// querier. URL is that of its HTTP API.
	Thanos *ThanosConfig `yaml:"thanos,omitempty"`
	// RemoteWrite says where recorded series go, if it is not api/v1/write
	// below URL.
	RemoteWrite *RemoteWriteConfig `yaml:"remote_write,omitempty"`
}

// ThanosConfig describes the gRPC server of a Thanos querier.
type ThanosConfig struct {
	// Address is "host:port", or ":port" of the host of each endpoint.
	Address string `yaml:"address"`
	// TLSConfig makes connections use TLS, with a client certificate if it
	// names one. Credentials and headers are those of HTTPClientConfig.
	TLSConfig *config.TLSConfig `yaml:"tls_config,omitempty"`
}

// RemoteWriteConfig is where a backend takes remote write.
type RemoteWriteConfig struct {
	// URL is the whole URL, as that of a Thanos receiver or of Mimir's push
	// API.
	URL config.URL `yaml:"url"`
	// HTTPClientConfig is that of the backend unless it is set.
	HTTPClientConfig *config.HTTPClientConfig `yaml:"http_client_config,omitempty"`
}

// GRPCConfig describes the endpoint of the native pushdown protocol.
type GRPCConfig struct {
	// Address is "host:port", or ":port" of the host of each endpoint.
	Address string           `yaml:"address"`
	TLS     transport.Config `yaml:"tls,omitempty"`
	// Compress trades CPU time for bandwidth.
	Compress bool `yaml:"compress,omitempty"`
}

// DefaultConfig returns the defaults of everything but the backends.
func DefaultConfig() Config {
	return Config{
		Timeout:                 model.Duration(30 * time.Second),
		Limits:                  defaultLimits(),
		MaxConcurrentPerBackend: 8,
		MaxResponseBytes:        256 << 20,
		LookbackDelta:           model.Duration(5 * time.Minute),
		SubqueryStep:            model.Duration(time.Minute),
	}
}

// UnmarshalYAML implements yaml.Unmarshaler: it starts from the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	*c = DefaultConfig()
	type plain Config
	return unmarshal((*plain)(c))
}

// UnmarshalYAML implements yaml.Unmarshaler: it starts from the defaults of
// the HTTP client.
func (b *BackendConfig) UnmarshalYAML(unmarshal func(any) error) error {
	*b = BackendConfig{HTTPClientConfig: config.DefaultHTTPClientConfig, Scheme: "http"}
	return discovery.UnmarshalYAMLWithInlineConfigs(b, unmarshal)
}

// Validate reports every fault.
func (c Config) Validate() error {
	errs := []error{plan.Validate(c.PlanBackends()), c.Limits.validate()}
	for _, bound := range []struct {
		name  string
		value int64
	}{
		{"timeout", int64(c.Timeout)},
		{"max_concurrent_per_backend", int64(c.MaxConcurrentPerBackend)},
		{"max_response_bytes", c.MaxResponseBytes},
		{"lookback_delta", int64(c.LookbackDelta)},
		{"subquery_step", int64(c.SubqueryStep)},
	} {
		if bound.value <= 0 {
			errs = append(errs, fmt.Errorf("%s must be more than zero", bound.name))
		}
	}
	for _, b := range c.Backends {
		if err := b.validate(); err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", b.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (b BackendConfig) validate() error {
	errs := []error{b.validateEndpoints(), b.HTTPClientConfig.Validate()}
	for name := range b.PartitionLabels {
		if !model.UTF8Validation.IsValidLabelName(name) {
			errs = append(errs, fmt.Errorf("partition label %q is not a label name", name))
		}
	}
	if b.ReadDelay < 0 {
		errs = append(errs, errors.New("read_delay must not be negative"))
	}
	if b.GRPC != nil {
		errs = append(errs, b.GRPC.validate())
		if b.Virtual {
			errs = append(errs, errors.New("a backend that speaks the pushdown protocol carries its partition labels: it cannot be virtual"))
		}
	}
	if b.Thanos != nil {
		errs = append(errs, b.Thanos.validate())
		if b.GRPC != nil {
			errs = append(errs, errors.New("grpc and thanos exclude each other"))
		}
	}
	if b.RemoteWrite != nil {
		errs = append(errs, b.RemoteWrite.validate())
	}
	return errors.Join(errs...)
}

// validateEndpoints makes sure that there is one way to find them.
func (b BackendConfig) validateEndpoints() error {
	if len(b.ServiceDiscoveryConfigs) == 0 {
		return validateURL("url", b.URL)
	}
	var errs []error
	if b.URL.URL != nil {
		errs = append(errs, errors.New("url and discovery exclude each other"))
	}
	for _, r := range b.RelabelConfigs {
		if r == nil {
			errs = append(errs, errors.New("relabel_configs holds an empty rule"))
		} else {
			errs = append(errs, r.Validate(model.UTF8Validation))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if b.discovered() && b.RemoteWrite == nil {
		errs = append(errs, errors.New("remote_write is missing: it cannot be told from endpoints that are discovered"))
	}
	_, err := b.targets(b.static())
	return errors.Join(append(errs, err)...)
}

// SetDirectory makes relative file names relative to dir.
func (b *BackendConfig) SetDirectory(dir string) {
	b.ServiceDiscoveryConfigs.SetDirectory(dir)
	b.HTTPClientConfig.SetDirectory(dir)
	if b.Thanos != nil && b.Thanos.TLSConfig != nil {
		b.Thanos.TLSConfig.SetDirectory(dir)
	}
	if b.RemoteWrite != nil && b.RemoteWrite.HTTPClientConfig != nil {
		b.RemoteWrite.HTTPClientConfig.SetDirectory(dir)
	}
}

func validateURL(what string, u config.URL) error {
	switch {
	case u.URL == nil:
		return fmt.Errorf("%s is missing", what)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%s %q is not an http or https URL", what, u.Redacted())
	case u.User != nil:
		return fmt.Errorf("%s holds a user name or password: use http_client_config.basic_auth", what)
	}
	return nil
}

func (t ThanosConfig) validate() error {
	if _, _, err := net.SplitHostPort(t.Address); err != nil {
		return fmt.Errorf("thanos address %q is not host:port: %w", t.Address, err)
	}
	if t.TLSConfig == nil {
		return nil
	}
	return t.TLSConfig.Validate()
}

func (w RemoteWriteConfig) validate() error {
	err := validateURL("remote_write url", w.URL)
	if w.HTTPClientConfig != nil {
		err = errors.Join(err, w.HTTPClientConfig.Validate())
	}
	return err
}

func (g GRPCConfig) validate() error {
	if _, _, err := net.SplitHostPort(g.Address); err != nil {
		return fmt.Errorf("grpc address %q is not host:port: %w", g.Address, err)
	}
	if strings.HasPrefix(g.Address, ":") && !g.TLS.Enabled() {
		return fmt.Errorf("grpc address %q may be that of another machine: set a certificate, a key and a CA file", g.Address)
	}
	return g.TLS.Validate(g.Address)
}

// PlanBackends are the backends as the planner sees them.
func (c Config) PlanBackends() []plan.Backend {
	list := make([]plan.Backend, len(c.Backends))
	for i, b := range c.Backends {
		list[i] = plan.Backend{
			Name: b.Name, Partition: labels.FromMap(b.PartitionLabels), Virtual: b.Virtual,
			Shares: b.GRPC != nil, ReadDelay: time.Duration(b.ReadDelay),
		}
	}
	return list
}
