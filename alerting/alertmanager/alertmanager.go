// Package alertmanager is a real Alertmanager in one process, put together
// from Alertmanager's own packages: routing, grouping, inhibition, silences,
// the notification log, every receiver type and the v2 API. It is the one that
// a whole system on one machine uses; any other Alertmanager does as well.
//
//	v2 API ──▶ alerts ──▶ dispatcher ──▶ inhibit, silence, time, dedup ──▶ receivers
//	             silences, notification log ◀──▶ files under the storage path
//
// Silences and what was notified are on disk within a second of every change,
// so neither a restart nor a crash forgets a silence or notifies again. It does
// not gossip with other Alertmanagers, has no web page and traces nothing.
//
// Run blocks; an Alertmanager is used by one goroutine, its handlers by many.
package alertmanager

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-rules/tocsin/web/server"
)

const (
	// defaultRetention is how long Alertmanager keeps things unless told.
	defaultRetention = 120 * time.Hour
	// configPoll is how often the configuration file is looked at.
	configPoll = 5 * time.Second
)

// Options say how an Alertmanager process runs.
type Options struct {
	// ConfigFile is a file in Alertmanager's configuration format.
	ConfigFile string
	// StoragePath is the directory of the silences and the notification log,
	// used by this process alone. It is created if missing.
	StoragePath string
	HTTP        server.Config
	// ExternalURL is what links in notifications start with. If empty it is
	// made of the address that the process listens on.
	ExternalURL string
	// Retention is how long expired silences and notifications are
	// remembered; zero means 120 hours. It must be longer than the repeat
	// interval of every route.
	Retention time.Duration
}

// Alertmanager is a process. Call Listen, then Run.
type Alertmanager struct {
	opts   Options
	logger *slog.Logger
	reg    *prometheus.Registry
	server *server.Server
}

// Run runs an Alertmanager until ctx ends and its state is on disk.
func Run(ctx context.Context, opts Options, logger *slog.Logger) error {
	a := New(opts, logger)
	if err := a.Listen(); err != nil {
		return err
	}
	return a.Run(ctx)
}

// New returns an Alertmanager that has opened nothing yet.
func New(opts Options, logger *slog.Logger) *Alertmanager {
	if opts.Retention == 0 {
		opts.Retention = defaultRetention
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		version.NewCollector("tocsin"),
	)
	// Requests are served only once everything is open and configured.
	ready := func() error { return nil }
	return &Alertmanager{opts: opts, logger: logger, reg: reg, server: server.New(opts.HTTP, reg, ready, logger)}
}

// Listen opens the HTTP port. Requests wait until Run serves them.
func (a *Alertmanager) Listen() error { return a.server.Listen() }

// Addr is where the process serves HTTP, after Listen.
func (a *Alertmanager) Addr() net.Addr { return a.server.Addr() }

// Run opens the stored state, applies the configuration and serves until ctx
// ends. A configuration that is faulty at the start is an error; later it
// leaves the one from before. It is applied again when the file changes, on
// SIGHUP and on request.
func (a *Alertmanager) Run(ctx context.Context) error {
	before := fingerprint(a.opts.ConfigFile)
	c, err := openCore(a)
	if err != nil {
		return err
	}
	defer c.close()
	a.server.Handle("/api/", c.handler())
	a.server.HandleLifecycle("/-/reload", reloadHandler(c))
	a.logger.Info("alertmanager starting", "addr", a.Addr().String(), "file", a.opts.ConfigFile)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.server.Run(ctx) })
	g.Go(func() error { return reloadOnHangup(ctx, c) })
	g.Go(func() error { return reloadOnChange(ctx, a.opts.ConfigFile, before, c) })
	return g.Wait()
}

func reloadHandler(c *core) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := c.configs.Reload(); err != nil {
			http.Error(w, "configuration not reloaded, the one from before stays: "+err.Error(), http.StatusInternalServerError)
		}
	}
}

// reloadOnHangup leaves it to the configuration coordinator to log how it
// went.
func reloadOnHangup(ctx context.Context, c *core) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			_ = c.configs.Reload()
		}
	}
}

// reloadOnChange polls, because the links of a mounted Secret change without a
// notification of the file. loaded is the fingerprint of what is in use.
func reloadOnChange(ctx context.Context, file string, loaded [sha256.Size]byte, c *core) error {
	ticker := time.NewTicker(configPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if now := fingerprint(file); now != loaded {
				loaded = now
				_ = c.configs.Reload()
			}
		}
	}
}

// fingerprint is that of a file's content. A file that can't be read has that
// of an empty one; the reload says why.
func fingerprint(file string) [sha256.Size]byte {
	content, err := os.ReadFile(file)
	if err != nil {
		content = nil
	}
	return sha256.Sum256(content)
}
