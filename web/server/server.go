// Package server is the HTTP server that every Tocsin process runs: its own
// mux and registry, /metrics, /-/healthy, /-/ready, profiling behind a flag,
// and TLS and basic authentication from a web configuration file as other
// programs of the Prometheus family take it.
//
// It knows nothing of what the process does: handlers are registered by the
// composition root before Run. It never uses http.DefaultServeMux.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 5 * time.Minute
	maxHeaderBytes    = 1 << 20
	// shutdownTimeout bounds how long requests in flight hold up a stop.
	shutdownTimeout = 3 * time.Second
)

// Config says where and how a process serves HTTP.
type Config struct {
	// ListenAddress is "host:port".
	ListenAddress string
	// WebConfigFile enables TLS and authentication; empty means neither. The
	// format is exporter-toolkit's.
	WebConfigFile string
	// EnablePprof serves /debug/pprof.
	EnablePprof bool
	// EnableLifecycle lets whoever reaches the port change what the process
	// does, see HandleLifecycle.
	EnableLifecycle bool
}

// ReadyFunc says why a process can't do its work yet; nil means that it can.
type ReadyFunc func() error

// Server serves the endpoints common to all processes and those registered on
// it.
type Server struct {
	cfg      Config
	mux      *http.ServeMux
	logger   *slog.Logger
	listener net.Listener
}

// New returns a server with the common endpoints. It opens no port.
func New(cfg Config, gatherer prometheus.Gatherer, ready ReadyFunc, logger *slog.Logger) *Server {
	s := &Server{cfg: cfg, mux: http.NewServeMux(), logger: logger}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	s.mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "Healthy.")
	})
	s.mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, "Not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "Ready.")
	})
	if cfg.EnablePprof {
		s.mux.HandleFunc("/debug/pprof/", pprof.Index)
		s.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		s.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		s.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return s
}

// Handle registers a handler; the pattern is http.ServeMux's.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// HandleLifecycle registers a handler, for POST and PUT, that changes what the
// process does, as /-/reload. It is refused unless the configuration enables
// such requests, as in Prometheus.
func (s *Server) HandleLifecycle(path string, h http.Handler) {
	if !s.cfg.EnableLifecycle {
		h = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Requests that change the process are not enabled, see --web.enable-lifecycle.", http.StatusForbidden)
		})
	}
	s.mux.Handle("POST "+path, h)
	s.mux.Handle("PUT "+path, h)
}

// Listen opens the port, so that Addr is known and a taken port is reported
// before anything else starts.
func (s *Server) Listen() error {
	if err := web.Validate(s.cfg.WebConfigFile); err != nil {
		return fmt.Errorf("web configuration file %q: %w", s.cfg.WebConfigFile, err)
	}
	l, err := net.Listen("tcp", s.cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %q: %w", s.cfg.ListenAddress, err)
	}
	s.listener = l
	return nil
}

// Addr is the address that the server listens on after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets requests in flight finish for a short
// while.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() {
		systemd := false
		failed <- web.Serve(s.listener, srv, &web.FlagConfig{
			WebSystemdSocket: &systemd,
			WebConfigFile:    &s.cfg.WebConfigFile,
		}, s.logger)
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP on %q: %w", s.cfg.ListenAddress, err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := srv.Shutdown(stopCtx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
