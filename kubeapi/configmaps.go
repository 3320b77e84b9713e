package kubeapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Selection says which ConfigMaps are followed.
type Selection struct {
	// Namespace is where they are; empty means that of the kubeconfig's
	// context, or of the pod.
	Namespace string
	// LabelSelector is as kubectl takes it.
	LabelSelector string
	// KubeconfigFile says how to reach the API server; empty means as a pod
	// does, by its service account, which has to be allowed to get, list and
	// watch ConfigMaps in the namespace.
	KubeconfigFile string
}

// Validate returns what is wrong with the selector: without one, any ConfigMap
// of the namespace would be taken.
func (s Selection) Validate() error {
	if s.LabelSelector == "" {
		return errors.New("ConfigMaps need a label_selector")
	}
	if _, err := labels.Parse(s.LabelSelector); err != nil {
		return fmt.Errorf("label_selector %q: %w", s.LabelSelector, err)
	}
	return nil
}

// ConfigMaps keeps those of one selection as the API server last showed them,
// also while it is away. Make one with Follow.
type ConfigMaps struct {
	selection Selection
	logger    *slog.Logger
	store     cache.Store
	control   cache.Controller
	changed   func()

	mu  sync.Mutex
	err error // of the last request
}

// Follow returns ConfigMaps that are read when they Run. Whenever something is
// new, changed is called, which must not block. It talks to nobody.
func Follow(s Selection, changed func(), logger *slog.Logger) (*ConfigMaps, error) {
	if s.Namespace == "" {
		var err error
		if s.Namespace, _, err = access(s.KubeconfigFile).Namespace(); err != nil {
			return nil, fmt.Errorf("namespace: %w", err)
		}
	}
	client, err := NewClient(s.KubeconfigFile)
	if err != nil {
		return nil, err
	}
	c := &ConfigMaps{selection: s, logger: logger, changed: changed}
	lw := cache.NewFilteredListWatchFromClient(client, "configmaps", s.Namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = s.LabelSelector
	})
	list, watchFrom := lw.ListWithContextFunc, lw.WatchFuncWithContext
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		l, err := list(ctx, o)
		c.noteError(err)
		return l, err
	}
	lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		w, err := watchFrom(ctx, o)
		c.noteError(err)
		return w, err
	}
	c.store, c.control = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		},
		Transform: onlyData,
	})
	return c, nil
}

// onlyData drops what nobody reads: kubectl keeps a second copy of the data in
// an annotation.
func onlyData(obj any) (any, error) {
	if m, ok := obj.(*corev1.ConfigMap); ok {
		m.ManagedFields, m.Annotations = nil, nil
	}
	return obj, nil
}

// String names the ConfigMaps in messages.
func (c *ConfigMaps) String() string {
	return fmt.Sprintf("configmaps of namespace %s with %s", c.selection.Namespace, c.selection.LabelSelector)
}

// noteError remembers how the last request ended.
func (c *ConfigMaps) noteError(err error) {
	c.mu.Lock()
	changed := (err == nil) != (c.err == nil)
	c.err = err
	c.mu.Unlock()
	if changed {
		c.changed()
	}
}

// Run follows the ConfigMaps until ctx ends.
func (c *ConfigMaps) Run(ctx context.Context) {
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), c.control.HasSynced) {
			c.changed()
		}
	}()
	c.control.RunWithContext(klog.NewContext(ctx, logr.FromSlogHandler(c.logger.Handler())))
}

// RunUntilRead follows the ConfigMaps until all were read once, or ctx ends.
func (c *ConfigMaps) RunUntilRead(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { c.Run(ctx) })
	cache.WaitForCacheSync(ctx.Done(), c.control.HasSynced)
	stop()
	following.Wait()
}

// Unread is an error until all ConfigMaps were read once.
func (c *ConfigMaps) Unread() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.control.HasSynced():
		return nil
	case c.err != nil:
		return fmt.Errorf("not read yet: %w", c.err)
	default:
		return errors.New("not read yet")
	}
}

// Values are those of all keys, ordered by the ConfigMaps' names, and within
// one by key. An error is that they could not be read, or not lately: then they
// are what was read last.
func (c *ConfigMaps) Values() ([]Value, error) {
	if err := c.Unread(); err != nil {
		return nil, err
	}
	var values []Value
	for _, obj := range c.store.List() {
		if m, ok := obj.(*corev1.ConfigMap); ok {
			values = append(values, valuesOf(m)...)
		}
	}
	slices.SortStableFunc(values, func(a, b Value) int { return strings.Compare(a.ConfigMap, b.ConfigMap) })
	c.mu.Lock()
	defer c.mu.Unlock()
	return values, c.err
}

// Value is one key's of a ConfigMap.
type Value struct {
	Namespace, ConfigMap, Key string
	raw                       func() io.Reader
}

// String names the value as NAMESPACE/CONFIGMAP/KEY.
func (v Value) String() string { return v.Namespace + "/" + v.ConfigMap + "/" + v.Key }

func valuesOf(m *corev1.ConfigMap) []Value {
	values := make([]Value, 0, len(m.Data)+len(m.BinaryData))
	for _, key := range slices.Sorted(maps.Keys(m.Data)) {
		raw := func() io.Reader { return strings.NewReader(m.Data[key]) }
		values = append(values, Value{m.Namespace, m.Name, key, raw})
	}
	for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
		raw := func() io.Reader { return bytes.NewReader(m.BinaryData[key]) }
		values = append(values, Value{m.Namespace, m.Name, key, raw})
	}
	return values
}

// gzipMagic is what compressed values begin with and text does not.
const gzipMagic = "\x1f\x8b"

// ErrTooLarge is the error of a value that has more than the bytes allowed.
var ErrTooLarge = errors.New("has more bytes than allowed")

// Read returns the value, decompressed if it is compressed by gzip, whatever
// its key is called.
func (v Value) Read(maxBytes int64) ([]byte, error) {
	value := bufio.NewReader(v.raw())
	var content io.Reader = value
	if head, err := value.Peek(len(gzipMagic)); err == nil && string(head) == gzipMagic {
		if content, err = gzip.NewReader(value); err != nil {
			return nil, fmt.Errorf("%s is not compressed by gzip: %w", v, err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(content, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v, err)
	}
	if int64(len(text)) > maxBytes {
		return nil, fmt.Errorf("%s %w (%d)", v, ErrTooLarge, maxBytes)
	}
	return text, nil
}
