// Package collector is the node agent: it discovers and scrapes targets,
// keeps the samples in a write-ahead log on disk and remote-writes them, in
// order, to the backends. A backend that is away leaves its samples waiting in
// the log, which is bounded by their age, also over a restart: what an earlier
// run has left is sent before the queues start.
//
//	discovery ──▶ scrape ──▶ write-ahead log ──▶ remote write queues ──▶ backends
//
// It is put together from Prometheus' packages and takes Prometheus'
// configuration format, metrics and API types. It never evaluates a query,
// never listens on a port (collector/app does) and never reads a configuration
// other than its file. Discovery is Prometheus' manager. Static targets and
// targets from files are always there; pods and nodes where the process has
// registered collector/discovery.
//
// A Collector is safe for concurrent use once Run has been called. One process
// may hold several, each with a registry and a storage path of its own.
package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/file" // Targets from files are part of every collector.
	"github.com/prometheus/prometheus/scrape"
)

// ErrNotRunning is the answer of a collector that has not opened its log yet
// or that is stopping.
var ErrNotRunning = errors.New("collector is not running")

// Config says what a collector reads and where it keeps its log.
type Config struct {
	// ConfigFile is a file in Prometheus' configuration format.
	ConfigFile string
	// Node is the name of the Kubernetes node that it runs on, empty outside of
	// Kubernetes; Kubeconfig is how to reach the API where a configuration does
	// not say, empty as a pod does.
	Node, Kubeconfig string
	// StoragePath is the directory of the write-ahead log. It is created if
	// missing and locked while the collector runs.
	StoragePath string
}

// Deps are what a collector needs from its process.
type Deps struct {
	Logger *slog.Logger
	// Registry takes the metrics of all parts, under Prometheus' names. It
	// must not be shared with another collector.
	Registry *prometheus.Registry
}

// Collector scrapes and forwards. Make one with New.
type Collector struct {
	cfg     Config
	deps    Deps
	metrics *metrics

	// applying is held while a configuration is loaded and applied.
	applying sync.Mutex
	current  atomic.Pointer[running]
	// reloadFailed is the outcome of the last reload.
	reloadFailed atomic.Bool
}

// running is what a collector has once its first configuration is applied.
type running struct {
	pipeline *pipeline
	conf     *config.Config
	loadedAt time.Time
}

type metrics struct {
	reloadSuccessful prometheus.Gauge
	reloadTime       prometheus.Gauge
}

// New returns a collector that does nothing until Run.
func New(cfg Config, deps Deps) *Collector {
	f := promauto.With(deps.Registry)
	return &Collector{
		cfg:  cfg,
		deps: deps,
		metrics: &metrics{
			reloadSuccessful: f.NewGauge(prometheus.GaugeOpts{
				Name: "prometheus_config_last_reload_successful",
				Help: "Whether the last configuration reload attempt was successful.",
			}),
			reloadTime: f.NewGauge(prometheus.GaugeOpts{
				Name: "prometheus_config_last_reload_success_timestamp_seconds",
				Help: "Timestamp of the last successful configuration reload.",
			}),
		},
	}
}

// Run collects until ctx ends; then it stops scraping, gives the queues a few
// seconds to send what was scraped and closes the log. What could not be sent
// stays in the log.
func (c *Collector) Run(ctx context.Context) error {
	conf, err := LoadConfig(c.cfg, c.deps.Logger)
	if err != nil {
		return err
	}
	p, err := openPipeline(c.cfg.StoragePath, c.deps)
	if err != nil {
		return err
	}
	if err := p.apply(conf); err != nil {
		return errors.Join(fmt.Errorf("apply configuration file %q: %w", c.cfg.ConfigFile, err), p.close())
	}
	c.setCurrent(p, conf)
	p.run(ctx)
	c.applying.Lock()
	defer c.applying.Unlock()
	c.current.Store(nil)
	return p.close()
}

// Reload reads the configuration file again and applies it. If it is faulty
// the collector keeps on with the one that it had and the error says why.
func (c *Collector) Reload() error {
	c.applying.Lock()
	defer c.applying.Unlock()
	cur := c.current.Load()
	if cur == nil {
		return ErrNotRunning
	}
	conf, err := LoadConfig(c.cfg, c.deps.Logger)
	if err == nil {
		err = c.replace(cur, conf)
	}
	if err != nil {
		c.reloadFailed.Store(true)
		c.metrics.reloadSuccessful.Set(0)
		return err
	}
	c.setCurrent(cur.pipeline, conf)
	return nil
}

// replace applies conf or, if a part refuses it, the configuration from
// before.
func (c *Collector) replace(cur *running, conf *config.Config) error {
	err := cur.pipeline.apply(conf)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("apply configuration file %q: %w", c.cfg.ConfigFile, err)
	if back := cur.pipeline.apply(cur.conf); back != nil {
		return errors.Join(err, fmt.Errorf("return to the configuration from before: %w", back))
	}
	return err
}

func (c *Collector) setCurrent(p *pipeline, conf *config.Config) {
	c.current.Store(&running{pipeline: p, conf: conf, loadedAt: time.Now()})
	c.reloadFailed.Store(false)
	c.metrics.reloadSuccessful.Set(1)
	c.metrics.reloadTime.SetToCurrentTime()
}

// Ready says why the collector can't collect yet: the log is being opened or
// no configuration is applied. Nil means that it collects.
func (c *Collector) Ready() error {
	if c.current.Load() == nil {
		return ErrNotRunning
	}
	return nil
}

// Status describes the configuration that runs.
type Status struct {
	// Config is the last good configuration; its text form has no secrets.
	Config config.Config
	// LoadedAt is when it was applied.
	LoadedAt time.Time
	// ReloadFailed says that a later one was refused.
	ReloadFailed bool
}

// Status returns ErrNotRunning before the first configuration is applied.
func (c *Collector) Status() (Status, error) {
	cur := c.current.Load()
	if cur == nil {
		return Status{}, ErrNotRunning
	}
	return Status{Config: *cur.conf, LoadedAt: cur.loadedAt, ReloadFailed: c.reloadFailed.Load()}, nil
}

// Scraper gives access to the targets and scrape pools. It returns
// ErrNotRunning before the first configuration is applied.
func (c *Collector) Scraper() (*scrape.Manager, error) {
	cur := c.current.Load()
	if cur == nil {
		return nil, ErrNotRunning
	}
	return cur.pipeline.scraper, nil
}
