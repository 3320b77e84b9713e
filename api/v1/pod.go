package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PodMonitoring scrapes pods of its own namespace.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=pm
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether collectors get it"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].message`,description="Why collectors don't get it",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PodMonitoring struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Which pods are scraped, and how.
	Spec PodMonitoringSpec `json:"spec"`
	// What came of it.
	// +optional
	Status PodMonitoringStatus `json:"status,omitempty"`
}

// PodMonitoringList is a list of PodMonitorings.
// +kubebuilder:object:root=true
type PodMonitoringList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PodMonitoring `json:"items"`
}

// ClusterPodMonitoring scrapes pods of all namespaces.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:scope=Cluster,shortName=cpm
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether collectors get it"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].message`,description="Why collectors don't get it",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterPodMonitoring struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Which pods are scraped, and how.
	Spec ClusterPodMonitoringSpec `json:"spec"`
	// What came of it.
	// +optional
	Status PodMonitoringStatus `json:"status,omitempty"`
}

// ClusterPodMonitoringList is a list of ClusterPodMonitorings.
// +kubebuilder:object:root=true
type ClusterPodMonitoringList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterPodMonitoring `json:"items"`
}

// PodMonitoringSpec says which pods of the namespace are scraped, and how.
// Credentials come from Secrets of the same namespace only.
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, !has(e.authorization) || !has(e.authorization.credentials) || !has(e.authorization.credentials.secret) || !has(e.authorization.credentials.secret.namespace))",message="Namespace not allowed on PodMonitoring secret references: authorization.credentials.",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, !has(e.basicAuth) || !has(e.basicAuth.password) || !has(e.basicAuth.password.secret) || !has(e.basicAuth.password.secret.namespace))",message="Namespace not allowed on PodMonitoring secret references: basicAuth.password.",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, !has(e.tls) || !has(e.tls.ca) || !has(e.tls.ca.secret) || !has(e.tls.ca.secret.namespace))",message="Namespace not allowed on PodMonitoring secret references: tls.ca.",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, !has(e.tls) || !has(e.tls.cert) || !has(e.tls.cert.secret) || !has(e.tls.cert.secret.namespace))",message="Namespace not allowed on PodMonitoring secret references: tls.cert.",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, !has(e.tls) || !has(e.tls.key) || !has(e.tls.key.secret) || !has(e.tls.key.secret.namespace))",message="Namespace not allowed on PodMonitoring secret references: tls.key.",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, !has(e.oauth2) || !has(e.oauth2.clientSecret) || !has(e.oauth2.clientSecret.secret) || !has(e.oauth2.clientSecret.secret.namespace))",message="Namespace not allowed on PodMonitoring secret references: oauth2.clientSecret.",reason=FieldValueForbidden
type PodMonitoringSpec struct {
	// Pods of the namespace that are scraped; {} selects all of them.
	Selector metav1.LabelSelector `json:"selector"`
	// What is scraped of each pod.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	Endpoints []ScrapeEndpoint `json:"endpoints"`
	// Labels that the pods give to all series scraped from them, beside
	// project_id, location, cluster, namespace, job and instance.
	// +kubebuilder:default={}
	// +optional
	TargetLabels TargetLabels `json:"targetLabels,omitempty"`
	// Bounds of a single scrape.
	// +optional
	Limits *ScrapeLimits `json:"limits,omitempty"`
	// Whether pods that have ended, in phase Succeeded or Failed, are left out.
	// Default is true.
	// +optional
	FilterRunning *bool `json:"filterRunning,omitempty"`
}

// ClusterPodMonitoringSpec says which pods of the cluster are scraped, and how.
type ClusterPodMonitoringSpec struct {
	// Pods of all namespaces that are scraped; {} selects all of them.
	Selector metav1.LabelSelector `json:"selector"`
	// What is scraped of each pod.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	Endpoints []ScrapeEndpoint `json:"endpoints"`
	// Labels that the pods give to all series scraped from them, beside
	// project_id, location, cluster, job and instance.
	// +kubebuilder:default={}
	// +optional
	TargetLabels ClusterTargetLabels `json:"targetLabels,omitempty"`
	// Bounds of a single scrape.
	// +optional
	Limits *ScrapeLimits `json:"limits,omitempty"`
	// Whether pods that have ended, in phase Succeeded or Failed, are left out.
	// Default is true.
	// +optional
	FilterRunning *bool `json:"filterRunning,omitempty"`
}

// TargetLabels says which labels a pod gives to the series scraped from it.
type TargetLabels struct {
	// Labels that say what the pod is. null means none.
	// +kubebuilder:validation:items:Enum=container;node;pod;top_level_controller_name;top_level_controller_type
	// +kubebuilder:default={container,pod,top_level_controller_name,top_level_controller_type}
	// +listType=set
	// +optional
	Metadata *[]string `json:"metadata,omitempty"`
	// Labels of the pod that become labels of the series, in this order.
	// +kubebuilder:validation:MaxItems=100
	// +optional
	FromPod []LabelMapping `json:"fromPod,omitempty"`
}

// ClusterTargetLabels says which labels a pod of any namespace gives to the
// series scraped from it.
type ClusterTargetLabels struct {
	// Labels that say what the pod is. null means namespace only; an empty list
	// lets a namespace label of the exporter itself through.
	// +kubebuilder:validation:items:Enum=container;namespace;node;pod;top_level_controller_name;top_level_controller_type
	// +kubebuilder:default={container,namespace,pod,top_level_controller_name,top_level_controller_type}
	// +listType=set
	// +optional
	Metadata *[]string `json:"metadata,omitempty"`
	// Labels of the pod that become labels of the series, in this order.
	// +kubebuilder:validation:MaxItems=100
	// +optional
	FromPod []LabelMapping `json:"fromPod,omitempty"`
}

// LabelMapping makes a label of the pod a label of its series.
type LabelMapping struct {
	// Name of the pod's label.
	From string `json:"from"`
	// Name of the series' label. Default is the pod's label with every character
	// that a label name can't have replaced by an underscore.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_][a-zA-Z0-9_]*$`
	// +kubebuilder:validation:XValidation:rule="!(self in ['project_id', 'location', 'cluster', 'namespace', 'job', 'instance', 'top_level_controller', 'top_level_controller_name', 'top_level_controller_type', '__address__'])",messageExpression="'cannot relabel onto protected label \"%s\"'.format([self])"
	// +optional
	To string `json:"to,omitempty"`
}
