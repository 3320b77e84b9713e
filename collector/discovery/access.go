package discovery

import (
	"fmt"

	"github.com/prometheus/common/config"
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

// client reaches the API server as the configuration says; with nothing said
// as a pod does, by its service account.
func (c *Config) client() (*rest.RESTClient, error) {
	if c.APIServer.URL == nil {
		return newClient(c.KubeconfigFile)
	}
	transport, err := config.NewRoundTripperFromConfig(c.HTTPClientConfig, "kubernetes_sd")
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	return coreClient(&rest.Config{Host: c.APIServer.String(), Transport: transport})
}

// newClient has the access that a
// kubeconfig describes; with no file, that of the pod's service account.
func newClient(kubeconfig string) (*rest.RESTClient, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	return coreClient(cfg)
}

func coreClient(cfg *rest.Config) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	cfg.APIPath = "/api"
	cfg.GroupVersion = &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = protobuf, protobuf+",application/json"
	cfg.UserAgent = "tocsin-collector/" + version.Version
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("access to Kubernetes: %w", err)
	}
	return client, nil
}
