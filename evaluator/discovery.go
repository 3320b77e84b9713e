package evaluator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/dns"  // For dns_sd_configs.
	_ "github.com/prometheus/prometheus/discovery/file" // For file_sd_configs.
	_ "github.com/prometheus/prometheus/discovery/http" // For http_sd_configs.
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

const (
	// discoveryInterval is the shortest time between two changes of endpoints.
	discoveryInterval = time.Second
	// pathLabel is the path below which an endpoint's API is, for relabelling.
	pathLabel = "__path_prefix__"
)

// discoverer keeps the endpoints of backends what discovery finds.
type discoverer struct {
	sources  map[string]discovery.Configs
	backends map[string]BackendConfig
	clients  map[string]*remote.Replicas
	logger   *slog.Logger
	reg      prometheus.Registerer
	metrics  map[string]discovery.DiscovererMetrics
}

// newDiscoverer registers metrics if anything is to be discovered.
func newDiscoverer(cfg Config, clients []*remote.Replicas, logger *slog.Logger, reg prometheus.Registerer) (*discoverer, error) {
	d := &discoverer{
		sources: map[string]discovery.Configs{}, backends: map[string]BackendConfig{}, clients: map[string]*remote.Replicas{},
		logger: logger, reg: prometheus.WrapRegistererWithPrefix("tocsin_evaluator_", reg),
	}
	for i, b := range cfg.Backends {
		if b.discovered() {
			d.sources[b.Name], d.backends[b.Name], d.clients[b.Name] = b.ServiceDiscoveryConfigs, b, clients[i]
		}
	}
	if len(d.sources) == 0 {
		return d, nil
	}
	var err error
	if d.metrics, err = discovery.CreateAndRegisterSDMetrics(d.reg); err != nil {
		return nil, fmt.Errorf("discovery of backends: %w", err)
	}
	return d, nil
}

// run discovers until ctx ends.
func (d *discoverer) run(ctx context.Context) error {
	if len(d.sources) == 0 {
		<-ctx.Done()
		return nil
	}
	manager := discovery.NewManager(ctx, d.logger, d.reg, d.metrics, discovery.Name("backends"), discovery.Updatert(discoveryInterval))
	if manager == nil {
		return errors.New("discovery of backends: metrics are registered already, Run may be called only once")
	}
	var running sync.WaitGroup
	defer running.Wait()
	// It ends with ctx, and has no other error than that of ctx.
	running.Go(func() { _ = manager.Run() })
	if err := manager.ApplyConfig(d.sources); err != nil {
		return fmt.Errorf("discovery of backends: %w", err)
	}
	for {
		select {
		case found := <-manager.SyncCh():
			d.set(found)
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *discoverer) set(found map[string][]*targetgroup.Group) {
	for name, groups := range found {
		targets, err := d.backends[name].targets(groups)
		if err := errors.Join(err, d.clients[name].SetTargets(targets)); err != nil {
			d.logger.Error("discovery of endpoints", "backend", name, "err", err)
		}
	}
}

// discovered tells whether endpoints may change while the evaluator runs.
func (b BackendConfig) discovered() bool {
	return slices.ContainsFunc(b.ServiceDiscoveryConfigs, func(c discovery.Config) bool {
		_, static := c.(discovery.StaticConfig)
		return !static
	})
}

// fixed are the endpoints that are known from the start. If one of them were
// faulty, the configuration would be, too.
func (b BackendConfig) fixed() []remote.Target {
	if b.URL.URL != nil {
		return []remote.Target{{Scheme: b.URL.Scheme, Host: b.URL.Host, Path: b.URL.Path}}
	}
	targets, _ := b.targets(b.static())
	return targets
}

func (b BackendConfig) static() (groups []*targetgroup.Group) {
	for _, c := range b.ServiceDiscoveryConfigs {
		if static, ok := c.(discovery.StaticConfig); ok {
			groups = append(groups, static...)
		}
	}
	return groups
}

// WriteURLs are where recorded series go: to all replicas beside their query
// API, as Prometheus has it, unless the configuration says otherwise.
func (b BackendConfig) WriteURLs() []string {
	if b.RemoteWrite != nil {
		return []string{b.RemoteWrite.URL.String()}
	}
	var urls []string
	for _, t := range b.fixed() {
		u := url.URL{Scheme: t.Scheme, Host: t.Host, Path: t.Path, RawQuery: b.params().Encode()}
		urls = append(urls, u.JoinPath("api/v1/write").String())
	}
	return urls
}

// params are sent with every request.
func (b BackendConfig) params() url.Values {
	params := url.Values{}
	if b.URL.URL != nil {
		params = b.URL.Query()
	}
	maps.Copy(params, b.Params)
	return params
}

// targets are the endpoints that groups stand for, in the order of their names.
// What is no address is left out and returned as an error.
func (b BackendConfig) targets(groups []*targetgroup.Group) ([]remote.Target, error) {
	var targets []remote.Target
	var errs []error
	for _, g := range groups {
		for _, t := range g.Targets {
			ls := b.targetLabels(t, g.Labels)
			if !relabel.ProcessBuilder(ls, b.RelabelConfigs...) {
				continue
			}
			target := remote.Target{Scheme: ls.Get(model.SchemeLabel), Host: ls.Get(model.AddressLabel), Path: ls.Get(pathLabel)}
			if err := checkTarget(target); err != nil {
				errs = append(errs, err)
				continue
			}
			targets = append(targets, target)
		}
	}
	slices.SortFunc(targets, func(x, y remote.Target) int { return cmp.Compare(x.Name(), y.Name()) })
	return slices.Compact(targets), errors.Join(errs...)
}

// targetLabels are what relabelling sees of a target: its labels, those of its
// group that it does not have itself, and the scheme and path configured.
func (b BackendConfig) targetLabels(target, group model.LabelSet) *labels.Builder {
	ls := labels.NewBuilder(labels.FromStrings(model.SchemeLabel, b.Scheme, pathLabel, path.Join("/", b.PathPrefix)))
	for _, set := range []model.LabelSet{group, target} {
		for name, value := range set {
			ls.Set(string(name), string(value))
		}
	}
	return ls
}

func checkTarget(t remote.Target) error {
	if t.Scheme != "http" && t.Scheme != "https" {
		return fmt.Errorf("endpoint %s: the scheme is neither http nor https", t.Name())
	}
	if t.Host == "" {
		return errors.New("an endpoint has no address")
	}
	return promconfig.CheckTargetAddress(model.LabelValue(t.Host))
}
