package app

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/scrape"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// apiPaths are the parts of Prometheus' API that make sense for a process
// that stores nothing to query.
var apiPaths = []string{
	"/targets",
	"/targets/metadata",
	"/targets/relabel_steps",
	"/scrape_pools",
	"/metadata",
	"/status/config",
	"/status/flags",
	"/status/runtimeinfo",
	"/status/buildinfo",
}

const apiPrefix = "/api/v1"

// apiLimits of the read and write endpoints, which are not served.
const (
	noSampleLimit = 0
	noConcurrency = 0
	noFrameBytes  = 0
)

// registerAPI serves Prometheus' API, in its agent mode, over the collector.
func registerAPI(a *App, gatherer prometheus.Gatherer) {
	s := statusAPI{app: a, start: time.Now().UTC()}
	api := v1.NewAPI(
		nil, nil, nil, nil,
		func(ctx context.Context) v1.ScrapePoolsRetriever { return scraperFrom(ctx) },
		func(ctx context.Context) v1.TargetRetriever { return scraperFrom(ctx) },
		nil,
		s.config,
		s.flags(),
		s.globalURLOptions(),
		s.whenReady,
		nil, a.opts.StoragePath, false,
		a.logger.With("component", "api"),
		nil,
		noSampleLimit, noConcurrency, noFrameBytes,
		true,
		nil,
		s.runtimeInfo,
		buildInfo(),
		nil, nil,
		gatherer, nil,
		nil,
		false, nil, false, false, false, false,
		0, false, false,
		nil, nil,
	)
	router := route.New().WithPrefix(apiPrefix)
	api.Register(router)
	for _, path := range apiPaths {
		a.server.Handle("GET "+apiPrefix+path, router)
	}
}

// statusAPI answers what Prometheus' API asks its process.
type statusAPI struct {
	app   *App
	start time.Time
}

type scraperKey struct{}

// scraperFrom is the scrape manager that whenReady has put into the request's
// context.
func scraperFrom(ctx context.Context) *scrape.Manager {
	m, _ := ctx.Value(scraperKey{}).(*scrape.Manager)
	return m
}

// whenReady refuses requests that come before the collector runs.
func (s statusAPI) whenReady(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m, err := s.app.collector.Scraper()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), scraperKey{}, m)))
	}
}

func (s statusAPI) config() config.Config {
	// Requests come only when there is one.
	st, _ := s.app.collector.Status()
	return st.Config
}

func (s statusAPI) flags() map[string]string {
	o := s.app.opts
	return map[string]string{
		"config.file":        o.ConfigFile,
		"storage.path":       o.StoragePath,
		"web.listen-address": o.HTTP.ListenAddress,
		"web.config.file":    o.HTTP.WebConfigFile,
		"web.enable-pprof":   strconv.FormatBool(o.HTTP.EnablePprof),
	}
}

// globalURLOptions say how targets on loopback are called from elsewhere.
func (s statusAPI) globalURLOptions() v1.GlobalURLOptions {
	addr := s.app.opts.HTTP.ListenAddress
	// An address without a host stands for all of the machine's.
	host, _, _ := net.SplitHostPort(addr)
	return v1.GlobalURLOptions{ListenAddress: addr, Host: cmp.Or(host, hostname()), Scheme: "http"}
}

func (s statusAPI) runtimeInfo() (v1.RuntimeInfo, error) {
	st, err := s.app.collector.Status()
	if err != nil {
		return v1.RuntimeInfo{}, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return v1.RuntimeInfo{}, err
	}
	return v1.RuntimeInfo{
		StartTime:           s.start,
		CWD:                 cwd,
		Hostname:            hostname(),
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: !st.ReloadFailed,
		LastConfigTime:      st.LoadedAt.UTC(),
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                strconv.Itoa(st.Config.Runtime.GoGC),
		GODEBUG:             os.Getenv("GODEBUG"),
	}, nil
}

// hostname is empty on a machine that can't tell its name.
func hostname() string {
	name, _ := os.Hostname()
	return name
}

func buildInfo() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version:   version.Version,
		Revision:  version.Revision,
		Branch:    version.Branch,
		BuildUser: version.BuildUser,
		BuildDate: version.BuildDate,
		GoVersion: version.GoVersion,
	}
}
