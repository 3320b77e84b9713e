package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"

	"github.com/tocsin-rules/tocsin/backend/app"
	"github.com/tocsin-rules/tocsin/web/promapi"
	"github.com/tocsin-rules/tocsin/web/server"
)

// startTimeout is how long the replay of a write-ahead log may take.
const startTimeout = 5 * time.Minute

// startBackend runs the backend process of Tocsin.
func startBackend(ctx context.Context, s Setup, logger *slog.Logger) (Endpoint, func() error, error) {
	ports, err := freeAddresses(2)
	if err != nil {
		return Endpoint{}, nil, err
	}
	o := app.Options{
		StoragePath:       s.Dir,
		HTTP:              server.Config{ListenAddress: ports[0]},
		GRPCListenAddress: ports[1],
	}
	if s.Cluster != "" {
		o.ExternalLabels = labels.FromStrings("cluster", s.Cluster)
	}
	at := Endpoint{Cluster: s.Cluster, HTTP: "http://" + ports[0], GRPC: ports[1]}
	stop := background(ctx, func(ctx context.Context) error { return app.Run(ctx, o, logger) })
	if err := ready(ctx, at.HTTP+"/-/ready"); err != nil {
		return at, nil, errors.Join(err, stop())
	}
	return at, stop, nil
}

// freeAddresses are loopback addresses on which nothing listens.
func freeAddresses(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// background runs until the returned function is called, which waits for it to
// end.
func background(ctx context.Context, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// ready polls until a process says that it is.
func ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", url, ctx.Err())
		case <-tick.C:
		}
	}
}

// openTSDB opens a directory as a Prometheus server does.
func openTSDB(dir string, logger *slog.Logger) (*tsdb.DB, error) {
	db, err := tsdb.Open(dir, logger, nil, tsdb.DefaultOptions(), tsdb.NewDBStats())
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", dir, err)
	}
	return db, nil
}

// newEngine is Prometheus' engine with the settings of a Prometheus server.
func newEngine(logger *slog.Logger) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:                   logger,
		Reg:                      prometheus.NewRegistry(),
		MaxSamples:               50_000_000,
		Timeout:                  2 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		FeatureRegistry:          features.NewRegistry(),
	})
}

// startPrometheus serves what a Prometheus server does for queries.
func startPrometheus(ctx context.Context, s Setup, logger *slog.Logger) (Endpoint, func() error, error) {
	db, err := openTSDB(s.Dir, logger)
	if err != nil {
		return Endpoint{}, nil, err
	}
	reg := prometheus.NewRegistry()
	srv := server.New(server.Config{ListenAddress: "127.0.0.1:0"}, reg, func() error { return nil }, logger)
	srv.Handle(promapi.Prefix+"/", promapi.New(promapi.Config{
		Engine: newEngine(logger), Queryable: db, Logger: logger, Registry: reg,
	}))
	if err := srv.Listen(); err != nil {
		return Endpoint{}, nil, errors.Join(err, db.Close())
	}
	stop := background(ctx, srv.Run)
	return Endpoint{HTTP: "http://" + srv.Addr().String()}, func() error { return errors.Join(stop(), db.Close()) }, nil
}
