// Package discovery finds pods and nodes through the Kubernetes API, as
// Prometheus' kubernetes_sd_configs do, with the same labels, for a collector
// that pays for every MiB on every node. Of a pod it keeps the target group
// alone, which all jobs share, and it links the core API group instead of all
// of Kubernetes' clients, which doubles the size of a program.
//
// It has no other roles than pod and node, attaches no metadata of other
// objects and never writes to the API. One configuration is one list and watch
// for each namespace that it names; equal configurations share it, which
// Prometheus' discovery manager sees to. While the API server is away the
// targets stay what they were.
package discovery

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/discovery"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/tocsin-rules/tocsin/kubeapi"
)

// NodeVariable stands, in the field of a selector, for the name of the node
// that the collector runs on.
const NodeVariable = "$(NODE_NAME)"

// Role says what is discovered.
type Role string

// The roles that there are.
const (
	RolePod  Role = "pod"
	RoleNode Role = "node"
)

// Config is an element of kubernetes_sd_configs. Fields are as in Prometheus.
type Config struct {
	APIServer        config.URL              `yaml:"api_server,omitempty"`
	Role             Role                    `yaml:"role"`
	KubeconfigFile   string                  `yaml:"kubeconfig_file,omitempty"`
	HTTPClientConfig config.HTTPClientConfig `yaml:",inline"`
	Namespaces       Namespaces              `yaml:"namespaces,omitempty"`
	Selectors        []Selector              `yaml:"selectors,omitempty"`
}

// Namespaces are those that pods are discovered in; none stands for all.
type Namespaces struct {
	Names []string `yaml:"names,omitempty"`
}

// Selector restricts what is listed and watched, as kubectl takes it.
type Selector struct {
	Role  Role   `yaml:"role,omitempty"`
	Label string `yaml:"label,omitempty"`
	Field string `yaml:"field,omitempty"`
}

var _ discovery.Config = (*Config)(nil)

// Register makes kubernetes_sd_configs known to Prometheus' configuration
// format. It is called once in a process, before any configuration is read,
// and panics where Prometheus' own implementation is linked.
func Register() { discovery.RegisterConfig(&Config{}) }

// Name is part of discovery.Config.
func (*Config) Name() string { return "kubernetes" }

// SetDirectory is part of config.DirectorySetter.
func (c *Config) SetDirectory(dir string) {
	c.HTTPClientConfig.SetDirectory(dir)
	c.KubeconfigFile = config.JoinDir(dir, c.KubeconfigFile)
}

// UnmarshalYAML checks the configuration.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	*c = Config{HTTPClientConfig: config.DefaultHTTPClientConfig}
	type plain Config
	if err := unmarshal((*plain)(c)); err != nil {
		return err
	}
	if c.Role != RolePod && c.Role != RoleNode {
		return fmt.Errorf("kubernetes_sd_configs: the collector discovers the roles pod and node, not %q", c.Role)
	}
	if err := c.validateAccess(); err != nil {
		return fmt.Errorf("kubernetes_sd_configs: %w", err)
	}
	return c.validateSelectors()
}

func (c *Config) validateAccess() error {
	custom := !reflect.DeepEqual(c.HTTPClientConfig, config.DefaultHTTPClientConfig)
	switch {
	case c.APIServer.URL != nil && c.KubeconfigFile != "":
		return errors.New("api_server and kubeconfig_file exclude each other")
	case c.APIServer.URL == nil && custom:
		return errors.New("settings of the HTTP client need an api_server")
	}
	return c.HTTPClientConfig.Validate()
}

func (c *Config) validateSelectors() error {
	if len(c.Selectors) > 1 {
		return fmt.Errorf("kubernetes_sd_configs: role %s takes one selector, not %d", c.Role, len(c.Selectors))
	}
	for _, s := range c.Selectors {
		if s.Role != c.Role {
			return fmt.Errorf("kubernetes_sd_configs: role %s takes a selector of this role, not %q", c.Role, s.Role)
		}
		if _, err := fields.ParseSelector(s.Field); err != nil {
			return fmt.Errorf("kubernetes_sd_configs: selector field %q: %w", s.Field, err)
		}
		if _, err := labels.Parse(s.Label); err != nil {
			return fmt.Errorf("kubernetes_sd_configs: selector label %q: %w", s.Label, err)
		}
	}
	return nil
}

// Place says where the collector runs: the name of its node takes the place of
// NodeVariable in the fields of selectors, and nowhere else; the kubeconfig is
// used where the configuration has neither one nor an api_server. Both may be
// empty, but not the node if a selector asks for it.
func (c *Config) Place(node, kubeconfig string) error {
	for i := range c.Selectors {
		s := &c.Selectors[i]
		if !strings.Contains(s.Field, NodeVariable) {
			continue
		}
		if node == "" {
			return fmt.Errorf("kubernetes_sd_configs: selector field %q: the name of the node is not known, set --node.name or the environment variable NODE_NAME", s.Field)
		}
		s.Field = strings.ReplaceAll(s.Field, NodeVariable, fields.EscapeValue(node))
	}
	if c.APIServer.URL == nil && c.KubeconfigFile == "" {
		c.KubeconfigFile = kubeconfig
	}
	return nil
}

// NewDiscovererMetrics is part of discovery.Config.
func (*Config) NewDiscovererMetrics(reg prometheus.Registerer, _ discovery.RefreshMetricsInstantiator) discovery.DiscovererMetrics {
	return newMetrics(reg)
}

// NewDiscoverer is part of discovery.Config. It talks to nobody.
func (c *Config) NewDiscoverer(opts discovery.DiscovererOptions) (discovery.Discoverer, error) {
	m, ok := opts.Metrics.(*metrics)
	if !ok {
		return nil, fmt.Errorf("metrics of type %T are not those of Kubernetes discovery", opts.Metrics)
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	d := &discoverer{logger: opts.Logger, metrics: m}
	for _, namespace := range c.namespaces() {
		d.informers = append(d.informers, c.informer(client, namespace, m))
	}
	return d, nil
}

// client reaches the API server as the configuration says; with nothing said
// as a pod does, by its service account.
func (c *Config) client() (*rest.RESTClient, error) {
	if c.APIServer.URL == nil {
		return kubeapi.NewClient(c.KubeconfigFile)
	}
	transport, err := config.NewRoundTripperFromConfig(c.HTTPClientConfig, "kubernetes_sd")
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	return kubeapi.ClientFor(&rest.Config{Host: c.APIServer.String(), Transport: transport})
}
