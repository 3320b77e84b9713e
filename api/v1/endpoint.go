package v1

import "k8s.io/apimachinery/pkg/util/intstr"

// ScrapeEndpoint says what is scraped of a pod.
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || self.timeout <= self.interval",messageExpression="'scrape timeout (%s) must not be greater than scrape interval (%s)'.format([self.timeout, self.interval])"
// +kubebuilder:validation:XValidation:rule="(has(self.authorization) ? 1 : 0) + (has(self.basicAuth) ? 1 : 0) + (has(self.oauth2) ? 1 : 0) <= 1",message="at most one of authorization, basicAuth and oauth2 may be set"
type ScrapeEndpoint struct {
	// Port that is scraped: the name of a container port, which may be a regular
	// expression, or a number, which the pod need not declare. Several endpoints
	// may have the same port if their paths differ.
	// +kubebuilder:validation:XValidation:rule="self != 0 && self != ''",message="Port is required"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 65535 : size(self) <= 253",message="port must be a number up to 65535 or have at most 253 characters"
	Port intstr.IntOrString `json:"port"`
	// Protocol: http, which is the default, or https.
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
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$`
	Interval string `json:"interval"`
	// Time that a scrape may take. Default is the interval.
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$`
	// +optional
	Timeout string `json:"timeout,omitempty"`
	// Changes of the scraped series' labels, and which series are dropped. Labels
	// that say where a series comes from can't be changed or dropped.
	// +kubebuilder:validation:MaxItems=250
	// +optional
	MetricRelabeling []RelabelingRule `json:"metricRelabeling,omitempty"`
	SampleOptions    `json:",inline"`
	HTTPClientConfig `json:",inline"`
}

// SampleOptions says which samples a scrape takes.
type SampleOptions struct {
	// Whether timestamps that the target exposes are kept. Default is false:
	// samples get the time of the scrape.
	// +optional
	HonorTimestamps *bool `json:"honorTimestamps,omitempty"`
	// Whether histograms that the target exposes as native ones are taken as such.
	// Default is false.
	// +optional
	ScrapeNativeHistograms *bool `json:"scrapeNativeHistograms,omitempty"`
	// Whether the buckets of a histogram are taken even if it is taken as a native
	// one, too. Default is false.
	// +optional
	ScrapeClassicHistograms *bool `json:"scrapeClassicHistograms,omitempty"`
	// Whether histograms with classic buckets become native histograms with custom
	// buckets. Default is false.
	// +optional
	ConvertClassicHistogramsToNHCB *bool `json:"convertClassicHistogramsToNHCB,omitempty"`
}

// ScrapeLimits bounds a single scrape, which fails beyond. Zero or missing
// means no bound.
type ScrapeLimits struct {
	// Number of samples, after relabeling.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Samples uint64 `json:"samples,omitempty"`
	// Number of labels of a series.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Labels uint64 `json:"labels,omitempty"`
	// Length of a label's name, in bytes.
	// +kubebuilder:validation:Minimum=0
	// +optional
	LabelNameLength uint64 `json:"labelNameLength,omitempty"`
	// Length of a label's value, in bytes.
	// +kubebuilder:validation:Minimum=0
	// +optional
	LabelValueLength uint64 `json:"labelValueLength,omitempty"`
	// Size of the uncompressed response, as 10MB or 512KiB.
	// +kubebuilder:validation:Pattern=`^(0|([0-9]*[.])?[0-9]+((K|M|G|T|E|P)i?)?B)$`
	// +optional
	BodySize string `json:"bodySize,omitempty"`
	// Number of targets of an endpoint on one node; beyond it all of them fail.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Targets uint64 `json:"targets,omitempty"`
	// Number of buckets of a native histogram; wider buckets are used beyond.
	// +kubebuilder:validation:Minimum=0
	// +optional
	NativeHistogramBuckets uint64 `json:"nativeHistogramBuckets,omitempty"`
}

// RelabelingRule changes the labels of series, or drops series, as Prometheus'
// metric_relabel_configs.
// +kubebuilder:validation:XValidation:rule="!has(self.action) || self.action != 'labeldrop' || has(self.regex)",message="action labeldrop requires a regex"
type RelabelingRule struct {
	// Labels whose values, joined by the separator, are matched by the regular
	// expression.
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:Pattern=`^[a-zA-Z_][a-zA-Z0-9_]*$`
	// +optional
	SourceLabels []string `json:"sourceLabels,omitempty"`
	// What joins the values of source labels. Default is a semicolon.
	// +optional
	Separator string `json:"separator,omitempty"`
	// Label that is set.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_][a-zA-Z0-9_]*$`
	// +kubebuilder:validation:XValidation:rule="!(self in ['project_id', 'location', 'cluster', 'namespace', 'job', 'instance', 'top_level_controller', 'top_level_controller_name', 'top_level_controller_type', '__address__'])",messageExpression="'cannot relabel onto protected label \"%s\"'.format([self])"
	// +optional
	TargetLabel string `json:"targetLabel,omitempty"`
	// Regular expression, anchored at both ends. Default is (.*).
	// +kubebuilder:validation:MaxLength=10000
	// +optional
	Regex string `json:"regex,omitempty"`
	// Modulus of the hash of the source labels' values, for action hashmod.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Modulus uint64 `json:"modulus,omitempty"`
	// Value of the target label; may refer to groups of the regular expression.
	// Default is $1.
	// +optional
	Replacement string `json:"replacement,omitempty"`
	// What is done. Default is replace.
	// +kubebuilder:validation:Enum=replace;lowercase;uppercase;keep;drop;keepequal;dropequal;hashmod;labeldrop;labelkeep
	// +optional
	Action string `json:"action,omitempty"`
}
