package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/tocsin-rules/tocsin/web/server"
)

// syncPatience is how long a readiness probe waits for the cache.
const syncPatience = time.Second

// newServer serves the metrics of the controllers, which are registered with
// the library, and those of the process.
func newServer(o Options, mgr manager.Manager, logger *slog.Logger) (*server.Server, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(versioncollector.NewCollector("tocsin_operator"))
	ready := func() error { return synced(context.Background(), mgr) }
	s := server.New(o.HTTP, prometheus.Gatherers{reg, metrics.Registry}, ready, logger)
	return s, s.Listen()
}

func cacheCheck(mgr manager.Manager) healthz.Checker {
	return func(r *http.Request) error { return synced(r.Context(), mgr) }
}

// synced says whether the operator knows the resources.
func synced(ctx context.Context, mgr manager.Manager) error {
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return errors.New("the cache of resources is not filled yet")
	}
	return nil
}
