package backend

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/grafana/regexp"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

const apiPrefix = "/api/v1"

// Remote read as Prometheus bounds it by default.
const (
	remoteReadSampleLimit = 50_000_000
	remoteReadConcurrency = 10
	remoteReadFrameBytes  = 1 << 20
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
	started := time.Now()
	// Remote read replaces matchers on configured external labels by the
	// absence of the label. Here the labels are stored with the series, so it
	// must not know of any.
	promCfg := config.DefaultConfig
	api := v1.NewAPI(
		engine,
		store,
		store,
		store,
		func(context.Context) v1.ScrapePoolsRetriever { return nothing{} },
		func(context.Context) v1.TargetRetriever { return nothing{} },
		func(context.Context) v1.AlertmanagerRetriever { return nothing{} },
		func() config.Config { return promCfg },
		cfg.Flags,
		v1.GlobalURLOptions{},
		whenReady(store),
		store,
		store.cfg.Path,
		false,
		logger,
		func(context.Context) v1.RulesRetriever { return nothing{} },
		remoteReadSampleLimit,
		remoteReadConcurrency,
		remoteReadFrameBytes,
		false,
		regexp.MustCompile("^$"),
		func() (v1.RuntimeInfo, error) { return runtimeInfo(started, store.cfg.Retention), nil },
		buildInfo(),
		func() []notifications.Notification { return []notifications.Notification{} },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		reg,
		reg,
		nil,
		true,
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType},
		false, false, false,
		false,
		0,
		false,
		false,
		nil,
		features.NewRegistry(),
	)
	router := route.New().WithPrefix(apiPrefix)
	api.Register(router)
	return newLimiter(cfg, reg).wrap(router)
}

// whenReady keeps requests off a store whose log is still being replayed.
func whenReady(store *Store) func(http.HandlerFunc) http.HandlerFunc {
	return func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := store.Ready(); err != nil {
				http.Error(w, fmt.Sprintf("storage is not ready: %s", err), http.StatusServiceUnavailable)
				return
			}
			next(w, r)
		}
	}
}

func buildInfo() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version:   version.Version,
		Revision:  version.GetRevision(),
		Branch:    version.Branch,
		BuildUser: version.BuildUser,
		BuildDate: version.BuildDate,
		GoVersion: version.GoVersion,
	}
}

func runtimeInfo(started time.Time, retention time.Duration) v1.RuntimeInfo {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = fmt.Sprintf("<error retrieving current working directory: %s>", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = fmt.Sprintf("<error retrieving hostname: %s>", err)
	}
	return v1.RuntimeInfo{
		StartTime:           started,
		CWD:                 cwd,
		Hostname:            hostname,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: true,
		LastConfigTime:      started,
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
		StorageRetention:    model.Duration(retention).String(),
	}
}

// nothing answers for everything that a store does not have.
type nothing struct{}

func (nothing) ScrapePools() []string                       { return []string{} }
func (nothing) TargetsActive() map[string][]*scrape.Target  { return nil }
func (nothing) TargetsDropped() map[string][]*scrape.Target { return nil }
func (nothing) TargetsDroppedCounts() map[string]int        { return nil }
func (nothing) Alertmanagers() []*url.URL                   { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL            { return nil }
func (nothing) RuleGroups() []*rules.Group                  { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule        { return nil }
func (nothing) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	return nil, fmt.Errorf("no scrape pool %q: a store scrapes nothing", pool)
}
