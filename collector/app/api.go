package app

import (
	"strconv"

	"github.com/prometheus/prometheus/config"

	"github.com/tocsin-rules/tocsin/collector/status"
)

// statusDeps is what the status of the process is made of.
func (a *App) statusDeps() status.Deps {
	return status.Deps{
		Scraper:  a.scraper,
		Settings: a.settings,
		Refused:  a.refused,
		Flags:    a.flags(),
		Runtime:  a.describe,
		Logger:   a.logger.With("component", "status"),
	}
}

// scraper is an error before the collector runs; then nothing below is asked.
func (a *App) scraper() (status.Scraper, error) {
	m, err := a.collector.Scraper()
	if err != nil {
		return nil, a.collector.Ready()
	}
	return m, nil
}

func (a *App) settings() config.Config {
	st, _ := a.collector.Status()
	return st.Config
}

func (a *App) refused() []status.ConfigError {
	st, _ := a.collector.Status()
	refused := make([]status.ConfigError, 0, len(st.ConfigErrors))
	for _, e := range st.ConfigErrors {
		refused = append(refused, status.ConfigError{Pool: e.Pool, Error: e.Err.Error()})
	}
	return refused
}

func (a *App) flags() map[string]string {
	o := a.opts
	return map[string]string{
		"config.file":            o.ConfigFile,
		"config.map-namespace":   o.ConfigMaps.Namespace,
		"config.map-selector":    o.ConfigMaps.LabelSelector,
		"kubeconfig":             o.Terms.Kubeconfig,
		"node.name":              o.Terms.Node,
		"scrape.body-size-limit": o.Terms.BodySizeLimit.String(),
		"scrape.sample-limit":    strconv.FormatUint(uint64(o.Terms.SampleLimit), 10),
		"storage.path":           o.StoragePath,
		"web.listen-address":     o.HTTP.ListenAddress,
		"web.config.file":        o.HTTP.WebConfigFile,
		"web.enable-lifecycle":   strconv.FormatBool(o.HTTP.EnableLifecycle),
		"web.enable-pprof":       strconv.FormatBool(o.HTTP.EnablePprof),
	}
}

func (a *App) describe(info *status.RuntimeInfo) {
	st, err := a.collector.Status()
	if err != nil {
		return
	}
	info.ReloadConfigSuccess = !st.ReloadFailed
	info.LastConfigTime = st.LoadedAt.UTC()
	info.GOGC = strconv.Itoa(st.Config.Runtime.GoGC)
}
