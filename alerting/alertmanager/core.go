package alertmanager

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
)

const (
	// alertGCInterval is how often resolved alerts are forgotten.
	alertGCInterval = 30 * time.Minute
	// noLimit lifts a limit of Alertmanager's.
	noLimit = 0
)

// core is everything behind the HTTP port.
type core struct {
	api     *api.API
	configs *config.Coordinator
	// cleanups end the parts, the last one first.
	cleanups []func()
}

// openCore opens the stored state, starts the parts in the order in which they
// need each other, and applies the configuration.
func openCore(a *Alertmanager) (*core, error) {
	conf, err := config.LoadFile(a.opts.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("load configuration file %q: %w", a.opts.ConfigFile, err)
	}
	if err := os.MkdirAll(a.opts.StoragePath, 0o750); err != nil {
		return nil, fmt.Errorf("make storage path: %w", err)
	}
	external, err := externalURL(a.opts.ExternalURL, a.Addr())
	if err != nil {
		return nil, err
	}
	c := &core{configs: config.NewCoordinator(a.opts.ConfigFile, a.reg, a.logger.With("component", "configuration"))}
	if err := c.start(a, external, conf); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *core) start(a *Alertmanager, external *url.URL, conf *config.Config) error {
	st, err := c.openStores(a)
	if err != nil {
		return err
	}
	silencer := silence.NewSilencer(st.silences, a.logger, eventrecorder.NopRecorder())
	// The context ends nothing that Close doesn't.
	alerts, err := mem.NewAlerts(context.Background(), alertGCInterval, noLimit, silencer, a.logger,
		eventrecorder.NopRecorder(), a.reg, featurecontrol.NoopFlags{})
	if err != nil {
		return fmt.Errorf("make alert store: %w", err)
	}
	c.cleanups = append(c.cleanups, alerts.Close)
	r := &routing{
		alerts: alerts, silencer: silencer, log: st.notifications, groups: marker.NewGroupMarker(),
		pipelines: notify.NewPipelineBuilder(a.reg, featurecontrol.NoopFlags{}, eventrecorder.NopRecorder()),
		dispatch:  dispatch.NewDispatcherMetrics(false, a.reg, featurecontrol.NoopFlags{}),
		metrics:   newMetrics(a.reg), external: external, retention: a.opts.Retention, logger: a.logger, started: time.Now(),
	}
	c.cleanups = append(c.cleanups, r.stop)
	if r.api, err = newAPI(a, st.silences, r); err != nil {
		return fmt.Errorf("make API: %w", err)
	}
	c.api = r.api
	c.configs.Subscribe(r.apply)
	if err := c.configs.ApplyConfig(conf); err != nil {
		return fmt.Errorf("apply configuration file %q: %w", a.opts.ConfigFile, err)
	}
	return nil
}

// stores are what outlives the process.
type stores struct {
	silences      *silence.Silences
	notifications *nflog.Log
}

func (c *core) openStores(a *Alertmanager) (*stores, error) {
	silencesFile, logFile := filepath.Join(a.opts.StoragePath, "silences"), filepath.Join(a.opts.StoragePath, "nflog")
	notifications, err := nflog.New(nflog.Options{
		SnapshotFile: logFile, Retention: a.opts.Retention, Logger: a.logger.With("component", "nflog"), Metrics: a.reg,
	})
	if err != nil {
		return nil, fmt.Errorf("read notification log %q: %w", logFile, err)
	}
	silences, err := silence.New(silence.Options{
		SnapshotFile: silencesFile, Retention: a.opts.Retention, Logger: a.logger.With("component", "silences"), Metrics: a.reg,
		EventRecorder: eventrecorder.NopRecorder(),
	})
	if err != nil {
		return nil, fmt.Errorf("read silences %q: %w", silencesFile, err)
	}
	stop := make(chan struct{})
	var kept sync.WaitGroup
	kept.Go(keep(notifications, func(i time.Duration, f string, s <-chan struct{}, do func() (int64, error)) {
		notifications.Maintenance(i, f, s, do)
	}, logFile, stop))
	kept.Go(keep(silences, func(i time.Duration, f string, s <-chan struct{}, do func() (int64, error)) {
		silences.Maintenance(i, f, s, do)
	}, silencesFile, stop))
	c.cleanups = append(c.cleanups, func() {
		close(stop)
		kept.Wait()
	})
	return &stores{silences: silences, notifications: notifications}, nil
}

func newAPI(a *Alertmanager, silences *silence.Silences, r *routing) (*api.API, error) {
	return api.New(api.Options{
		Alerts:         r.alerts,
		Silences:       silences,
		GroupMutedFunc: r.groups.Muted,
		Logger:         a.logger.With("component", "api"),
		Registry:       a.reg,
		RequestDuration: promauto.With(a.reg).NewHistogramVec(prometheus.HistogramOpts{
			Name: "alertmanager_http_request_duration_seconds",
			Help: "Histogram of latencies for HTTP requests.",
		}, []string{"handler", "method", "code"}),
		GroupFunc: func(
			ctx context.Context, routes func(*dispatch.Route) bool, alerts func(*alert.Alert, time.Time) bool,
		) (dispatch.AlertGroups, map[model.Fingerprint][]string, error) {
			return r.dispatcher.Load().Groups(ctx, routes, alerts)
		},
	})
}

// handler serves the v2 API, and of the v1 API the answer that it is gone.
func (c *core) handler() http.Handler { return c.api.Register(route.New(), "/") }

// close ends the parts; the stored state is written last.
func (c *core) close() {
	for _, end := range slices.Backward(c.cleanups) {
		end()
	}
}

// externalURL is configured or that of the port on which the process listens.
func externalURL(configured string, addr net.Addr) (*url.URL, error) {
	if configured == "" {
		return listenURL(addr)
	}
	u, err := url.Parse(configured)
	if err != nil {
		return nil, fmt.Errorf("external URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("external URL %q: the scheme must be http or https", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

func listenURL(addr net.Addr) (*url.URL, error) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, fmt.Errorf("external URL from listen address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("external URL from host name: %w", err)
		}
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}, nil
}
