package collector

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/agent"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/prometheus/prometheus/util/logging"
)

const (
	// discoveryInterval bounds how often found targets are handed on. There
	// are few on one node, so they may start to be scraped soon.
	discoveryInterval = time.Second
	// flushDeadline bounds how long a queue that stops may go on sending what
	// it has in memory.
	flushDeadline = time.Second
	// stripeSize is the number of stripes in the log's map of series. One
	// node has some ten thousand series; the default of 16384 stripes is made
	// for millions.
	stripeSize = 512
)

// pipeline is the parts that carry samples, from targets to backends. Parts
// are opened by openPipeline, started by run and ended by close.
type pipeline struct {
	storage   storage.Storage
	gate      *gate
	sending   *sending
	scraper   *scrape.Manager
	discovery *discovery.Manager
	// stopDiscovery ends the discovery manager and everything it started.
	stopDiscovery context.CancelFunc
}

// openPipeline opens the log, which replays what is in it.
func openPipeline(path string, deps Deps) (*pipeline, error) {
	var ref scraperRef
	rs := remote.NewStorage(deps.Logger.With("component", "remote"), deps.Registry, startTime, path, flushDeadline, &ref, false)
	p, err := openScraping(path, rs, deps)
	if err != nil {
		return nil, errors.Join(err, rs.Close())
	}
	ref.manager.Store(p.scraper)
	return p, nil
}

func openScraping(path string, rs *remote.Storage, deps Deps) (*pipeline, error) {
	log, err := openLog(path, rs, deps)
	if err != nil {
		return nil, err
	}
	fanout := storage.NewFanout(deps.Logger, log, rs)
	gate := newGate(fanout)
	m, err := loadMarks(path)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	scraper, err := scrape.NewManager(
		&scrape.Options{
			DiscoveryReloadInterval:           model.Duration(discoveryInterval),
			EnableStartTimestampZeroIngestion: true,
		},
		deps.Logger.With("component", "scrape manager"), logging.NewJSONFileLogger, gate, deps.Registry)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make scrape manager: %w", err), log.Close())
	}
	sd, err := discovery.CreateAndRegisterSDMetrics(deps.Registry)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("register discovery metrics: %w", err), log.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	return &pipeline{
		storage: fanout,
		gate:    gate,
		sending: newSending(path, rs, m, deps),
		scraper: scraper,
		discovery: discovery.NewManager(ctx, deps.Logger.With("component", "discovery manager"), deps.Registry, sd,
			discovery.Name("scrape"), discovery.Updatert(discoveryInterval)),
		stopDiscovery: stop,
	}, nil
}

func openLog(path string, rs *remote.Storage, deps Deps) (*agent.DB, error) {
	opts := agent.DefaultOptions()
	opts.StripeSize = stripeSize
	opts.WALCompression = compression.Snappy
	log, err := agent.Open(deps.Logger.With("component", "wal"), deps.Registry, rs, path, opts)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("storage path %q is in use by another collector, give each its own: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open storage path %q: %w", path, err)
	}
	log.SetWriteNotified(rs)
	return log, nil
}

// apply hands the configuration to every part. The scrape manager comes before
// discovery, because it looks up the jobs that discovery finds targets for.
func (p *pipeline) apply(conf *config.Config) error {
	err := errors.Join(
		p.sending.apply(conf),
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
	wg.Go(func() { p.sending.run(ctx) })
	<-ctx.Done()
	p.gate.close()
	p.scraper.Stop()
	p.stopDiscovery()
	wg.Wait()
}

// close sends what is waiting, for a bounded time, and closes the log.
func (p *pipeline) close() error {
	p.stopDiscovery()
	err := p.sending.close()
	if cerr := p.storage.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close storage: %w", cerr))
	}
	return err
}

// scraperRef gives the remote storage, which is made first, the scrape
// manager, from which it takes metadata to send.
type scraperRef struct {
	manager atomic.Pointer[scrape.Manager]
}

var _ remote.ReadyScrapeManager = (*scraperRef)(nil)

// Get is part of remote.ReadyScrapeManager.
func (r *scraperRef) Get() (*scrape.Manager, error) {
	if m := r.manager.Load(); m != nil {
		return m, nil
	}
	return nil, ErrNotRunning
}

// startTime tells the read side of the remote storage, which a collector
// does not use, that nothing can be read.
func startTime() (int64, error) { return int64(model.Latest), nil }
