// Package app is the collector as a process: a collector, the HTTP endpoints
// through which it is watched and reloaded, and what makes it reload.
//
//	SIGHUP, POST /-/reload, change of the file ──▶ collector.Reload
//	/api/v1/targets, /api/v1/status/*           ──▶ Prometheus' API over the collector
//	/metrics, /-/healthy, /-/ready              ──▶ web/server
//
// It parses no flags and never exits the process. Run blocks; an App is used
// by one goroutine.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-rules/tocsin/collector"
	"github.com/tocsin-rules/tocsin/web/server"
)

// Options say how a collector process runs.
type Options struct {
	// ConfigFile is a file in Prometheus' configuration format.
	ConfigFile string
	// Node is the Kubernetes node that it runs on, empty outside of
	// Kubernetes.
	Node string
	// Kubeconfig is how to reach the Kubernetes API, empty as a pod does.
	Kubeconfig string
	// StoragePath is the directory of the write-ahead log, used by this
	// process alone.
	StoragePath string
	HTTP        server.Config
}

// App is a collector process. Call Listen, then Run.
type App struct {
	opts      Options
	logger    *slog.Logger
	collector *collector.Collector
	server    *server.Server
}

// Run runs a collector process until ctx ends and its parts have stopped,
// which takes a few seconds at most.
func Run(ctx context.Context, opts Options, logger *slog.Logger) error {
	a := New(opts, logger)
	if err := a.Listen(); err != nil {
		return err
	}
	return a.Run(ctx)
}

func (o Options) collector() collector.Config {
	return collector.Config{ConfigFile: o.ConfigFile, Node: o.Node, Kubeconfig: o.Kubeconfig, StoragePath: o.StoragePath}
}

// CheckConfig says whether a collector would accept the configuration. The
// error reports all faults at once.
func CheckConfig(o Options) error {
	_, err := collector.LoadConfig(o.collector(), slog.New(slog.DiscardHandler))
	return err
}

// New wires a collector process. It opens nothing.
func New(opts Options, logger *slog.Logger) *App {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		version.NewCollector("tocsin"),
	)
	c := collector.New(opts.collector(), collector.Deps{Logger: logger, Registry: reg})
	a := &App{
		opts:      opts,
		logger:    logger,
		collector: c,
		server:    server.New(opts.HTTP, reg, c.Ready, logger),
	}
	a.server.HandleLifecycle("/-/reload", http.HandlerFunc(a.handleReload))
	registerAPI(a, reg)
	return a
}

// Listen opens the HTTP port.
func (a *App) Listen() error { return a.server.Listen() }

// Addr is where the process serves HTTP, after Listen.
func (a *App) Addr() net.Addr { return a.server.Addr() }

// Run runs the process until ctx ends.
func (a *App) Run(ctx context.Context) error {
	a.logger.Info("collector starting", "addr", a.Addr().String(), "file", a.opts.ConfigFile)
	// The fingerprint comes before the first load, so that no change between
	// the two is missed.
	w := newFileWatch(a.opts.ConfigFile, a.logger)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.server.Run(ctx) })
	g.Go(func() error { return a.collector.Run(ctx) })
	g.Go(func() error { return w.run(ctx, func() { _ = a.reload("file changed") }) })
	g.Go(func() error { return a.reloadOnHangup(ctx) })
	return g.Wait()
}

func (a *App) reloadOnHangup(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			_ = a.reload("SIGHUP")
		}
	}
}

// reload logs how it went, because most who ask for it don't see the answer.
func (a *App) reload(why string) error {
	err := a.collector.Reload()
	if err != nil {
		a.logger.Error("configuration not reloaded, the one from before stays", "why", why, "file", a.opts.ConfigFile, "err", err)
		return err
	}
	a.logger.Info("configuration reloaded", "why", why, "file", a.opts.ConfigFile)
	return nil
}

// handleReload answers when the reload is done, with the error if it failed.
func (a *App) handleReload(w http.ResponseWriter, _ *http.Request) {
	if err := a.reload("request"); err != nil {
		http.Error(w, fmt.Sprintf("configuration not reloaded, the one from before stays: %s", err), http.StatusInternalServerError)
	}
}
