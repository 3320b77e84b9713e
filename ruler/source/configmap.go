package source

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
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	// gzipMagic begins every value that is compressed.
	gzipMagic = "\x1f\x8b"
	// gzipSuffix is not a part of a file's name.
	gzipSuffix = ".gz"
)

// ConfigMaps says which ConfigMaps hold rule files: every key of theirs is one.
// A value may be compressed by gzip.
type ConfigMaps struct {
	// Namespace is where they are; empty means that of the kubeconfig's
	// context, or of the pod.
	Namespace string `yaml:"namespace,omitempty"`
	// LabelSelector is as kubectl takes it.
	LabelSelector string `yaml:"label_selector"`
	// KubeconfigFile says how to reach the API server; empty means as a pod
	// does, by its service account, which has to be allowed to get, list and
	// watch ConfigMaps in the namespace.
	KubeconfigFile string `yaml:"kubeconfig_file,omitempty"`
}

// Validate returns what is wrong with the selector: without one, any ConfigMap
// of the namespace would be taken for rules.
func (c ConfigMaps) Validate() error {
	if c.LabelSelector == "" {
		return errors.New("rule ConfigMaps need a label_selector")
	}
	if _, err := k8slabels.Parse(c.LabelSelector); err != nil {
		return fmt.Errorf("label_selector %q: %w", c.LabelSelector, err)
	}
	return nil
}

// follower keeps the ConfigMaps of one selector as the API server last showed
// them, also while it is away.
type follower struct {
	ConfigMaps

	client  kubernetes.Interface
	logger  *slog.Logger
	store   cache.Store
	control cache.Controller
	changed chan struct{}

	mu  sync.Mutex
	err error // of the last request
}

func newFollower(c ConfigMaps, logger *slog.Logger, changed chan struct{}) (*follower, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.KubeconfigFile}
	loading := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil)
	rest, err := loading.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	if c.Namespace == "" {
		if c.Namespace, _, err = loading.Namespace(); err != nil {
			return nil, fmt.Errorf("namespace: %w", err)
		}
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	f := &follower{ConfigMaps: c, client: client, logger: logger, changed: changed}
	f.store, f.control = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch}, client),
		ObjectType:    &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { f.notify() },
			UpdateFunc: func(any, any) { f.notify() },
			DeleteFunc: func(any) { f.notify() },
		},
		Transform: onlyData,
	})
	return f, nil
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
func (f *follower) String() string {
	return fmt.Sprintf("configmaps of namespace %s with %s", f.Namespace, f.LabelSelector)
}

func (f *follower) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	o.LabelSelector = f.LabelSelector
	l, err := f.client.CoreV1().ConfigMaps(f.Namespace).List(ctx, o)
	f.noteError(err)
	return l, err
}

func (f *follower) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.LabelSelector = f.LabelSelector
	w, err := f.client.CoreV1().ConfigMaps(f.Namespace).Watch(ctx, o)
	f.noteError(err)
	return w, err
}

// noteError remembers how the last request ended.
func (f *follower) noteError(err error) {
	f.mu.Lock()
	changed := (err == nil) != (f.err == nil)
	f.err = err
	f.mu.Unlock()
	if changed {
		f.notify()
	}
}

// notify tells the loader that there is something new, without waiting for it.
func (f *follower) notify() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// run follows the ConfigMaps until ctx ends.
func (f *follower) run(ctx context.Context) {
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), f.control.HasSynced) {
			f.notify()
		}
	}()
	f.control.RunWithContext(klog.NewContext(ctx, logr.FromSlogHandler(f.logger.Handler())))
}

// unread is an error until all ConfigMaps were read once.
func (f *follower) unread() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.control.HasSynced():
		return nil
	case f.err != nil:
		return fmt.Errorf("not read yet: %w", f.err)
	default:
		return errors.New("not read yet")
	}
}

// files are the rule files in the ConfigMaps. A fault is that they could not be
// read, or not lately: then the files are what was read last.
func (f *follower) files() ([]File, error) {
	if err := f.unread(); err != nil {
		return nil, err
	}
	var files []File
	for _, obj := range f.store.List() {
		if m, ok := obj.(*corev1.ConfigMap); ok {
			files = append(files, configMapFiles(m)...)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return files, f.err
}

// configMapFiles are the files of one ConfigMap, sorted by key. Their names
// begin with its namespace and name.
func configMapFiles(m *corev1.ConfigMap) []File {
	files := make([]File, 0, len(m.Data)+len(m.BinaryData))
	add := func(key string, content io.Reader) {
		name := m.Namespace + "/" + m.Name + "/" + key
		files = append(files, File{
			Path: "configmap:" + name,
			Name: strings.TrimSuffix(name, gzipSuffix),
			read: func(maxBytes int64) ([]byte, error) { return readValue(name, content, maxBytes) },
		})
	}
	for _, key := range slices.Sorted(maps.Keys(m.Data)) {
		add(key, strings.NewReader(m.Data[key]))
	}
	for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
		add(key, bytes.NewReader(m.BinaryData[key]))
	}
	return files
}

// readValue returns a value of a ConfigMap, decompressed if it is compressed.
func readValue(name string, value io.Reader, maxBytes int64) ([]byte, error) {
	content := bufio.NewReader(value)
	head, err := content.Peek(len(gzipMagic))
	if err != nil || string(head) != gzipMagic {
		return readAtMost(content, name, maxBytes)
	}
	unzipped, err := gzip.NewReader(content)
	if err != nil {
		return nil, fmt.Errorf("%s is not compressed by gzip: %w", name, err)
	}
	return readAtMost(unzipped, name, maxBytes)
}
