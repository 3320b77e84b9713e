package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// OperatorConfig is the configuration of everything that the operator
// configures. There is one, "config" in namespace gmp-public.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=opcfg
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether collectors and rule evaluators get it"
// +kubebuilder:printcolumn:name="Alertmanager",type=string,JSONPath=`.status.conditions[?(@.type=="AlertmanagerConfigurationSuccess")].status`,description="Whether the managed Alertmanager gets its configuration"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.status=="False")].message`,description="What is wrong",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type OperatorConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Evaluation of rules and delivery of alerts.
	// +optional
	Rules RuleEvaluatorSpec `json:"rules,omitempty"`
	// Limits and times of rule evaluation.
	// +optional
	RuleEvaluation RuleEvaluationSpec `json:"ruleEvaluation,omitempty"`
	// Where data is read by rules, and written by collectors and rules. Between
	// them the backends hold all data, and no series is in two of them.
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=name
	// +optional
	Backends []Backend `json:"backends,omitempty"`
	// What collectors do.
	// +optional
	Collection CollectionSpec `json:"collection,omitempty"`
	// Further places that collectors write all samples to.
	// +kubebuilder:validation:MaxItems=100
	// +optional
	Exports []ExportSpec `json:"exports,omitempty"`
	// The Alertmanager that comes with the operator.
	// +kubebuilder:default={configSecret: {name: alertmanager, key: alertmanager.yaml}}
	// +optional
	ManagedAlertmanager *ManagedAlertmanagerSpec `json:"managedAlertmanager,omitempty"`
	// What can be turned on and off.
	// +optional
	Features OperatorFeatures `json:"features,omitempty"`
	// How the workloads grow.
	// +optional
	Scaling ScalingSpec `json:"scaling,omitempty"`
	// What came of it.
	// +optional
	Status OperatorConfigStatus `json:"status,omitempty"`
}

// OperatorConfigList is a list of OperatorConfigs.
// +kubebuilder:object:root=true
type OperatorConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []OperatorConfig `json:"items"`
}

// RuleEvaluatorSpec says what rules are about and where alerts go.
type RuleEvaluatorSpec struct {
	// Labels of all alerts and rule results that lack them. project_id, location
	// and cluster take the place of what the operator was started with.
	// +optional
	ExternalLabels map[string]string `json:"externalLabels,omitempty"`
	// Project whose data rules query, for backends that are told so.
	// +optional
	QueryProjectID string `json:"queryProjectID,omitempty"`
	// Base of the links in alerts to what raised them.
	// +kubebuilder:validation:Format=uri
	// +kubebuilder:validation:XValidation:rule="isURL(self)",message="generatorUrl must be a URL"
	// +optional
	GeneratorURL string `json:"generatorUrl,omitempty"`
	// Where alerts go, beside the managed Alertmanager.
	// +optional
	Alerting AlertingSpec `json:"alerting,omitempty"`
	// Service account key for backends of Google Cloud Monitoring.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	Credentials *corev1.SecretKeySelector `json:"credentials,omitempty"`
}

// AlertingSpec says where alerts go.
type AlertingSpec struct {
	// Alertmanagers that get every alert.
	// +optional
	Alertmanagers []AlertmanagerEndpoints `json:"alertmanagers,omitempty"`
}

// AlertmanagerEndpoints are the Alertmanagers behind one Service.
type AlertmanagerEndpoints struct {
	// Namespace of the Service.
	Namespace string `json:"namespace"`
	// Name of the Service.
	Name string `json:"name"`
	// Port of its API, by name or number.
	Port intstr.IntOrString `json:"port"`
	// Protocol: http, which is the default, or https.
	// +optional
	Scheme string `json:"scheme,omitempty"`
	// What precedes the paths of its API.
	// +optional
	PathPrefix string `json:"pathPrefix,omitempty"`
	// Certificates and their check.
	// +optional
	TLS *TLSConfig `json:"tls,omitempty"`
	// Authorization header with credentials from a Secret.
	// +optional
	Authorization *Authorization `json:"authorization,omitempty"`
	// Version of its API. v1 is gone from Alertmanagers of today.
	// +optional
	APIVersion string `json:"apiVersion,omitempty"`
	// Time that a request may take. Default is 10s.
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	Timeout string `json:"timeout,omitempty"`
}

// Authorization is an Authorization header with credentials from gmp-public.
type Authorization struct {
	// Scheme in the header. Default is Bearer.
	// +optional
	Type string `json:"type,omitempty"`
	// What follows the scheme.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	Credentials *corev1.SecretKeySelector `json:"credentials,omitempty"`
}

// TLSConfig says how certificates are shown and checked, with files from
// gmp-public.
type TLSConfig struct {
	// Certificates of authorities that the server's certificate has to be signed
	// by.
	// +optional
	CA *SecretOrConfigMap `json:"ca,omitempty"`
	// Certificate that is shown to the server.
	// +optional
	Cert *SecretOrConfigMap `json:"cert,omitempty"`
	// Key of the certificate that is shown to the server.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	KeySecret *corev1.SecretKeySelector `json:"keySecret,omitempty"`
	// Name that the server's certificate has to be for. Default is the address.
	// +optional
	ServerName string `json:"serverName,omitempty"`
	// Whether any certificate of the server is accepted.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
	// Oldest TLS version that is spoken: TLS10, TLS11, TLS12 or TLS13. Default is
	// TLS12.
	// +optional
	MinVersion string `json:"minVersion,omitempty"`
	// Newest TLS version that is spoken: TLS10, TLS11, TLS12 or TLS13. Default is
	// TLS13.
	// +optional
	MaxVersion string `json:"maxVersion,omitempty"`
}

// SecretOrConfigMap names a key of either.
// +kubebuilder:validation:XValidation:rule="!(has(self.secret) && has(self.configMap))",message="secret and configMap exclude each other"
type SecretOrConfigMap struct {
	// Key of a Secret.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	Secret *corev1.SecretKeySelector `json:"secret,omitempty"`
	// Key of a ConfigMap.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the ConfigMap is required"
	// +optional
	ConfigMap *corev1.ConfigMapKeySelector `json:"configMap,omitempty"`
}

// CollectionSpec says what collectors do.
type CollectionSpec struct {
	// Labels of all samples that lack them. project_id, location and cluster take
	// the place of what the operator was started with, and rules that are
	// restricted to this cluster are restricted to these.
	// +optional
	ExternalLabels map[string]string `json:"externalLabels,omitempty"`
	// Which series are written to backends; exports get all of them.
	// +optional
	Filter ExportFilters `json:"filter,omitempty"`
	// Service account key for backends of Google Cloud Monitoring.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	Credentials *corev1.SecretKeySelector `json:"credentials,omitempty"`
	// Scraping of the kubelet on every node. Default is none.
	// +optional
	KubeletScraping *KubeletScraping `json:"kubeletScraping,omitempty"`
	// Compression of what is sent to Google Cloud Monitoring. Remote write is
	// always compressed.
	// +optional
	Compression CompressionType `json:"compression,omitempty"`
}

// ExportFilters says which series are written.
type ExportFilters struct {
	// Selectors as for federation: a series that fits any of them is written.
	// +optional
	MatchOneOf []string `json:"matchOneOf,omitempty"`
	// Whether the selectors are applied. Default is true if there are any.
	// +optional
	EnableMatchOneOf *bool `json:"enableMatchOneOf,omitempty"`
}

// KubeletScraping says how kubelets are scraped.
type KubeletScraping struct {
	// Time between two scrapes.
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$`
	Interval string `json:"interval"`
	// Whether any certificate of the kubelet is accepted.
	// +optional
	TLSInsecureSkipVerify bool `json:"tlsInsecureSkipVerify,omitempty"`
}

// ExportSpec is a remote-write endpoint.
type ExportSpec struct {
	// URL of the endpoint.
	// +kubebuilder:validation:Format=uri
	// +kubebuilder:validation:XValidation:rule="isURL(self)",message="url must be a URL"
	URL string `json:"url"`
	// Headers of every request, as X-Scope-OrgID.
	// +optional
	Headers          map[string]string `json:"headers,omitempty"`
	HTTPClientConfig `json:",inline"`
}

// ManagedAlertmanagerSpec configures the Alertmanager that comes with the
// operator.
type ManagedAlertmanagerSpec struct {
	// Key of a Secret in gmp-public with the configuration, in Alertmanager's
	// format.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	ConfigSecret *corev1.SecretKeySelector `json:"configSecret,omitempty"`
	// URL under which it is reachable, for links in notifications.
	// +kubebuilder:validation:Format=uri
	// +optional
	ExternalURL string `json:"externalURL,omitempty"`
}

// OperatorFeatures is what can be turned on and off.
type OperatorFeatures struct {
	// Status of targets and rules in the resources that they come from.
	// +optional
	TargetStatus TargetStatusSpec `json:"targetStatus,omitempty"`
	// Form of the configuration that collectors and rule evaluators get.
	// +optional
	Config ConfigSpec `json:"config,omitempty"`
}

// TargetStatusSpec turns the status of targets on.
type TargetStatusSpec struct {
	// Whether collectors are asked for the status of their targets.
	// +optional
	Enabled bool `json:"enabled,omitempty"`
}

// ConfigSpec is about the form of configuration.
type ConfigSpec struct {
	// Compression of configuration in ConfigMaps, for clusters with very many
	// resources. Default is none.
	// +optional
	Compression CompressionType `json:"compression,omitempty"`
}

// CompressionType names a compression.
// +kubebuilder:validation:Enum=none;gzip
type CompressionType string

// The compressions.
const (
	CompressionNone CompressionType = "none"
	CompressionGzip CompressionType = "gzip"
)

// ScalingSpec says how workloads grow.
type ScalingSpec struct {
	// Vertical scaling.
	// +optional
	VPA VPASpec `json:"vpa,omitempty"`
}

// VPASpec turns vertical scaling on.
type VPASpec struct {
	// Whether the workloads get VerticalPodAutoscalers.
	// +optional
	Enabled bool `json:"enabled,omitempty"`
}
