package controller

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// configName is that of the only OperatorConfig.
const configName = "config"

// configuration is what all reconcilers work on: the renderer under the current
// OperatorConfig and the pieces of all resources.
type configuration struct {
	settings render.Settings
	client   client.Client
	secrets  *secrets
	scrape   *publisher
	rules    *publisher
	kinds    []*resources

	mu       sync.Mutex
	renderer *render.Renderer // nil before the first use
	// version identifies the OperatorConfig that the renderer is of.
	version string
}

// current returns the renderer. The first time it takes over what is at the API
// server, without the pieces of resources that are gone.
func (c *configuration) current(ctx context.Context) (*render.Renderer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.renderer != nil {
		return c.renderer, nil
	}
	oc, err := operatorConfig(ctx, c.client, c.settings)
	if err != nil {
		return nil, err
	}
	if err := c.use(ctx, oc); err != nil {
		return nil, err
	}
	return c.renderer, nil
}

// update makes an OperatorConfig, nil if there is none, the current one. If it
// is another one than before, all resources are reconciled again.
func (c *configuration) update(ctx context.Context, oc *v1.OperatorConfig) (*render.Renderer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.renderer != nil && c.version == versionOf(oc) {
		return c.renderer, nil
	}
	if err := c.use(ctx, oc); err != nil {
		return nil, err
	}
	return c.renderer, nil
}

func (c *configuration) use(ctx context.Context, oc *v1.OperatorConfig) error {
	gzip := oc != nil && oc.Features.Config.Compression == v1.CompressionGzip
	for _, p := range []*publisher{c.scrape, c.rules} {
		if err := p.configure(ctx, gzip); err != nil {
			return err
		}
	}
	// Whatever is reconciled from here on uses it, and everything will be.
	c.renderer, c.version = render.New(c.settings, oc), versionOf(oc)
	return c.enqueueAll(ctx)
}

// enqueueAll asks for a reconcile of all resources, and removes the pieces of
// those that are gone.
func (c *configuration) enqueueAll(ctx context.Context) error {
	there := map[*publisher]map[string]bool{c.scrape: {}, c.rules: {}}
	for _, k := range c.kinds {
		objects, err := k.list(ctx)
		if err != nil {
			return fmt.Errorf("list %s: %w", k.name, err)
		}
		for _, o := range objects {
			there[k.publisher][k.key(o)] = true
			k.queue.add(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, 0)
		}
	}
	for p, keys := range there {
		p.retain(keys)
	}
	return nil
}

func versionOf(oc *v1.OperatorConfig) string {
	if oc == nil {
		return "none"
	}
	return fmt.Sprintf("%s/%d", oc.UID, oc.Generation)
}

// operatorConfig returns the OperatorConfig, nil if there is none.
func operatorConfig(ctx context.Context, c client.Reader, s render.Settings) (*v1.OperatorConfig, error) {
	var oc v1.OperatorConfig
	err := c.Get(ctx, types.NamespacedName{Namespace: s.PublicNamespace, Name: configName}, &oc)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return nil, err
	case err != nil:
		return nil, nil
	}
	return &oc, nil
}
