// Package app is the composition root of the backend process: store, query
// engine, HTTP API and pushdown server, wired once and run until the context
// ends.
//
//	remote write, queries ──HTTP──▶ web/server ─▶ backend API ─┐
//	                                                           ├─▶ engine ─▶ backend.Store (TSDB)
//	batches of fragments ──gRPC──▶ pushdown.Server ────────────┘
//
// It decides nothing but the order of start and stop: ports are opened first,
// so that a taken one is reported before the write-ahead log is replayed, and
// the store is closed last, when nobody uses it any more.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/backend"
	"github.com/tocsin-rules/tocsin/backend/columns"
	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/web/server"
)

// Options is everything that a backend process is told.
type Options struct {
	// StoragePath is the directory of the TSDB.
	StoragePath string
	// ExternalLabels are the partition: every series in the store carries
	// them. May be empty.
	ExternalLabels labels.Labels
	// AbsentLabels are names of labels that no series in the store may carry.
	AbsentLabels []string
	// Retention is how long data is kept; 0 asks for 15 days.
	Retention time.Duration
	// OutOfOrderWindow is how late a sample may arrive; 0 asks for 2 hours.
	OutOfOrderWindow time.Duration
	// HTTP is where the Prometheus API is served.
	HTTP server.Config
	// GRPCListenAddress is where the pushdown protocol is served; empty means
	// nowhere.
	GRPCListenAddress string
	GRPC              transport.Config
	// Query bounds the queries of both protocols; zero values ask for
	// defaults.
	Query engine.Config
}

// flags is what /api/v1/status/flags shows.
func (o Options) flags() map[string]string {
	return map[string]string{
		"storage.path":                o.StoragePath,
		"storage.external-label":      o.ExternalLabels.String(),
		"storage.absent-label":        fmt.Sprint(o.AbsentLabels),
		"storage.retention.time":      model.Duration(o.Retention).String(),
		"storage.out-of-order-window": model.Duration(o.OutOfOrderWindow).String(),
		"web.listen-address":          o.HTTP.ListenAddress,
		"grpc.listen-address":         o.GRPCListenAddress,
	}
}

// process is the wired components.
type process struct {
	store    *backend.Store
	engine   *engine.Engine
	http     *server.Server
	pushdown *pushdown.Server
	// servers are the goroutines that use the store.
	servers sync.WaitGroup
}

// Run is a backend process; it returns when ctx ends or a component fails.
func Run(ctx context.Context, opts Options, logger *slog.Logger) error {
	p, err := newProcess(opts, logger)
	if err != nil {
		return err
	}
	if err := p.listen(); err != nil {
		return err
	}
	logger.Info("backend is starting", "partition", p.store.Partition().String(), "http", p.http.Addr().String(), "grpc", p.grpcAddr())
	err = p.run(ctx)
	if errors.Is(err, errStopped) {
		logger.Info("backend has stopped")
		return nil
	}
	return err
}

func newProcess(opts Options, logger *slog.Logger) (*process, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		version.NewCollector("tocsin"),
	)
	store, err := backend.NewStore(backend.StoreConfig{
		Path:             opts.StoragePath,
		Partition:        backend.Partition{Labels: opts.ExternalLabels, Absent: opts.AbsentLabels},
		Retention:        opts.Retention,
		OutOfOrderWindow: opts.OutOfOrderWindow,
	}, reg, logger)
	if err != nil {
		return nil, err
	}
	p := &process{store: store, engine: engine.New(opts.Query, reg, logger)}
	p.http = server.New(opts.HTTP, reg, store.Ready, logger)
	p.http.Handle("/api/v1/", backend.NewAPI(backend.APIConfig{Flags: opts.flags()}, store, p.engine, reg, logger))
	if opts.GRPCListenAddress == "" {
		return p, nil
	}
	p.pushdown, err = pushdown.New(
		pushdown.Config{
			ListenAddress: opts.GRPCListenAddress, Transport: opts.GRPC, Lookback: opts.Query.Lookback,
			Columns: columns.Config{MaxSamples: opts.Query.MaxSamples, Timeout: opts.Query.Timeout},
		},
		pushdown.Deps{Engine: p.engine, Admit: p.engine.Admit, Queryable: store, Ready: store.Ready, Registry: reg, Logger: logger},
	)
	return p, err
}

// listen opens all ports or none.
func (p *process) listen() error {
	if p.pushdown != nil {
		if err := p.pushdown.Listen(); err != nil {
			return err
		}
	}
	if err := p.http.Listen(); err != nil {
		if p.pushdown != nil {
			err = errors.Join(err, p.pushdown.Close())
		}
		return err
	}
	return nil
}

// grpcAddr is where the pushdown protocol is served, or "".
func (p *process) grpcAddr() string {
	if p.pushdown == nil {
		return ""
	}
	return p.pushdown.Addr().String()
}

// errStopped says that the process was asked to stop.
var errStopped = errors.New("stopped")

func (p *process) run(ctx context.Context) error {
	var g run.Group
	stop, cancel := context.WithCancel(context.Background())
	defer cancel()
	g.Add(func() error {
		select {
		case <-ctx.Done():
		case <-stop.Done():
		}
		return errStopped
	}, func(error) { cancel() })
	p.addServer(&g, p.http.Run)
	if p.pushdown != nil {
		p.addServer(&g, p.pushdown.Run)
	}
	// Interrupts are called in the order of the actors: when the store's is
	// called the servers have been told to stop.
	storeCtx, closeStore := context.WithCancel(context.Background())
	g.Add(
		func() error { return p.store.Run(storeCtx) },
		func(error) {
			p.servers.Wait()
			p.engine.Wait()
			closeStore()
		},
	)
	return g.Run()
}

// addServer adds an actor that uses the store.
func (p *process) addServer(g *run.Group, serve func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p.servers.Add(1)
	g.Add(
		func() error {
			defer p.servers.Done()
			return serve(ctx)
		},
		func(error) { cancel() },
	)
}
