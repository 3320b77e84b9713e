// Package collector is the node agent: it discovers and scrapes targets,
// keeps the samples in a write-ahead log on disk and remote-writes them, in
// order, to the backends. A backend that is away leaves its samples waiting in
// the log, which is bounded by their size and age, also over a restart.
//
//	discovery ──▶ scrape ──▶ wal: write-ahead log ──▶ forward: remote write ──▶ backends
//
// Discovery and scraping are Prometheus' packages; it takes Prometheus'
// configuration format, metrics and API types. It never evaluates a query,
// never listens on a port (collector/app does) and never reads a configuration
// other than that of its source. Discovery is Prometheus' manager. Static targets and
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

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// ErrNotRunning is the answer of a collector that has not opened its log yet
// or that is stopping.
var ErrNotRunning = errors.New("collector is not running")

// Config says what a collector reads and where it keeps its log.
type Config struct {
	// Source is where the configuration is, in Prometheus' format.
	Source Source
	// AwaitSource makes Run wait, as long as it takes, for a configuration that
	// is good enough to begin with; otherwise a faulty one ends it.
	AwaitSource bool
	Terms       Terms
	// StoragePath is the directory of the write-ahead log. It is created if
	// missing and locked while the collector runs.
	StoragePath string
	// Limits bound the write-ahead log.
	Limits wal.Options
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
	// again makes Run look for its first configuration.
	again chan struct{}
	// awaited is what is wrong with that until it is found.
	awaited atomic.Pointer[error]
}

// running is what a collector has once its first configuration is applied.
type running struct {
	pipeline *pipeline
	conf     *assembly
	loadedAt time.Time
}

type metrics struct {
	reloadSuccessful prometheus.Gauge
	reloadTime       prometheus.Gauge
	refused          prometheus.Gauge
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
			refused: f.NewGauge(prometheus.GaugeOpts{
				Name: "tocsin_collector_refused_scrape_configs",
				Help: "Scrape configs that don't run as they are configured, because they are at fault.",
			}),
		},
		again: make(chan struct{}, 1),
	}
}

// Run collects until ctx ends; then it stops scraping, gives the queues a few
// seconds to send what was scraped and closes the log. What could not be sent
// stays in the log.
func (c *Collector) Run(ctx context.Context) error {
	conf, err := c.firstConfig(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	p, err := openPipeline(c.cfg, c.deps)
	if err != nil {
		return err
	}
	if err := p.apply(conf.Config); err != nil {
		return errors.Join(fmt.Errorf("apply %s: %w", c.cfg.Source, err), p.close())
	}
	c.setCurrent(p, conf)
	p.run(ctx)
	c.applying.Lock()
	defer c.applying.Unlock()
	c.current.Store(nil)
	return p.close()
}

// firstConfig returns neither a configuration nor an error if ctx ends while it
// waits.
func (c *Collector) firstConfig(ctx context.Context) (*assembly, error) {
	for {
		conf, err := load(c.cfg.Source, c.cfg.Terms, nil, c.deps.Logger)
		if err == nil || !c.cfg.AwaitSource {
			return conf, err
		}
		if last := c.awaited.Swap(&err); last == nil || (*last).Error() != err.Error() {
			c.deps.Logger.Warn("waiting for a configuration", "err", err)
		}
		c.metrics.reloadSuccessful.Set(0)
		select {
		case <-ctx.Done():
			return nil, nil
		case <-c.again:
		}
	}
}

// Reload reads the configuration again and applies it. If it is faulty the
// collector keeps on with the one that it had and the error says why.
func (c *Collector) Reload() error {
	c.applying.Lock()
	defer c.applying.Unlock()
	cur := c.current.Load()
	if cur == nil {
		select {
		case c.again <- struct{}{}:
		default:
		}
		return c.Ready()
	}
	conf, err := load(c.cfg.Source, c.cfg.Terms, cur.conf, c.deps.Logger)
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
func (c *Collector) replace(cur *running, conf *assembly) error {
	err := cur.pipeline.apply(conf.Config)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("apply %s: %w", c.cfg.Source, err)
	if back := cur.pipeline.apply(cur.conf.Config); back != nil {
		return errors.Join(err, fmt.Errorf("return to the configuration from before: %w", back))
	}
	return err
}

func (c *Collector) setCurrent(p *pipeline, conf *assembly) {
	if before := c.current.Swap(&running{pipeline: p, conf: conf, loadedAt: time.Now()}); before == nil || !sameErrors(before.conf.refused, conf.refused) {
		for _, r := range conf.refused {
			c.deps.Logger.Warn("scrape config is at fault, the one from before stays", "pool", r.Pool, "err", r.Err)
		}
	}
	c.reloadFailed.Store(false)
	c.metrics.reloadSuccessful.Set(1)
	c.metrics.reloadTime.SetToCurrentTime()
	c.metrics.refused.Set(float64(len(conf.refused)))
}

// Ready says why the collector can't collect yet: the log is being opened or
// no configuration is applied. Nil means that it collects.
func (c *Collector) Ready() error {
	if c.current.Load() != nil {
		return nil
	}
	if err := c.awaited.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotRunning, *err)
	}
	return ErrNotRunning
}

// Status describes the configuration that runs.
type Status struct {
	// Config is the last good configuration; its text form has no secrets.
	Config config.Config
	// LoadedAt is when it was applied.
	LoadedAt time.Time
	// ReloadFailed says that a later one was refused.
	ReloadFailed bool
	// ConfigErrors say which scrape configs don't run as they are configured.
	ConfigErrors []ConfigError
}

// Status returns ErrNotRunning before the first configuration is applied.
func (c *Collector) Status() (Status, error) {
	cur := c.current.Load()
	if cur == nil {
		return Status{}, ErrNotRunning
	}
	return Status{Config: *cur.conf.Config, LoadedAt: cur.loadedAt, ReloadFailed: c.reloadFailed.Load(), ConfigErrors: cur.conf.refused}, nil
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
