package controller

import (
	"context"
	"errors"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// concurrency is the number of resources of a kind that are reconciled at a
// time.
const concurrency = 4

// CacheOptions restrict what a manager watches to what Setup's reconcilers have
// a right to.
func CacheOptions(s render.Settings) cache.Options {
	system := map[string]cache.Config{s.SystemNamespace: {}}
	public := map[string]cache.Config{s.PublicNamespace: {}}
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.ConfigMap{}:  {Namespaces: map[string]cache.Config{s.SystemNamespace: {}, s.PublicNamespace: {}}},
		&corev1.Secret{}:     {Namespaces: public},
		&v1.OperatorConfig{}: {Namespaces: public},
		&corev1.Pod{}:        {Namespaces: system},
		&corev1.Service{}:    {Namespaces: system, Field: fields.OneTermEqualSelector("metadata.name", alertmanagerName)},
	}}
}

// Setup adds all reconcilers to a manager whose cache has CacheOptions.
func Setup(mgr manager.Manager, s render.Settings, logger *slog.Logger) error {
	c := newConfiguration(mgr, s, logger)
	for _, k := range c.kinds {
		if err := k.setup(mgr); err != nil {
			return err
		}
	}
	for _, p := range []*publisher{c.scrape, c.rules} {
		if err := p.setup(mgr); err != nil {
			return err
		}
	}
	oc := &operatorConfigs{
		configuration: c,
		api:           mgr.GetAPIReader(),
		logger:        logger,
		credentials:   c.mirror(mgr, "rules"),
		alertmanager:  &alertmanager{settings: s, client: mgr.GetClient(), api: mgr.GetAPIReader(), secrets: c.secrets},
	}
	return errors.Join(oc.setup(mgr), mgr.Add(newPolls(c, logger)))
}

// Renderer returns a function that renders as the reconcilers do, also where
// they don't run because another operator leads.
func Renderer(c client.Reader, s render.Settings) func(context.Context) (*render.Renderer, error) {
	return func(ctx context.Context) (*render.Renderer, error) {
		oc, err := operatorConfig(ctx, c, s)
		if err != nil {
			return nil, err
		}
		return render.New(s, oc), nil
	}
}

func newConfiguration(mgr manager.Manager, s render.Settings, logger *slog.Logger) *configuration {
	c := &configuration{settings: s, client: mgr.GetClient(), secrets: newSecrets(s, mgr.GetClient(), mgr.GetAPIReader())}
	c.scrape = newPublisher(mgr, s, logger)
	c.scrape.label, c.scrape.newParts, c.scrape.credentials = render.CollectorConfig, render.NewScrapeParts, c.mirror(mgr, "collection")
	c.rules = newPublisher(mgr, s, logger)
	c.rules.label, c.rules.newParts = render.RulesConfig, render.NewRuleParts
	c.kinds = append(scrapeKinds(c), ruleKinds(c)...)
	return c
}

func newPublisher(mgr manager.Manager, s render.Settings, logger *slog.Logger) *publisher {
	return &publisher{client: mgr.GetClient(), api: mgr.GetAPIReader(), logger: logger, namespace: s.SystemNamespace}
}

func (c *configuration) mirror(mgr manager.Manager, name string) *mirror {
	return &mirror{
		client: mgr.GetClient(), api: mgr.GetAPIReader(), secrets: c.secrets,
		name: types.NamespacedName{Namespace: c.settings.SystemNamespace, Name: name},
	}
}

// named is a builder of a controller whose name need not be unique, so that
// tests can have two operators in one process.
func named(mgr manager.Manager, name string, concurrent int) *ctrl.Builder {
	anyName := true
	return ctrl.ControllerManagedBy(mgr).Named(name).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrent, SkipNameValidation: &anyName})
}

func (k *resources) setup(mgr manager.Manager) error {
	return named(mgr, k.name, concurrency).
		For(k.newObject(), ctrl.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(&k.queue).
		Complete(k)
}

func (p *publisher) setup(mgr manager.Manager) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetNamespace() == p.namespace && o.GetLabels()[render.ConfigLabel] == p.label
	})
	return named(mgr, "configmaps-"+p.label, 1).
		Watches(&corev1.ConfigMap{}, &handler.EnqueueRequestForObject{}, ctrl.WithPredicates(either(ours))).
		WatchesRawSource(&p.queue).
		Complete(p)
}

// either lets updates through that concern an object before or after them.
func either(p predicate.Predicate) predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: p.Create, DeleteFunc: p.Delete, GenericFunc: p.Generic,
		UpdateFunc: func(e event.UpdateEvent) bool {
			return p.Create(event.CreateEvent{Object: e.ObjectOld}) || p.Create(event.CreateEvent{Object: e.ObjectNew})
		},
	}
}

func (c *operatorConfigs) setup(mgr manager.Manager) error {
	only := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: c.request()}}
	})
	concerning := func(concerns func(client.Object) bool) ctrl.WatchesOption {
		return ctrl.WithPredicates(predicate.NewPredicateFuncs(concerns))
	}
	everything := concerning(func(client.Object) bool { return true })
	c.queue.add(c.request(), 0) // There may be no OperatorConfig whose event would be the first.
	return named(mgr, "OperatorConfig", 1).
		Watches(&v1.OperatorConfig{}, only, ctrl.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Secret{}, only, everything).
		Watches(&corev1.Service{}, only, everything).
		Watches(&corev1.ConfigMap{}, only, concerning(func(o client.Object) bool {
			return o.GetNamespace() == c.settings.PublicNamespace || o.GetName() == "collector" || o.GetName() == "rule-evaluator"
		})).
		WatchesRawSource(&c.queue).
		Complete(c)
}
