package render

import (
	"errors"
	"fmt"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/relabel"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// managedAlertmanager is the one that comes with the operator.
func managedAlertmanager(namespace string, port int32) *promconfig.AlertmanagerConfig {
	out := promconfig.DefaultAlertmanagerConfig
	address := fmt.Sprintf("alertmanager.%s:%d", namespace, port)
	out.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{
		{Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(address)}}},
	}}
	return &out
}

// alertmanager is what is behind a Service that the OperatorConfig names.
func (e *evaluation) alertmanager(field string, in v1.AlertmanagerEndpoints) *promconfig.AlertmanagerConfig {
	out := promconfig.DefaultAlertmanagerConfig
	sd := kubernetes.DefaultSDConfig
	sd.Role = kubernetes.RoleEndpoint
	sd.NamespaceDiscovery.Names = []string{in.Namespace}
	out.ServiceDiscoveryConfigs = discovery.Configs{&sd}
	out.RelabelConfigs = []*relabel.Config{keepIf(exactly(in.Name), "__meta_kubernetes_endpoints_name"), servicePort(in.Port)}
	e.require(field+"namespace", in.Namespace != "")
	e.require(field+"name", in.Name != "")
	e.require(field+"port", in.Port.IntVal > 0 || in.Port.StrVal != "")
	if in.Scheme != "" {
		out.Scheme = in.Scheme
	}
	out.PathPrefix = in.PathPrefix
	if in.Timeout != "" {
		out.Timeout = e.duration(field+"timeout", in.Timeout)
	}
	if in.APIVersion != "" && in.APIVersion != string(promconfig.AlertmanagerAPIVersionV2) {
		e.warnings = append(e.warnings, fmt.Sprintf("%sapiVersion: v2 is used, since Alertmanagers don't have %s any more", field, in.APIVersion))
	}
	if a := in.Authorization; a != nil {
		out.HTTPClientConfig.Authorization = &config.Authorization{Type: a.Type, CredentialsFile: e.secret(field+"authorization.credentials", a.Credentials)}
	}
	if in.TLS != nil {
		out.HTTPClientConfig.TLSConfig = e.serviceTLS(field+"tls.", *in.TLS)
	}
	return &out
}

func (e *evaluation) require(field string, ok bool) {
	if !ok {
		e.fail(field, errors.New("must be set"))
	}
}

// servicePort keeps endpoints of a named port, or moves all of them to the port
// of a number.
func servicePort(port intstr.IntOrString) *relabel.Config {
	if port.Type == intstr.String {
		return keepIf(exactly(port.StrVal), "__meta_kubernetes_endpoint_port_name")
	}
	return rewrite("__address__", fmt.Sprintf("$1:%d", port.IntVal), relabel.MustNewRegexp(`(.+):\d+`), "__address__")
}

func (e *evaluation) serviceTLS(field string, in v1.TLSConfig) config.TLSConfig {
	e.require(field+"keySecret", in.Cert == nil || in.KeySecret != nil)
	e.require(field+"cert", in.KeySecret == nil || in.Cert != nil)
	return config.TLSConfig{
		CAFile:             e.secretOrConfigMap(field+"ca", in.CA),
		CertFile:           e.secretOrConfigMap(field+"cert", in.Cert),
		KeyFile:            e.secret(field+"keySecret", in.KeySecret),
		ServerName:         in.ServerName,
		InsecureSkipVerify: in.InsecureSkipVerify,
		MinVersion:         e.tlsVersion(field+"minVersion", in.MinVersion),
		MaxVersion:         e.tlsVersion(field+"maxVersion", in.MaxVersion),
	}
}

// secret returns the path of a key of a Secret beside the OperatorConfig.
func (e *evaluation) secret(field string, sel *corev1.SecretKeySelector) string {
	if sel == nil {
		return ""
	}
	return e.add(field, SecretKey{Kind: KindSecret, Namespace: e.namespace, Name: sel.Name, Key: sel.Key})
}

func (e *evaluation) secretOrConfigMap(field string, sel *v1.SecretOrConfigMap) string {
	switch {
	case sel == nil:
		return ""
	case sel.Secret != nil && sel.ConfigMap != nil:
		e.fail(field, errors.New("secret and configMap exclude each other"))
		return ""
	case sel.ConfigMap != nil:
		return e.add(field+".configMap", SecretKey{Kind: KindConfigMap, Namespace: e.namespace, Name: sel.ConfigMap.Name, Key: sel.ConfigMap.Key})
	default:
		return e.secret(field+".secret", sel.Secret)
	}
}
