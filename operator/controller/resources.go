package controller

import (
	"context"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// object is a custom resource that contributes a piece.
type object interface {
	client.Object
	v1.Resource
}

// resources reconciles the resources of one kind, one at a time.
type resources struct {
	*configuration

	name      string
	publisher *publisher
	// reason is that of the condition if a resource can't be rendered.
	reason    string
	newObject func() object
	newList   func() client.ObjectList
	render    func(*render.Renderer, object) (render.Piece, error)
	// key is that of the piece of a resource, of which the name suffices.
	key   func(object) string
	queue queue
}

// kind describes the resources of a Go type.
func kind[T object](c *configuration, list client.ObjectList, piece func(*render.Renderer, T) (render.Piece, error)) *resources {
	var zero T
	t := reflect.TypeOf(zero).Elem()
	return &resources{
		configuration: c,
		name:          t.Name(),
		newObject:     func() object { return reflect.New(t).Interface().(object) },
		newList:       func() client.ObjectList { return list.DeepCopyObject().(client.ObjectList) },
		render:        func(r *render.Renderer, o object) (render.Piece, error) { return piece(r, o.(T)) },
	}
}

// scrapeKinds are those that collectors are concerned with.
func scrapeKinds(c *configuration) []*resources {
	kinds := []*resources{
		kind(c, &v1.PodMonitoringList{}, (*render.Renderer).PodMonitoring),
		kind(c, &v1.ClusterPodMonitoringList{}, (*render.Renderer).ClusterPodMonitoring),
		kind(c, &v1.ClusterNodeMonitoringList{}, (*render.Renderer).ClusterNodeMonitoring),
	}
	for _, k := range kinds {
		k.publisher, k.reason, k.key = c.scrape, reasonScrape, func(o object) string { return o.GetKey() }
	}
	return kinds
}

// ruleKinds are those that rule-evaluators are concerned with.
func ruleKinds(c *configuration) []*resources {
	kinds := []*resources{
		kind(c, &v1.RulesList{}, (*render.Renderer).Rules),
		kind(c, &v1.ClusterRulesList{}, (*render.Renderer).ClusterRules),
		kind(c, &v1.GlobalRulesList{}, (*render.Renderer).GlobalRules),
	}
	for _, k := range kinds {
		k.publisher, k.reason = c.rules, reasonRules
		k.key = func(o object) string { return render.RuleFile(k.name, o.GetNamespace(), o.GetName()) }
	}
	return kinds
}

func (k *resources) list(ctx context.Context) ([]object, error) {
	list := k.newList()
	if err := k.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var objects []object
	err := meta.EachListItem(list, func(o runtime.Object) error {
		objects = append(objects, o.(object))
		return nil
	})
	return objects, err
}

// Reconcile implements reconcile.Reconciler.
func (k *resources) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	renderer, err := k.current(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	o := k.newObject()
	if err := k.client.Get(ctx, req.NamespacedName, o); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		o.SetNamespace(req.Namespace)
		o.SetName(req.Name)
		k.publisher.remove(k.key(o))
		return reconcile.Result{}, nil
	}
	piece, err := k.render(renderer, o)
	if err == nil {
		err = k.publisher.put(piece)
	}
	result := reconcile.Result{}
	if err == nil && len(piece.Secrets) > 0 {
		result.RequeueAfter = secretPeriod
		err = k.secrets.readable(ctx, piece.Secrets)
	}
	return result, reportOn(ctx, k.client, o, findingOf(v1.ConfigurationCreateSuccess, k.reason, err))
}

// reportOn writes findings into the status of a resource if they are news.
func reportOn(ctx context.Context, c client.Client, o object, findings ...finding) error {
	before := o.DeepCopyObject().(client.Object)
	if !report(o.GetMonitoringStatus(), o.GetGeneration(), time.Now(), findings...) {
		return nil
	}
	return client.IgnoreNotFound(c.Status().Patch(ctx, o, client.MergeFrom(before)))
}
