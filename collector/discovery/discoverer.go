package discovery

import (
	"context"
	"log/slog"
	"reflect"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// discoverer is one configuration at work.
type discoverer struct {
	logger    *slog.Logger
	metrics   *metrics
	informers []informer
}

// informer follows the objects of a role in one namespace, or in all.
type informer struct {
	cache.SharedInformer
	role Role
}

// found is what is kept of an object: what tells it from others, and its
// targets. Its target group is never changed, because all jobs share it.
type found struct {
	metav1.ObjectMeta
	group *targetgroup.Group
}

// namespaces are those to list and watch in; an empty name stands for all.
func (c *Config) namespaces() []string {
	if c.Role == RoleNode || len(c.Namespaces.Names) == 0 {
		return []string{metav1.NamespaceAll}
	}
	return c.Namespaces.Names
}

func (c *Config) informer(client *rest.RESTClient, namespace string, m *metrics) informer {
	resource, example := "pods", runtime.Object(&corev1.Pod{})
	if c.Role == RoleNode {
		resource, example = "nodes", &corev1.Node{}
	}
	lw := cache.NewFilteredListWatchFromClient(client, resource, namespace, func(o *metav1.ListOptions) {
		for _, s := range c.Selectors {
			o.FieldSelector, o.LabelSelector = s.Field, s.Label
		}
	})
	inf := informer{SharedInformer: cache.NewSharedInformer(lw, example, 0), role: c.Role}
	// Errors of both are about informers that run already.
	_ = inf.SetTransform(onlyTargets)
	_ = inf.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		m.failures.Inc()
		cache.DefaultWatchErrorHandler(ctx, r, err)
	})
	return inf
}

// onlyTargets takes the place of an object as soon as it is decoded.
func onlyTargets(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Pod:
		return &found{ObjectMeta: identity(o.ObjectMeta), group: podGroup(o)}, nil
	case *corev1.Node:
		return &found{ObjectMeta: identity(o.ObjectMeta), group: nodeGroup(o)}, nil
	}
	return obj, nil
}

// identity is what an informer needs of an object.
func identity(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// Run is part of discovery.Discoverer. It ends with ctx.
func (d *discoverer) Run(ctx context.Context, ch chan<- []*targetgroup.Group) {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(d.logger.Handler()))
	var wg sync.WaitGroup
	for _, inf := range d.informers {
		if _, err := inf.AddEventHandler(d.handler(ctx, inf.role, ch)); err != nil {
			d.logger.Error("kubernetes discovery not started", "role", inf.role, "err", err)
			continue
		}
		wg.Go(func() { inf.RunWithContext(ctx) })
	}
	wg.Wait()
}

// handler sends the target groups of what comes and changes, and an empty one
// for what goes. Many changes of an object are none of its targets.
func (d *discoverer) handler(ctx context.Context, role Role, ch chan<- []*targetgroup.Group) cache.ResourceEventHandler {
	count := func(event string) { d.metrics.events.WithLabelValues(string(role), event).Inc() }
	send := func(g *targetgroup.Group) {
		select {
		case ch <- []*targetgroup.Group{g}:
		case <-ctx.Done():
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			count(added)
			send(obj.(*found).group)
		},
		UpdateFunc: func(before, obj any) {
			count(updated)
			if g := obj.(*found).group; !reflect.DeepEqual(before.(*found).group, g) {
				send(g)
			}
		},
		DeleteFunc: func(obj any) {
			count(deleted)
			// The last state is not known if the watch has missed the deletion.
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
				send(&targetgroup.Group{Source: source(role, key)})
			}
		},
	}
}

// source names a target group by its object.
func source(role Role, key string) string { return string(role) + "/" + key }
