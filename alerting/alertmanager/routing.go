package alertmanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/config/receiver"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/inhibit"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
)

// dispatchMaintenance is how often empty alert groups are removed.
const dispatchMaintenance = 30 * time.Second

// routing is the part that a configuration makes: from alerts to
// notifications. It is replaced whole on every reload.
type routing struct {
	alerts    *mem.Alerts
	api       *api.API
	silencer  *silence.Silencer
	log       notify.NotificationLog
	groups    marker.GroupMarker
	pipelines *notify.PipelineBuilder
	dispatch  *dispatch.DispatcherMetrics
	metrics   *metrics
	external  *url.URL
	retention time.Duration
	logger    *slog.Logger
	started   time.Time

	dispatcher atomic.Pointer[dispatch.Dispatcher]
	inhibitor  atomic.Pointer[inhibit.Inhibitor]
}

// prepared is what can fail about a configuration, done.
type prepared struct {
	templates *template.Template
	routes    *dispatch.Route
	receivers map[string][]notify.Integration
	intervals *timeinterval.Intervener
}

// apply makes conf the configuration that runs. An error means that nothing
// has changed.
func (r *routing) apply(conf *config.Config) error {
	p, err := r.prepare(conf)
	if err != nil {
		return err
	}
	r.warn(p.routes)
	r.stop()
	inhibitor := inhibit.NewInhibitor(r.alerts, conf.InhibitRules, r.logger, eventrecorder.NopRecorder())
	r.api.Update(conf, func(ctx context.Context, labels model.LabelSet) {
		// Both mark the alert as a side effect; the API shows the marks.
		r.inhibitor.Load().Mutes(ctx, labels)
		r.silencer.Mutes(ctx, labels)
	})
	dispatcher := dispatch.NewDispatcher(r.alerts, p.routes, r.pipeline(p, inhibitor), r.groups, notifyTimeout,
		dispatchMaintenance, nil, r.logger, eventrecorder.NopRecorder(), r.dispatch, p.templates)
	r.metrics.observe(p, conf)

	// The dispatcher must not notify before the inhibitor knows all alerts,
	// and neither may be seen through the API before it has loaded them.
	go inhibitor.Run()
	inhibitor.WaitForLoading()
	r.inhibitor.Store(inhibitor)
	go dispatcher.Run(r.started)
	dispatcher.WaitForLoading()
	r.dispatcher.Store(dispatcher)
	return nil
}

func (r *routing) prepare(conf *config.Config) (*prepared, error) {
	if conf.TracingConfig.Endpoint != "" {
		return nil, errors.New("field tracing is not supported")
	}
	templates, err := template.FromGlobs(conf.Templates)
	if err != nil {
		return nil, fmt.Errorf("parse templates: %w", err)
	}
	templates.ExternalURL = r.external
	routes := dispatch.NewRoute(conf.Route, nil)
	receivers, err := r.buildReceivers(conf, routes, templates)
	if err != nil {
		return nil, err
	}
	return &prepared{templates: templates, routes: routes, receivers: receivers, intervals: intervals(conf)}, nil
}

// buildReceivers builds the receivers that a route uses.
func (r *routing) buildReceivers(conf *config.Config, routes *dispatch.Route, t *template.Template) (map[string][]notify.Integration, error) {
	receivers := map[string][]notify.Integration{}
	routes.Walk(func(rt *dispatch.Route) { receivers[rt.RouteOpts.Receiver] = nil })
	for _, rc := range conf.Receivers {
		if _, used := receivers[rc.Name]; !used {
			r.logger.Info("receiver is not used by any route", "receiver", rc.Name)
			continue
		}
		integrations, err := receiver.BuildReceiverIntegrations(rc, t, r.logger)
		if err != nil {
			return nil, fmt.Errorf("receiver %q: %w", rc.Name, err)
		}
		receivers[rc.Name] = integrations
	}
	return receivers, nil
}

func intervals(conf *config.Config) *timeinterval.Intervener {
	named := map[string][]timeinterval.TimeInterval{}
	for _, i := range conf.MuteTimeIntervals {
		named[i.Name] = i.TimeIntervals
	}
	for _, i := range conf.TimeIntervals {
		named[i.Name] = i.TimeIntervals
	}
	return timeinterval.NewIntervener(named)
}

func (r *routing) pipeline(p *prepared, inhibitor *inhibit.Inhibitor) notify.Stage {
	alone := func() time.Duration { return 0 }
	return r.pipelines.New(p.receivers, alone, inhibitor, r.silencer, p.intervals, r.groups, r.log, nil)
}

// notifyTimeout is how long one notification may take in a group that is
// flushed every d.
func notifyTimeout(d time.Duration) time.Duration { return max(d, notify.MinTimeout) }

// warn says what is allowed but surprises.
func (r *routing) warn(routes *dispatch.Route) {
	routes.Walk(func(rt *dispatch.Route) {
		o := rt.RouteOpts
		if o.RepeatInterval > r.retention {
			r.logger.Warn("repeat_interval is longer than the retention, notifications repeat sooner than configured",
				"route", rt.Key(), "repeat_interval", o.RepeatInterval, "retention", r.retention)
		}
		if o.RepeatInterval < o.GroupInterval {
			r.logger.Warn("repeat_interval is shorter than group_interval, notifications repeat later than configured",
				"route", rt.Key(), "repeat_interval", o.RepeatInterval, "group_interval", o.GroupInterval)
		}
	})
}

// stop ends what runs, if anything does, and the notifications under way.
func (r *routing) stop() {
	r.inhibitor.Load().Stop()
	r.dispatcher.Load().Stop()
}

type metrics struct {
	receivers, integrations, inhibitRules prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		receivers: f.NewGauge(prometheus.GaugeOpts{
			Name: "alertmanager_receivers", Help: "Number of configured receivers.",
		}),
		integrations: f.NewGauge(prometheus.GaugeOpts{
			Name: "alertmanager_integrations", Help: "Number of configured integrations.",
		}),
		inhibitRules: f.NewGauge(prometheus.GaugeOpts{
			Name: "alertmanager_inhibition_rules", Help: "Number of configured inhibition rules.",
		}),
	}
}

func (m *metrics) observe(p *prepared, conf *config.Config) {
	n := 0
	for _, integrations := range p.receivers {
		n += len(integrations)
	}
	m.receivers.Set(float64(len(p.receivers)))
	m.integrations.Set(float64(n))
	m.inhibitRules.Set(float64(len(conf.InhibitRules)))
}
