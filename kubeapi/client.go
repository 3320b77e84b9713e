// Package kubeapi is how processes read the Kubernetes API: by a client of the
// core group, which is a fraction of what the clients of all groups weigh, and
// by following the ConfigMaps that a label selects. It never writes to the API.
//
// A ConfigMaps is safe for concurrent use.
package kubeapi

import (
	"fmt"

	"github.com/prometheus/common/version"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// access describes how a kubeconfig says to reach the API; without a file it
// is as a pod does, by its service account.
func access(kubeconfig string) clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}, nil)
}

// NewClient returns a client of the core group for the access that a
// kubeconfig describes; without a file, that of the pod's service account.
func NewClient(kubeconfig string) (*rest.RESTClient, error) {
	cfg, err := access(kubeconfig).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	return ClientFor(cfg)
}

// ClientFor returns a client of the core group. What the client is for is set
// in cfg, too.
func ClientFor(cfg *rest.Config) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	cfg.APIPath = "/api"
	cfg.GroupVersion = &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = protobuf, protobuf+",application/json"
	cfg.UserAgent = "tocsin/" + version.Version
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	return client, nil
}
