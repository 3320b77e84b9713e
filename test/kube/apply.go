package kube

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// ApplyFiles applies all manifests in YAML files and in folders, recursively
// and in the order of their names. CustomResourceDefinitions are served when
// it returns.
func (c *Cluster) ApplyFiles(paths ...string) {
	c.t.Helper()
	applier := NewApplier(c.t, c.AdminConfig())
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(name) != ".yaml" {
				return err
			}
			content, err := os.ReadFile(name)
			require.NoError(c.t, err)
			for _, object := range Manifests(c.t, content) {
				_, err := applier.Apply(context.Background(), object)
				require.NoError(c.t, err, "%s: %s %s", name, object.GetKind(), object.GetName())
				c.awaitServed(object)
			}
			return nil
		})
		require.NoError(c.t, err)
	}
}

// awaitServed waits until the API server serves what a
// CustomResourceDefinition defines.
func (c *Cluster) awaitServed(object *unstructured.Unstructured) {
	c.t.Helper()
	if object.GetKind() != "CustomResourceDefinition" {
		return
	}
	group, _, err := unstructured.NestedString(object.Object, "spec", "group")
	require.NoError(c.t, err)
	plural, _, err := unstructured.NestedString(object.Object, "spec", "names", "plural")
	require.NoError(c.t, err)
	versions, _, err := unstructured.NestedSlice(object.Object, "spec", "versions")
	require.NoError(c.t, err)
	client := c.Admin().Discovery()
	for _, v := range versions {
		gv := schema.GroupVersion{Group: group, Version: v.(map[string]any)["name"].(string)}
		c.await("API server serves "+gv.String()+" "+plural, func() bool {
			list, err := client.ServerResourcesForGroupVersion(gv.String())
			return err == nil && slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural })
		})
	}
}

// await polls for a condition.
func (c *Cluster) await(what string, met func() bool) {
	c.t.Helper()
	deadline := time.After(patience)
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for !met() {
		select {
		case <-ticks.C:
		case <-deadline:
			c.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Manifests are the objects in a YAML stream.
func Manifests(t require.TestingT, content []byte) []*unstructured.Unstructured {
	var objects []*unstructured.Unstructured
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		object := map[string]any{}
		require.NoError(t, utilyaml.Unmarshal(document, &object), "%s", document)
		if len(object) > 0 {
			objects = append(objects, &unstructured.Unstructured{Object: object})
		}
	}
}

// Applier does with single objects what kubectl does with manifests.
type Applier struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
}

// NewApplier acts with the rights of a configuration.
func NewApplier(t require.TestingT, cfg *rest.Config) *Applier {
	client, err := dynamic.NewForConfig(cfg)
	require.NoError(t, err)
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	require.NoError(t, err)
	return &Applier{client: client, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}
}

// Apply applies an object on the server's side and returns what came of it.
func (a *Applier) Apply(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	resource, err := a.Resource(object)
	if err != nil {
		return nil, err
	}
	options := metav1.ApplyOptions{FieldManager: "test", Force: true}
	return resource.Apply(ctx, object.GetName(), object, options)
}

// Resource is where objects of the kind, and of the namespace, of one are.
func (a *Applier) Resource(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		// It may be new.
		a.mapper.Reset()
		if mapping, err = a.mapper.RESTMapping(kind.GroupKind(), kind.Version); err != nil {
			return nil, err
		}
	}
	return a.client.Resource(mapping.Resource).Namespace(object.GetNamespace()), nil
}
