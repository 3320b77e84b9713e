package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/tocsin-rules/tocsin/operator/render"
)

// publishDelay is how long changes are gathered before they are written.
const publishDelay = 100 * time.Millisecond

// publisher holds the pieces of many resources and writes the ConfigMaps that
// they are in. Its requests are names of ConfigMaps that have changed at the
// API server, or an empty name for pieces that have changed here.
type publisher struct {
	client    client.Client
	api       client.Reader
	logger    *slog.Logger
	namespace string
	// label is the value of render.ConfigLabel.
	label    string
	newParts func(render.PartsOptions) *render.Parts
	// credentials is nil where pieces refer to no secrets.
	credentials *mirror
	queue       queue

	mu    sync.Mutex
	parts *render.Parts // nil before configure
	gzip  bool
	// shared are the keys that pieces have in common.
	shared []render.SecretKey
	// written are the resource versions of what was written last.
	written map[string]string
}

// configure sets the form of the ConfigMaps. The first time, and if the form
// changes, pieces are taken over from the ConfigMaps that there are.
func (p *publisher) configure(ctx context.Context, gzip bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parts != nil && p.gzip == gzip {
		return nil
	}
	var list corev1.ConfigMapList
	err := p.api.List(ctx, &list, client.InNamespace(p.namespace), client.MatchingLabels{render.ConfigLabel: p.label})
	if err != nil {
		return fmt.Errorf("read the configuration that there is: %w", err)
	}
	parts := p.newParts(render.PartsOptions{Namespace: p.namespace, Gzip: gzip})
	if err := parts.Recover(list.Items); err != nil {
		p.logger.Warn("a part of the configuration is not readable, it is written anew", "err", err)
	}
	p.parts, p.gzip, p.written = parts, gzip, map[string]string{}
	p.changed()
	return nil
}

// changed asks for a reconcile soon.
func (p *publisher) changed() { p.queue.add(types.NamespacedName{}, publishDelay) }

// retain removes all pieces but those with a key.
func (p *publisher) retain(keys map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range p.parts.Keys() {
		if !keys[key] {
			p.parts.Remove(key)
		}
	}
	p.changed()
}

func (p *publisher) put(piece render.Piece) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed()
	return p.parts.Put(piece)
}

func (p *publisher) remove(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts.Remove(key)
	p.changed()
}

// share sets the keys that pieces have in common.
func (p *publisher) share(keys []render.SecretKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shared = keys
	p.changed()
}

// Reconcile implements reconcile.Reconciler. Secrets are written before what
// refers to them.
func (p *publisher) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parts == nil {
		return reconcile.Result{}, nil // configure comes back to it.
	}
	if req.Name != "" {
		if err := p.see(ctx, req.NamespacedName); err != nil {
			return reconcile.Result{}, err
		}
	}
	result := reconcile.Result{}
	var errs []error
	if p.credentials != nil && req.Name == "" {
		result.RequeueAfter = mirrorPeriod
		errs = append(errs, p.mirror(ctx))
	}
	errs = append(errs, p.flush(ctx))
	return result, errors.Join(errs...)
}

func (p *publisher) mirror(ctx context.Context) error {
	keys := slices.Concat(p.shared, p.parts.Secrets())
	p.credentials.secrets.forget(keys)
	return p.credentials.sync(ctx, keys)
}

// see takes notice of a ConfigMap that has changed, unless that was known when
// it was last written.
func (p *publisher) see(ctx context.Context, name types.NamespacedName) error {
	var m corev1.ConfigMap
	err := p.client.Get(ctx, name, &m)
	switch {
	case err == nil:
		if order, err := resourceversion.CompareResourceVersion(m.ResourceVersion, p.written[name.Name]); err == nil && order <= 0 {
			return nil
		}
		p.parts.Seen(name.Name, &m)
	case client.IgnoreNotFound(err) == nil:
		p.parts.Seen(name.Name, nil)
	default:
		return err
	}
	return nil
}

// flush writes what is not at the API server yet.
func (p *publisher) flush(ctx context.Context) error {
	write, remove := p.parts.Pending()
	var errs []error
	for _, m := range write {
		if err := replace(ctx, p.client, m); err != nil {
			errs = append(errs, fmt.Errorf("write ConfigMap %s: %w", m.Name, err))
			continue
		}
		p.written[m.Name] = m.ResourceVersion
		p.parts.Done(m.Name)
	}
	for _, name := range remove {
		m := &corev1.ConfigMap{}
		m.Namespace, m.Name = p.namespace, name
		if err := client.IgnoreNotFound(p.client.Delete(ctx, m)); err != nil {
			errs = append(errs, fmt.Errorf("delete ConfigMap %s: %w", name, err))
			continue
		}
		p.parts.Done(name)
	}
	return errors.Join(errs...)
}
