package collector

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/util/logging"

	"github.com/tocsin-rules/tocsin/collector/forward"
	"github.com/tocsin-rules/tocsin/collector/wal"
)

const (
	// discoveryInterval bounds how often found targets are handed on. There
	// are few on one node, so they may start to be scraped soon.
	discoveryInterval = time.Second
	// drainTimeout bounds how long a collector that stops waits until its
	// backends have what was scraped.
	drainTimeout = 3 * time.Second
)

// pipeline is the parts that carry samples, from targets to backends. Parts
// are opened by openPipeline, started by run and ended by close.
type pipeline struct {
	log       *wal.Log
	gate      *gate
	forward   *forward.Set
	scraper   *scrape.Manager
	discovery *discovery.Manager
	// stopDiscovery ends the discovery manager and everything it started.
	stopDiscovery context.CancelFunc
}

// openPipeline opens the log and all that reads or writes it.
func openPipeline(cfg Config, deps Deps) (*pipeline, error) {
	log, err := openLog(cfg, deps)
	if err != nil {
		return nil, err
	}
	p, err := newPipeline(cfg, log, deps)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return p, nil
}

func openLog(cfg Config, deps Deps) (*wal.Log, error) {
	log, err := wal.Open(filepath.Join(cfg.StoragePath, "log"), cfg.Limits,
		wal.Deps{Logger: deps.Logger.With("component", "wal"), Registerer: deps.Registry})
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("storage path %q is in use by another collector, give each its own: %w", cfg.StoragePath, err)
	}
	return log, err
}

func newPipeline(cfg Config, log *wal.Log, deps Deps) (*pipeline, error) {
	set, err := forward.New(cfg.StoragePath, forward.Deps{
		Log: log, Logger: deps.Logger.With("component", "remote"), Registerer: deps.Registry,
	})
	if err != nil {
		return nil, err
	}
	gate := newGate(log)
	scraper, err := scrape.NewManager(
		&scrape.Options{
			DiscoveryReloadInterval:           model.Duration(discoveryInterval),
			AppendMetadata:                    true,
			EnableStartTimestampZeroIngestion: true,
			HTTPClientOptions:                 scrapeClientOptions(),
		},
		deps.Logger.With("component", "scrape manager"), logging.NewJSONFileLogger, gate, deps.Registry)
	if err != nil {
		return nil, fmt.Errorf("make scrape manager: %w", err)
	}
	sd, err := discovery.CreateAndRegisterSDMetrics(deps.Registry)
	if err != nil {
		return nil, fmt.Errorf("register discovery metrics: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &pipeline{
		log:     log,
		gate:    gate,
		forward: set,
		scraper: scraper,
		discovery: discovery.NewManager(ctx, deps.Logger.With("component", "discovery manager"), deps.Registry, sd,
			discovery.Name("scrape"), discovery.Updatert(discoveryInterval)),
		stopDiscovery: stop,
	}, nil
}

// apply hands the configuration to every part. The scrape manager comes before
// discovery, because it looks up the jobs that discovery finds targets for.
func (p *pipeline) apply(conf *config.Config) error {
	err := errors.Join(
		p.forward.Apply(conf),
		p.scraper.ApplyConfig(conf),
		p.applyDiscovery(conf),
	)
	if err == nil {
		debug.SetGCPercent(conf.Runtime.GoGC)
	}
	return err
}

func (p *pipeline) applyDiscovery(conf *config.Config) error {
	scrapes, err := conf.GetScrapeConfigs()
	if err != nil {
		return err
	}
	byJob := make(map[string]discovery.Configs, len(scrapes))
	for _, sc := range scrapes {
		byJob[sc.JobName] = sc.ServiceDiscoveryConfigs
	}
	return p.discovery.ApplyConfig(byJob)
}

// run scrapes until ctx ends and every scrape has ended.
func (p *pipeline) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		// Ends with its context's error, by stopDiscovery alone.
		_ = p.discovery.Run()
	})
	wg.Go(func() {
		// Ends without an error, by Stop alone.
		_ = p.scraper.Run(p.discovery.SyncCh())
	})
	wg.Go(func() { p.log.Run(ctx) })
	<-ctx.Done()
	p.gate.close()
	p.scraper.Stop()
	p.stopDiscovery()
	wg.Wait()
}

// close sends what is waiting, for a bounded time, and closes the log.
func (p *pipeline) close() error {
	p.stopDiscovery()
	return errors.Join(p.forward.Close(drainTimeout), p.log.Close())
}
