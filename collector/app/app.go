// Package app is the collector as a process: a collector, the HTTP endpoints
// through which it is watched and reloaded, and what makes it reload.
//
//	SIGHUP, POST /-/reload, change of the source ──▶ collector.Reload
//	/api/v1/targets, /api/v1/status/*, /targets   ──▶ collector/status
//	/metrics, /-/healthy, /-/ready                ──▶ web/server
//
// It parses no flags and never exits the process. Run blocks; an App is used
// by one goroutine.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-rules/tocsin/collector"
	"github.com/tocsin-rules/tocsin/collector/status"
	"github.com/tocsin-rules/tocsin/collector/wal"
	"github.com/tocsin-rules/tocsin/kubeapi"
	"github.com/tocsin-rules/tocsin/web/server"
)

// Options say how a collector process runs.
type Options struct {
	// ConfigFile is a file in Prometheus' configuration format.
	ConfigFile string
	// ConfigMaps, if it has a selector, is where the configuration is in place
	// of a file. Its kubeconfig is that of the options.
	ConfigMaps kubeapi.Selection
	// Terms are laid down for every scrape config.
	Terms collector.Terms
	// StoragePath is the directory of the write-ahead log, used by this
	// process alone.
	StoragePath string
	// Limits bound the write-ahead log.
	Limits wal.Options
	HTTP   server.Config
}

// checkTimeout bounds waiting for the API server when a configuration is
// checked.
const checkTimeout = 30 * time.Second

// App is a collector process. Call Listen, then Run.
type App struct {
	opts      Options
	logger    *slog.Logger
	collector *collector.Collector
	server    *server.Server
	source    collector.Source
	// configMaps is nil if the source is a file.
	configMaps *kubeapi.ConfigMaps
	changed    chan struct{} // The ConfigMaps have.
}

// Run runs a collector process until ctx ends and its parts have stopped,
// which takes a few seconds at most.
func Run(ctx context.Context, opts Options, logger *slog.Logger) error {
	a, err := New(opts, logger)
	if err != nil {
		return err
	}
	if err := a.Listen(); err != nil {
		return err
	}
	return a.Run(ctx)
}

// CheckConfig says whether a collector would run the configuration as it is.
// The error reports all faults at once.
func CheckConfig(ctx context.Context, o Options) error {
	a := &App{opts: o, logger: slog.New(slog.DiscardHandler)}
	if err := a.findSource(); err != nil {
		return err
	}
	if a.configMaps != nil {
		ctx, stop := context.WithTimeout(ctx, checkTimeout)
		defer stop()
		a.configMaps.RunUntilRead(ctx)
	}
	return collector.CheckConfig(a.source, o.Terms)
}

// New wires a collector process. It opens nothing.
func New(opts Options, logger *slog.Logger) (*App, error) {
	a := &App{opts: opts, logger: logger}
	if err := a.findSource(); err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		version.NewCollector("tocsin"),
	)
	a.collector = collector.New(collector.Config{
		Source: a.source, AwaitSource: a.configMaps != nil, Terms: opts.Terms, StoragePath: opts.StoragePath, Limits: opts.Limits,
	}, collector.Deps{Logger: logger, Registry: reg})
	a.server = server.New(opts.HTTP, reg, a.collector.Ready, logger)
	a.server.HandleLifecycle("/-/reload", http.HandlerFunc(a.handleReload))
	status.New(a.statusDeps()).Register(a.server)
	return a, nil
}

// findSource decides where the configuration is.
func (a *App) findSource() error {
	if a.opts.ConfigMaps.LabelSelector == "" {
		a.source = collector.FileSource(a.opts.ConfigFile)
		return nil
	}
	selection := a.opts.ConfigMaps
	selection.KubeconfigFile = a.opts.Terms.Kubeconfig
	a.changed = make(chan struct{}, 1)
	maps, err := kubeapi.Follow(selection, func() { notify(a.changed) }, a.logger)
	if err != nil {
		return fmt.Errorf("configuration in ConfigMaps: %w", err)
	}
	a.configMaps, a.source = maps, collector.ConfigMapSource{ConfigMaps: maps}
	return nil
}

// Listen opens the HTTP port.
func (a *App) Listen() error { return a.server.Listen() }

// Addr is where the process serves HTTP, after Listen.
func (a *App) Addr() net.Addr { return a.server.Addr() }

// Run runs the process until ctx ends.
func (a *App) Run(ctx context.Context) error {
	a.logger.Info("collector starting", "addr", a.Addr().String(), "config", a.source.String())
	g, ctx := errgroup.WithContext(ctx)
	var events <-chan struct{} = a.changed
	if a.configMaps == nil {
		events = fileEvents(ctx, a.opts.ConfigFile, a.logger)
	} else {
		g.Go(func() error {
			a.configMaps.Run(ctx)
			return nil
		})
	}
	// The fingerprint comes before the first load, so that no change between
	// the two is missed.
	w := newWatch(a.source, events)
	g.Go(func() error { return a.server.Run(ctx) })
	g.Go(func() error { return a.collector.Run(ctx) })
	g.Go(func() error {
		w.run(ctx, func() { _ = a.reload("configuration changed") }, a.tryAgain)
		return nil
	})
	g.Go(func() error { return a.reloadOnHangup(ctx) })
	g.Go(func() error { a.shed(ctx); return nil })
	return g.Wait()
}

// shed gives memory that the start has used back to the kernel, soon after it
// and again, each time later, until everything has run that runs often.
func (a *App) shed(ctx context.Context) {
	for wait := 2 * time.Second; wait < 5*time.Minute; wait *= 2 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		debug.FreeOSMemory()
		if err := shedProgram(); err != nil {
			a.logger.Debug("memory that the start has used is kept", "err", err)
		}
	}
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
	if errors.Is(err, collector.ErrNotRunning) {
		return err // It says what it waits for.
	}
	if err != nil {
		a.logger.Error("configuration not reloaded, the one from before stays", "why", why, "err", err)
		return err
	}
	a.logger.Info("configuration reloaded", "why", why)
	return nil
}

// tryAgain loads a configuration that is not good enough, quietly: the files
// that it names may have come.
func (a *App) tryAgain() {
	st, err := a.collector.Status()
	if err == nil && !st.ReloadFailed {
		return
	}
	// A failure was logged when it was new.
	_ = a.collector.Reload()
}

// handleReload answers when the reload is done, with the error if it failed.
func (a *App) handleReload(w http.ResponseWriter, _ *http.Request) {
	if err := a.reload("request"); err != nil {
		http.Error(w, fmt.Sprintf("configuration not reloaded, the one from before stays: %s", err), http.StatusInternalServerError)
	}
}
