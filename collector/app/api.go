package app

import (
	"cmp"
	"net"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/tocsin-rules/tocsin/web/promapi"
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

// registerAPI serves Prometheus' API, in its agent mode, over the collector.
func registerAPI(a *App, reg *prometheus.Registry) {
	api := promapi.New(promapi.Config{
		Dir:       a.opts.StoragePath,
		Scraper:   a.scraper,
		GlobalURL: a.globalURL(),
		Settings:  a.settings,
		Flags:     a.flags(),
		Runtime:   a.describe,
		Ready:     a.running,
		Logger:    a.logger.With("component", "api"),
		Registry:  reg,
	})
	for _, path := range apiPaths {
		a.server.Handle("GET "+promapi.Prefix+path, api)
	}
}

// running is an error before the collector runs; then nothing below is asked.
func (a *App) running() error {
	_, err := a.collector.Scraper()
	return err
}

func (a *App) scraper() promapi.Scraper {
	m, _ := a.collector.Scraper()
	return m
}

func (a *App) settings() config.Config {
	st, _ := a.collector.Status()
	return st.Config
}

func (a *App) flags() map[string]string {
	o := a.opts
	return map[string]string{
		"config.file":          o.ConfigFile,
		"config.map-namespace": o.ConfigMaps.Namespace,
		"config.map-selector":  o.ConfigMaps.LabelSelector,
		"kubeconfig":           o.Kubeconfig,
		"node.name":            o.Node,
		"storage.path":         o.StoragePath,
		"web.listen-address":   o.HTTP.ListenAddress,
		"web.config.file":      o.HTTP.WebConfigFile,
		"web.enable-pprof":     strconv.FormatBool(o.HTTP.EnablePprof),
	}
}

// globalURL says how targets on loopback are called from elsewhere.
func (a *App) globalURL() v1.GlobalURLOptions {
	addr := a.opts.HTTP.ListenAddress
	// An address without a host stands for all of the machine's.
	host, _, _ := net.SplitHostPort(addr)
	return v1.GlobalURLOptions{ListenAddress: addr, Host: cmp.Or(host, hostname()), Scheme: "http"}
}

func (a *App) describe(info *v1.RuntimeInfo) {
	st, err := a.collector.Status()
	if err != nil {
		return
	}
	info.ReloadConfigSuccess = !st.ReloadFailed
	info.LastConfigTime = st.LoadedAt.UTC()
	info.GOGC = strconv.Itoa(st.Config.Runtime.GoGC)
}

// hostname is empty on a machine that can't tell its name.
func hostname() string {
	name, _ := os.Hostname()
	return name
}
