// Package app joins the parts of a rule-evaluator: it is the one place where
// ruler, evaluator, sharding and alerting meet.
//
//	 rule files          gossip           other members
//	     |                 |                 |    ^
//	ruler/source    sharding/gossip   sharding/handoff/rpc
//	     |                 |                 |    |
//	     +----------> ruler (loop) <---------+----+
//	                 |     |      \
//	         evaluator  ruler/write  alerting ---> Alertmanagers
//	                 |     |
//	                backends
//
// It decides nothing and keeps no state beside what it joins.
package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	_ "github.com/prometheus/prometheus/discovery/kubernetes" // Alertmanagers may be found by kubernetes_sd_configs.
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/proto/transport"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/source"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/gossip"
	"github.com/tocsin-rules/tocsin/sharding/handoff/rpc"
	"github.com/tocsin-rules/tocsin/web"
	"github.com/tocsin-rules/tocsin/web/promapi"
	"github.com/tocsin-rules/tocsin/web/server"
	"github.com/tocsin-rules/tocsin/web/targets"
)

const (
	// batches is the number of batches that a member runs at one time.
	batches = 8
	// probeInterval is the time between two attempts to become ready.
	probeInterval = 500 * time.Millisecond
	// patience is how long a starting member waits for every backend before
	// it begins to work for those that answer: evaluating some rules is
	// better than none.
	patience = 20 * time.Second
)

// Options are what the command line gives.
type Options struct {
	ConfigFile        string
	HTTP              server.Config
	GRPCListenAddress string
	GRPC              transport.Config
	// Name is this member's, unique in the cluster.
	Name string
	Zone string
	// GossipAddress is host:port, Peers are those of other members, and PeersFile
	// has more of them. AdvertiseAddress is what others reach this member at, if
	// that is another.
	GossipAddress    string
	AdvertiseAddress string
	Peers            []string
	PeersFile        string
	GossipKeyFile    string
	// StopTimeout bounds handing everything over at the end.
	StopTimeout time.Duration
}

type app struct {
	opts   Options
	cfg    *Config
	logger *slog.Logger
	// configSum is the fingerprint of the file that cfg is from.
	configSum [sha256.Size]byte
	reg       *prometheus.Registry

	loader    *source.Loader
	evaluator *evaluator.Evaluator
	sender    *alerting.Sender
	templates *alerting.Templates
	ruler     *ruler.Ruler
	gossip    *gossip.Cluster
	rpcServer *rpc.Server
	rpcClient *rpc.Client
	http      *server.Server

	// externalLabels need a restart to change.
	externalLabels labels.Labels

	loaded               sync.Once
	reloading            sync.Mutex
	reloaded, reloadedAt prometheus.Gauge
	state                memberState
}

// gcPercent is by how much the heap grows between collections, unless the
// environment says otherwise (GOGC). Most of what a member holds are rules,
// which stay, and little is allocated in a slot, so collecting more often than
// Go does costs little and saves a third of the memory.
const gcPercent = 40

// Run is a rule-evaluator from start to end; it returns when ctx has ended and
// everything is handed over, or with the error that prevented the start. It
// sets how often the process collects garbage.
func Run(ctx context.Context, opts Options, logger *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	a, err := newApp(opts, logger)
	if err != nil {
		return err
	}
	if err := a.listen(); err != nil {
		return err
	}
	return a.run(ctx)
}

func newApp(opts Options, logger *slog.Logger) (*app, error) {
	sum := fingerprint(opts.ConfigFile)
	cfg, err := LoadConfig(opts.ConfigFile)
	if err != nil {
		return nil, err
	}
	a := &app{opts: opts, cfg: cfg, configSum: sum, logger: logger, reg: prometheus.NewRegistry()}
	a.reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("tocsin"),
	)
	a.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "prometheus_config_last_reload_successful",
		Help: "Whether the last configuration reload attempt was successful.",
	})
	a.reloadedAt = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "prometheus_config_last_reload_success_timestamp_seconds",
		Help: "Timestamp of the last successful configuration reload.",
	})
	a.reg.MustRegister(a.reloaded, a.reloadedAt)
	a.reloaded.Set(1)
	a.reloadedAt.SetToCurrentTime()
	for _, build := range []func() error{a.newSource, a.newEvaluator, a.newSender, a.newCluster, a.newRuler, a.newHTTP} {
		if err := build(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *app) newSource() error {
	sc := source.DefaultConfig()
	sc.Paths, sc.ConfigMaps = a.cfg.RuleFiles, a.cfg.RuleConfigMaps
	sc.Rules = a.cfg.RuleOptions()
	loader, err := source.New(sc, a.logger)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	a.loader = loader
	return nil
}

func (a *app) newEvaluator() error {
	e, err := evaluator.New(a.cfg.Evaluator(), a.logger, a.reg)
	if err != nil {
		return fmt.Errorf("backends: %w", err)
	}
	a.evaluator = e
	return nil
}

func (a *app) newSender() error {
	tc, err := a.cfg.templates()
	if err != nil {
		return err
	}
	a.externalLabels = tc.ExternalLabels
	a.templates = alerting.NewTemplates(tc, a.reg)
	a.sender, err = alerting.New(alerting.Config{
		ExternalURL:   tc.ExternalURL,
		GeneratorURL:  a.cfg.Global.GeneratorURL,
		QueueCapacity: a.cfg.Global.NotificationQueueCapacity,
	}, a.logger, a.reg)
	if err != nil {
		return err
	}
	return a.applyAlerting(a.cfg)
}

func (a *app) applyAlerting(cfg *Config) error {
	return a.sender.ApplyConfig(cfg.Alerting.AlertingConfig, a.externalLabels)
}

func (a *app) newCluster() error {
	g, err := gossip.New(gossip.Config{
		Name:             a.opts.Name,
		Zone:             a.opts.Zone,
		BindAddress:      a.opts.GossipAddress,
		AdvertiseAddress: a.opts.AdvertiseAddress,
		Peers:            a.opts.Peers,
		PeersFile:        a.opts.PeersFile,
		KeyFile:          a.opts.GossipKeyFile,
		HTTPAddress:      a.opts.HTTP.ListenAddress,
		GRPCAddress:      a.opts.GRPCListenAddress,
	}, a.logger, a.reg)
	if err != nil {
		return err
	}
	a.gossip = g
	a.rpcClient = rpc.NewClient(rpc.ClientConfig{Member: a.opts.Name, Transport: a.opts.GRPC}, a.reg)
	return nil
}

func (a *app) newRuler() error {
	w, err := write.New(a.cfg.writer(), a.logger, a.reg)
	if err != nil {
		return fmt.Errorf("backends: %w", err)
	}
	rc := ruler.DefaultConfig()
	rc.Member = a.opts.Name
	rc.Concurrency = batches
	rc.Limits.Backfill = time.Duration(a.cfg.Global.BackfillLimit)
	rc.ReadDelay = a.cfg.readDelay()
	rc.ResendDelay = time.Duration(a.cfg.Global.ResendDelay)
	rc.Tolerance.Outage = time.Duration(a.cfg.Global.BackfillLimit)
	rc.MaxUnwritten = a.cfg.Global.MaxUnwrittenAlertSeries
	rc.Timeout = 2 * time.Duration(a.cfg.Global.QueryTimeout)
	rc.Home, rc.Partitions = a.cfg.home(), a.cfg.partitions()
	a.ruler, err = ruler.New(rc, ruler.Deps{
		Evaluator: batchEvaluator{a.evaluator},
		Writer:    w,
		Notifier:  a.sender,
		Templates: templates{a.templates, a.evaluator},
		Peers:     a.rpcClient,
		History:   a.evaluator.Queryable(),
		Logger:    a.logger,
		Reg:       a.reg,
	})
	if err != nil {
		return err
	}
	a.rpcServer = rpc.NewServer(rpc.ServerConfig{Member: a.opts.Name, ListenAddress: a.opts.GRPCListenAddress, Transport: a.opts.GRPC}, peerHandler{a}, a.logger, a.reg)
	return nil
}

func (a *app) newHTTP() error {
	a.http = server.New(a.opts.HTTP, a.reg, a.ready, a.logger)
	web.New(web.Deps{
		Cluster: cluster{a},
		Plans:   plans{a},
		Status:  a.status,
		Reload:  a.reload,
		Drain:   a.drainOnRequest,
		Engine:  a.evaluator.QueryEngine(), Queryable: a.evaluator.Queryable(),
		Logger: a.logger,
	}).Register(a.http)
	gatherer, err := targets.New(a.cfg.Collectors, a.logger)
	if err != nil {
		return err
	}
	a.http.Handle("GET "+promapi.Prefix+"/targets", httputil.CompressionHandler{Handler: gatherer})
	queries := promapi.New(promapi.Config{
		Engine:    a.evaluator.QueryEngine(),
		Queryable: a.evaluator.Queryable(),
		Logger:    a.logger,
		Registry:  a.reg,
	})
	for _, path := range []string{"query", "query_range", "format_query", "parse_query", "labels", "label/", "series", "status/buildinfo", "status/runtimeinfo"} {
		a.http.Handle(promapi.Prefix+"/"+path, partialResponse(queries))
	}
	return nil
}

func (a *app) listen() error {
	return errors.Join(a.http.Listen(), a.rpcServer.Listen(), a.gossip.Listen())
}

// run starts every part; when ctx ends, groups are handed over before
// anything that this needs is stopped.
func (a *app) run(ctx context.Context) error {
	// Parts outlive ctx: they end when the drain is complete.
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	snapshot, err := a.loader.Load(parts)
	if err != nil {
		return fmt.Errorf("rule_files: %w", err)
	}
	var g run.Group
	for _, part := range []func(context.Context) error{
		a.http.Run, a.rpcServer.Run, a.evaluator.Run, a.sender.Run, a.ruler.Run, a.gossip.Run, a.follow, a.keepCosts, a.watchClocks, a.becomeReady, a.reloadOnHangup,
		func(ctx context.Context) error { return a.loader.Run(ctx, a.load) },
		func(ctx context.Context) error { return a.reloadOnChange(ctx, a.configSum) },
		func(partsCtx context.Context) error { return a.drainAfter(ctx, partsCtx) },
	} {
		g.Add(func() error { return part(parts) }, func(error) { stop() })
	}
	a.logger.Info("starting", "member", a.opts.Name, "http", a.http.Addr(), "groups", len(snapshot.Groups))
	return g.Run()
}

// follow tells the ruler of every change of the view.
func (a *app) follow(ctx context.Context) error {
	changes := a.gossip.Changes()
	for {
		view := a.gossip.View()
		a.ruler.SetView(view)
		a.rpcClient.Keep(addresses(view))
		select {
		case <-changes:
		case <-ctx.Done():
			a.rpcClient.Close()
			return nil
		}
	}
}

func addresses(v sharding.View) []string {
	var all []string
	for _, m := range v.Members() {
		all = append(all, m.GRPCAddress)
	}
	return all
}

// load takes a new state of the rule files.
func (a *app) load(s source.Snapshot) {
	a.ruler.SetGroups(s.Groups)
	a.state.rulesLoaded(s)
	// Reading the first rules, which are all, leaves several times their size.
	a.loaded.Do(debug.FreeOSMemory)
}

// becomeReady tells the cluster that this member can evaluate, as soon as it
// has its rules and reaches its backends.
func (a *app) becomeReady(ctx context.Context) error {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for started := time.Now(); ; {
		err := a.probe(ctx, time.Since(started) > patience)
		if a.state.probed(err, a.announceReady) {
			break
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
	<-ctx.Done()
	return nil
}

func (a *app) announceReady() {
	a.gossip.SetState(sharding.Ready)
	a.logger.Info("ready", "member", a.opts.Name)
}

func (a *app) probe(ctx context.Context, impatient bool) error {
	if err := a.loader.Incomplete(); err != nil {
		return fmt.Errorf("rules are not loaded: %w", err)
	}
	if !a.state.hasRules() {
		return errors.New("rules are not loaded yet")
	}
	err := a.evaluator.Ready(ctx)
	if err != nil && impatient {
		a.logger.Warn("beginning to work although a backend is away", "err", err)
		return nil
	}
	return err
}

func (a *app) reloadOnHangup(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
			a.reloadAndLog(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}
