package backend

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/tocsin-rules/tocsin/web/promapi"
)

// APIConfig is what the API shows of the process and how large requests may
// be. The zero value of a number asks for its default.
type APIConfig struct {
	// Flags are the settings that /api/v1/status/flags shows.
	Flags map[string]string
	// MaxRequestBytes bounds the body of any request as it is sent; default
	// 16 MiB.
	MaxRequestBytes int64
	// MaxDecodedBytes bounds the uncompressed body of remote write and remote
	// read requests; default 32 MiB.
	MaxDecodedBytes int64
}

func (c APIConfig) withDefaults() APIConfig {
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 16 << 20
	}
	if c.MaxDecodedBytes == 0 {
		c.MaxDecodedBytes = 32 << 20
	}
	return c
}

// NewAPI returns Prometheus' HTTP API over the store, to be mounted under
// /api/v1/. Rules, targets and Alertmanagers are empty lists: a store has
// none. Every endpoint that needs data answers 503 until the store is ready.
//
// A remote-write request with series that can't be accepted is answered with
// 400: version 2.0 stores the others and says how many, version 1.0, which
// has no way to say that, stores none.
func NewAPI(cfg APIConfig, store *Store, engine promql.QueryEngine, reg *prometheus.Registry, logger *slog.Logger) http.Handler {
	cfg = cfg.withDefaults()
	api := promapi.New(promapi.Config{
		Engine:     engine,
		Queryable:  store,
		Appendable: store,
		Exemplars:  store,
		TSDB:       store,
		Dir:        store.cfg.Path,
		// Remote read replaces matchers on configured external labels by the
		// absence of the label. Here the labels are stored with the series, so
		// it must not know of any.
		Settings: func() config.Config { return config.DefaultConfig },
		Flags:    cfg.Flags,
		Runtime: func(info *v1.RuntimeInfo) {
			info.StorageRetention = model.Duration(store.cfg.Retention).String()
		},
		Ready:    store.Ready,
		Logger:   logger,
		Registry: reg,
	})
	return newLimiter(cfg, reg).wrap(api)
}
