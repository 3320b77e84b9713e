// Package app makes the operator's process of its parts: the manager with
// leader election, the controllers, and HTTP for metrics and probes.
//
// It decides nothing about resources. Several operators may run at once: one of
// them leads and reconciles, the others are ready to take over. Run blocks and
// is called once for each set of options.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/go-logr/logr"
	"github.com/oklog/run"
	"github.com/prometheus/common/version"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/controller"
	"github.com/tocsin-rules/tocsin/operator/credentials"
	"github.com/tocsin-rules/tocsin/operator/render"
	"github.com/tocsin-rules/tocsin/operator/webhook"
	"github.com/tocsin-rules/tocsin/web/server"
)

// leaseName is that of the lease that the leading operator holds.
const leaseName = "operator"

// Requests to the API server are limited by its own fairness; these are for
// the case that it has none.
const (
	apiQPS   = 200
	apiBurst = 400
)

// Options are what the operator is told at its start.
type Options struct {
	// Render says where things are and which cluster this is.
	Render render.Settings
	// Kubeconfig says how to reach the API server; empty means as a pod does.
	Kubeconfig string
	// LeaderElection is off only where there is one operator for sure.
	LeaderElection bool
	// HTTP serves metrics.
	HTTP server.Config
	// WebhookAddress serves the checks of rules that the API server asks for; empty
	// means none.
	WebhookAddress string
	// ProbeAddress serves /healthz and /readyz, for the kubelet, in plaintext.
	ProbeAddress string
}

// Run reconciles until ctx ends, or until the operator no longer leads: that is
// an error, since only a new process has no memory of having led.
func Run(ctx context.Context, o Options, logger *slog.Logger) error {
	cfg, err := restConfig(o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("access to Kubernetes: %w", err)
	}
	mgr, err := newManager(cfg, o, logger)
	if err != nil {
		return err
	}
	if err := addControllers(mgr, cfg, o, logger); err != nil {
		return err
	}
	http, err := newServer(o, mgr, logger)
	if err != nil {
		return err
	}
	var g run.Group
	for _, actor := range []func(context.Context) error{mgr.Start, http.Run} {
		ctx, cancel := context.WithCancel(ctx)
		g.Add(func() error { return actor(ctx) }, func(error) { cancel() })
	}
	logger.Info("operator started", "version", version.Info(), "system", o.Render.SystemNamespace, "public", o.Render.PublicNamespace)
	err = g.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// SetLoggers makes the libraries log like the rest. It is for the process to
// call, once, before Run: the libraries' loggers are global.
func SetLoggers(logger *slog.Logger) {
	l := logr.FromSlogHandler(logger.Handler())
	log.SetLogger(l)
	klog.SetLogger(l)
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst = apiQPS, apiBurst
	cfg.UserAgent = "tocsin-operator/" + version.Version
	return cfg, nil
}

func newManager(cfg *rest.Config, o Options, logger *slog.Logger) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	mgr, err := manager.New(cfg, manager.Options{
		Scheme:                        scheme,
		Logger:                        logr.FromSlogHandler(logger.Handler()),
		Cache:                         controller.CacheOptions(o.Render),
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // newServer serves them.
		HealthProbeBindAddress:        o.ProbeAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.Render.SystemNamespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, err
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("cache", cacheCheck(mgr)))
}

func addControllers(mgr manager.Manager, cfg *rest.Config, o Options, logger *slog.Logger) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	keys := &credentials.Ensurer{
		Secrets: client.CoreV1().Secrets(o.Render.SystemNamespace),
		Failed:  func(err error) { logger.Warn("making the credentials of rule-evaluators failed", "err", err) },
	}
	return errors.Join(mgr.Add(keys), controller.Setup(mgr, o.Render, logger), addWebhook(mgr, client, o, logger))
}

// addWebhook makes all operators answer the API server.
func addWebhook(mgr manager.Manager, client kubernetes.Interface, o Options, logger *slog.Logger) error {
	if o.WebhookAddress == "" {
		return nil
	}
	host, port, err := splitAddress(o.WebhookAddress)
	if err != nil {
		return err
	}
	certificate := webhook.NewCertificate(client, o.Render.SystemNamespace, logger)
	s := ctrlwebhook.NewServer(ctrlwebhook.Options{Host: host, Port: port, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
		c.GetCertificate, c.MinVersion = certificate.Get, tls.VersionTLS13
	}}})
	webhook.Register(s, controller.Renderer(mgr.GetClient(), o.Render))
	return errors.Join(mgr.Add(certificate), mgr.Add(s))
}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		err = fmt.Errorf("address %q of the webhook: %w", address, err)
	}
	return host, port, err
}
