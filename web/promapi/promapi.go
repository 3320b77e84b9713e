// Package promapi is Prometheus' own HTTP API, put together for a process
// that has only some of what a Prometheus server has.
//
// It fills in the rest: what a process lacks is an empty list or a refusal,
// never a panic. It adds nothing to the API. The handler is safe for
// concurrent use.
package promapi

import (
	"context"
	"errors"
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
	"github.com/prometheus/common/route"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Prefix is the path under which the handler is to be mounted.
const Prefix = "/api/v1"

// Remote read as Prometheus bounds it by default.
const (
	readSampleLimit = 50_000_000
	readConcurrency = 10
	readFrameBytes  = 1 << 20
)

// Config is what the process has. Logger and Registry are needed, all else may
// be left out.
type Config struct {
	// Engine and Queryable answer queries.
	Engine    promql.QueryEngine
	Queryable storage.SampleAndChunkQueryable
	// Appendable takes remote writes, 1.0 and 2.0.
	Appendable storage.Appendable
	Exemplars  storage.ExemplarQueryable
	// TSDB is behind /api/v1/status/tsdb, Dir the directory that it is in.
	TSDB v1.TSDBAdminStats
	Dir  string

	// Settings are shown in /api/v1/status/config; secrets in it are not.
	Settings func() config.Config
	// Flags are shown in /api/v1/status/flags.
	Flags map[string]string
	// Runtime fills in what Prometheus' runtimeinfo has beyond the process.
	Runtime func(*v1.RuntimeInfo)
	// Ready is an error while the process cannot answer.
	Ready func() error

	Logger   *slog.Logger
	Registry *prometheus.Registry
}

func (c Config) withDefaults() Config {
	if c.Exemplars == nil {
		c.Exemplars = nothing{}
	}
	if c.TSDB == nil {
		c.TSDB = nothing{}
	}
	if c.Settings == nil {
		c.Settings = func() config.Config { return config.DefaultConfig }
	}
	if c.Runtime == nil {
		c.Runtime = func(*v1.RuntimeInfo) {}
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	return c
}

// New returns the API, to be mounted under Prefix. Without an engine it is
// that of an agent: queries are refused.
func New(c Config) http.Handler {
	c = c.withDefaults()
	started := time.Now()
	api := v1.NewAPI(
		c.Engine,
		c.Queryable,
		c.Appendable,
		c.Exemplars,
		func(context.Context) v1.ScrapePoolsRetriever { return nothing{} },
		func(context.Context) v1.TargetRetriever { return nothing{} },
		func(context.Context) v1.AlertmanagerRetriever { return nothing{} },
		c.Settings,
		c.Flags,
		v1.GlobalURLOptions{},
		c.whenReady,
		c.TSDB,
		c.Dir,
		false, // no admin API
		c.Logger,
		func(context.Context) v1.RulesRetriever { return nothing{} },
		readSampleLimit,
		readConcurrency,
		readFrameBytes,
		c.Engine == nil,
		regexp.MustCompile("^$"), // no cross-origin requests
		func() (v1.RuntimeInfo, error) { return c.runtimeInfo(started), nil },
		buildInfo(),
		func() []notifications.Notification { return []notifications.Notification{} },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		c.Registry,
		c.Registry,
		nil,
		c.Appendable != nil,
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType},
		false, false, false, // no OTLP
		false,
		0,
		false,
		false,
		nil,
		features.NewRegistry(),
	)
	router := route.New().WithPrefix(Prefix)
	api.Register(router)
	return router
}

// whenReady keeps requests off a process that cannot answer yet.
func (c Config) whenReady(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := c.Ready(); err != nil {
			http.Error(w, fmt.Sprintf("not ready: %s", err), http.StatusServiceUnavailable)
			return
		}
		next(w, r)
	}
}

func (c Config) runtimeInfo(started time.Time) v1.RuntimeInfo {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = fmt.Sprintf("<error: %s>", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = fmt.Sprintf("<error: %s>", err)
	}
	info := v1.RuntimeInfo{
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
	}
	c.Runtime(&info)
	return info
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

var errNoStorage = errors.New("this process has no storage of its own")

// nothing answers for everything that a process does not have.
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
	return nil, fmt.Errorf("no scrape pool %q: this process scrapes nothing", pool)
}

func (nothing) ExemplarQuerier(context.Context) (storage.ExemplarQuerier, error) {
	return nil, errNoStorage
}

func (nothing) CleanTombstones() error                         { return errNoStorage }
func (nothing) Snapshot(string, bool) error                    { return errNoStorage }
func (nothing) Stats(string, int) (*tsdb.Stats, error)         { return nil, errNoStorage }
func (nothing) BlockMetas() ([]tsdb.BlockMeta, error)          { return nil, errNoStorage }
func (nothing) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

func (nothing) Delete(context.Context, int64, int64, ...*labels.Matcher) error { return errNoStorage }
