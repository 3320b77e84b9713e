package alerting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/dns"  // For dns_sd_configs.
	_ "github.com/prometheus/prometheus/discovery/file" // For file_sd_configs.
	_ "github.com/prometheus/prometheus/discovery/http" // For http_sd_configs.
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

const (
	// discoveryInterval is the shortest time between two changes of the set of
	// Alertmanagers.
	discoveryInterval = time.Second

	// defaultQueueCapacity is ten times Prometheus': a queue holds an alert
	// once, however often it is sent, and no member should lose any of the
	// alerts that it owns to the size of a queue.
	defaultQueueCapacity = 100_000
	defaultDrainTimeout  = 3 * time.Second
)

// Config is what of a Sender does not change while it runs.
type Config struct {
	// ExternalURL is where users reach this system; generator URLs begin with
	// it.
	ExternalURL *url.URL
	// GeneratorURL is a template (text/template) of generator URLs that sees
	// ExternalURL, Expr, Labels and StartsAt, and has the functions json and
	// urlquery; empty means Prometheus' form.
	GeneratorURL string
	// QueueCapacity is the number of notifications that wait for one
	// Alertmanager; 0 means 100,000.
	QueueCapacity int
	// DrainTimeout is how long Run, when its context has ended, goes on
	// delivering what is queued; 0 means 3 s.
	DrainTimeout time.Duration
}

// Sender delivers notifications to Alertmanagers.
type Sender struct {
	cfg       Config
	generator generator
	logger    *slog.Logger
	reg       prometheus.Registerer
	sdMetrics map[string]discovery.DiscovererMetrics
	metrics   *metrics
	do        func(*http.Client, *http.Request) (*http.Response, error)

	// applying serialises changes of the configuration and guards the two
	// fields below it.
	applying  sync.Mutex
	discovery *discovery.Manager
	sources   map[string]discovery.Configs

	// mu guards the sets; it is never held while something is waited for.
	mu     sync.Mutex
	sets   map[string]*set
	launch func(*alertmanager)

	running sync.WaitGroup
}

// New returns a Sender without Alertmanagers. It starts nothing and opens
// nothing. Errors are those of the configuration and of registering metrics.
func New(cfg Config, logger *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	if cfg.ExternalURL == nil {
		return nil, errors.New("alerting: ExternalURL is not set")
	}
	if cfg.QueueCapacity == 0 {
		cfg.QueueCapacity = defaultQueueCapacity
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = defaultDrainTimeout
	}
	generator, err := newGenerator(cfg.ExternalURL, cfg.GeneratorURL)
	if err != nil {
		return nil, fmt.Errorf("alerting: %w", err)
	}
	sdMetrics, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("discovery of Alertmanagers: %w", err)
	}
	s := &Sender{
		cfg: cfg, generator: generator, logger: logger, reg: reg, sdMetrics: sdMetrics,
		do: (*http.Client).Do, sets: map[string]*set{},
	}
	s.metrics = newMetrics(reg, s)
	s.metrics.queueCapacity.Set(float64(cfg.QueueCapacity))
	return s, nil
}

// ApplyConfig takes over a configuration, before or while Run runs: all of it,
// or, on an error, nothing. Alertmanagers that stay keep their queues.
func (s *Sender) ApplyConfig(cfg config.AlertingConfig, externalLabels labels.Labels) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := cfg.Validate(model.UTF8Validation); err != nil {
		return fmt.Errorf("alerting configuration: %w", err)
	}
	routes := map[string]*route{}
	sources := map[string]discovery.Configs{}
	for i, amCfg := range cfg.AlertmanagerConfigs {
		r, err := newRoute(amCfg, cfg.AlertRelabelConfigs, externalLabels)
		if err != nil {
			return fmt.Errorf("alerting configuration: alertmanagers entry %d: %w", i+1, err)
		}
		key, err := routeKey(amCfg, routes)
		if err != nil {
			return fmt.Errorf("alerting configuration: alertmanagers entry %d: %w", i+1, err)
		}
		routes[key] = r
		sources[key] = amCfg.ServiceDiscoveryConfigs
	}
	s.replaceSets(routes)
	s.sources = sources
	if s.discovery == nil {
		return nil
	}
	return s.discovery.ApplyConfig(sources)
}

// Run discovers Alertmanagers and delivers to them until ctx ends, and then
// what is queued, for as long as the drain timeout. It is to be called once;
// whoever calls Send is to be stopped first.
func (s *Sender) Run(ctx context.Context) error {
	deliverCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	manager, err := s.startDiscovery(ctx)
	if err != nil {
		return err
	}
	s.start(func(a *alertmanager) {
		amCtx, amCancel := context.WithCancel(deliverCtx)
		a.cancel = amCancel
		s.running.Go(func() { a.run(amCtx, ctx.Done()) })
	})
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case groups := <-manager.SyncCh():
			s.discover(groups)
		}
	}
	s.start(nil)
	deadline := time.AfterFunc(s.cfg.DrainTimeout, cancel)
	defer deadline.Stop()
	s.running.Wait()
	s.close()
	return nil
}

func (s *Sender) startDiscovery(ctx context.Context) (*discovery.Manager, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.discovery = discovery.NewManager(ctx, s.logger, s.reg, s.sdMetrics,
		discovery.Name("notify"), discovery.Updatert(discoveryInterval))
	if s.discovery == nil {
		return nil, errors.New("discovery of Alertmanagers: metrics are registered already, Run may be called only once")
	}
	// It ends with ctx, and has no other error than that of ctx.
	s.running.Go(func() { _ = s.discovery.Run() })
	return s.discovery, s.discovery.ApplyConfig(s.sources)
}

// start makes launch the way that new Alertmanagers are started, or with nil
// lets none be started any more.
func (s *Sender) start(launch func(*alertmanager)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launch = launch
}

// close counts what could not be delivered before the end.
func (s *Sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.sets {
		for _, a := range set.alertmanagers {
			if n := a.queue.len(); n > 0 {
				a.drop(n, "stopped with notifications undelivered")
			}
		}
		if n := set.backlog.len(); n > 0 {
			s.logger.Warn("stopped with notifications undelivered, no alertmanager was discovered", "dropped", n)
		}
		set.route.Load().client.CloseIdleConnections()
	}
}

// Send queues the notifications of a rule for every Alertmanager. It does not
// wait for their delivery. The expression is that of the rule and becomes part
// of the generator URL.
func (s *Sender) Send(expr string, notifications ...alert.Notification) {
	items := make([]*item, len(notifications))
	for i, n := range notifications {
		items[i] = &item{Notification: n, generatorURL: s.generator.url(expr, n)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.sets {
		set.put(items)
	}
}

// Alertmanagers returns the URLs that alerts are posted to, and those that
// relabelling of discovered targets dropped, both sorted.
func (s *Sender) Alertmanagers() (active, dropped []*url.URL) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.sets {
		for _, a := range set.alertmanagers {
			active = append(active, a.url)
		}
		dropped = append(dropped, set.dropped...)
	}
	return sortURLs(active), sortURLs(dropped)
}

func (s *Sender) queueLengths() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	lengths := map[string]int{}
	for _, set := range s.sets {
		for label, a := range set.alertmanagers {
			lengths[label] += a.queue.len()
		}
	}
	return lengths
}
