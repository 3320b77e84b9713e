package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ClusterNodeMonitoring scrapes nodes: the kubelet, or another port of theirs.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:scope=Cluster,shortName=cnm
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether collectors get it"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].message`,description="Why collectors don't get it",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterNodeMonitoring struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Which nodes are scraped, and how.
	Spec ClusterNodeMonitoringSpec `json:"spec"`
	// What came of it.
	// +optional
	Status PodMonitoringStatus `json:"status,omitempty"`
}

// ClusterNodeMonitoringList is a list of ClusterNodeMonitorings.
// +kubebuilder:object:root=true
type ClusterNodeMonitoringList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterNodeMonitoring `json:"items"`
}

// ClusterNodeMonitoringSpec says which nodes are scraped, and how.
type ClusterNodeMonitoringSpec struct {
	// Nodes that are scraped, by their labels. Default is all.
	// +optional
	Selector metav1.LabelSelector `json:"selector,omitempty"`
	// What is scraped of each node. No two may have the same port and path.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	Endpoints []ScrapeNodeEndpoint `json:"endpoints"`
	// Bounds of a single scrape.
	// +optional
	Limits *ScrapeLimits `json:"limits,omitempty"`
}

// ScrapeNodeEndpoint says what is scraped of a node.
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || self.timeout <= self.interval",messageExpression="'scrape timeout (%s) must not be greater than scrape interval (%s)'.format([self.timeout, self.interval])"
// +kubebuilder:validation:XValidation:rule="(has(self.authorization) ? 1 : 0) + (has(self.basicAuth) ? 1 : 0) + (has(self.oauth2) ? 1 : 0) <= 1",message="at most one of authorization, basicAuth and oauth2 may be set"
type ScrapeNodeEndpoint struct {
	// Port on the address of the node. Default is the kubelet's, to which the
	// collector shows the token of its service account, over https, unless other
	// credentials are given; no other port ever gets that token.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`
	// Protocol: http or https.
	// +kubebuilder:validation:Enum=http;https
	// +optional
	Scheme string `json:"scheme,omitempty"`
	// Path of the HTTP request. Default is /metrics.
	// +optional
	Path string `json:"path,omitempty"`
	// Query parameters of the HTTP request.
	// +optional
	Params map[string][]string `json:"params,omitempty"`
	// Time between two scrapes.
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$`
	// +optional
	Interval string `json:"interval,omitempty"`
	// Time that a scrape may take. Default is the interval.
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$`
	// +optional
	Timeout string `json:"timeout,omitempty"`
	// Changes of the scraped series' labels, and which series are dropped.
	// +kubebuilder:validation:MaxItems=250
	// +optional
	MetricRelabeling []RelabelingRule `json:"metricRelabeling,omitempty"`
	SampleOptions    `json:",inline"`
	HTTPClientConfig `json:",inline"`
}
