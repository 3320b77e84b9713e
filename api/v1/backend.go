package v1

import corev1 "k8s.io/api/core/v1"

// Backend is a server with Prometheus' query API that holds one slice of the
// data. The fields are those of the rule-evaluator's configuration file.
type Backend struct {
	// Name in plans, metrics and errors.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Labels that every series of this backend has, and none of another. All
	// backends name the same labels; an empty value means that the series lack it.
	// +optional
	PartitionLabels map[string]string `json:"partitionLabels,omitempty"`
	// Whether the series as they are stored lack the partition labels, as those of
	// a plain Prometheus server with external labels.
	// +optional
	Virtual bool `json:"virtual,omitempty"`
	// Base of the query API, without /api/v1.
	// +kubebuilder:validation:MaxLength=2000
	// +kubebuilder:validation:XValidation:rule="isURL(self) && !self.contains('@')",message="url must be a URL without user name and password"
	URL string `json:"url"`
	// Query parameters of every request.
	// +optional
	Params map[string][]string `json:"params,omitempty"`
	// Headers of every request, as X-Scope-OrgID.
	// +optional
	Headers          map[string]string `json:"headers,omitempty"`
	HTTPClientConfig `json:",inline"`
	// Whether the backend lacks remote read.
	// +optional
	NoRemoteRead bool `json:"noRemoteRead,omitempty"`
	// Longest time until a sample that was written is visible to queries.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	ReadDelay string `json:"readDelay,omitempty"`
	// Makes queries use the gRPC API of a Thanos querier.
	// +optional
	Thanos *ThanosQuerier `json:"thanos,omitempty"`
	// Where samples are written. Rule results of the backend's slice go there, by
	// default to api/v1/write below the URL. If it is set, collectors write there,
	// too, unless the partition labels contradict their external labels.
	// +optional
	RemoteWrite *RemoteWrite `json:"remoteWrite,omitempty"`
}

// ThanosQuerier is the gRPC server of a Thanos querier.
type ThanosQuerier struct {
	// Its address, "host:port".
	// +kubebuilder:validation:MinLength=1
	Address string `json:"address"`
	// Certificates and their check. Default is plaintext.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// RemoteWrite is where a backend takes samples.
type RemoteWrite struct {
	// URL of the endpoint. Default is api/v1/write below the backend's URL.
	// +kubebuilder:validation:MaxLength=2000
	// +kubebuilder:validation:XValidation:rule="isURL(self) && !self.contains('@')",message="url must be a URL without user name and password"
	// +optional
	URL string `json:"url,omitempty"`
	// Headers and credentials of writes, in place of those of queries.
	// +optional
	Client *RemoteWriteClient `json:"client,omitempty"`
}

// RemoteWriteClient says how writes differ from queries.
type RemoteWriteClient struct {
	// Headers of every request.
	// +optional
	Headers          map[string]string `json:"headers,omitempty"`
	HTTPClientConfig `json:",inline"`
}

// RuleEvaluationSpec holds limits and times of rule evaluation.
type RuleEvaluationSpec struct {
	// Age beyond which missed evaluations are given up. Default is 1h.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	BackfillLimit string `json:"backfillLimit,omitempty"`
	// Shortest time between two notifications that say the same. Default is 1m.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	ResendDelay string `json:"resendDelay,omitempty"`
	// Time that the evaluation of all rules that are due may take. Default is 30s.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	QueryTimeout string `json:"queryTimeout,omitempty"`
	// What queries may cost.
	// +optional
	Limits EvaluationLimits `json:"limits,omitempty"`
	// Keys in gmp-public that encrypt what rule evaluators gossip, base64, one in
	// a line; the first one encrypts. Default is a key that the operator makes.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name != ''",message="name of the Secret is required"
	// +optional
	GossipKey *corev1.SecretKeySelector `json:"gossipKey,omitempty"`
}

// EvaluationLimits bounds what queries of rules may cost.
type EvaluationLimits struct {
	// Bounds of a single query. What is not set has the rule-evaluator's default.
	// +optional
	Query CostBounds `json:"query,omitempty"`
	// Bounds of all queries of a tenant within a minute: of all rules that are
	// restricted to the same labels. What is not set is not bounded.
	// +optional
	Tenant CostBounds `json:"tenant,omitempty"`
	// Tenants with other bounds; the first that fits counts.
	// +kubebuilder:validation:MaxItems=1000
	// +optional
	Tenants []TenantLimits `json:"tenants,omitempty"`
}

// TenantLimits are the bounds of some tenants.
type TenantLimits struct {
	// Labels that the rules of the tenants are restricted to, as namespace.
	// +kubebuilder:validation:MinProperties=1
	Scope map[string]string `json:"scope"`
	// Bounds of a single query.
	// +optional
	Query CostBounds `json:"query,omitempty"`
	// Bounds of all queries within a minute.
	// +optional
	Tenant CostBounds `json:"tenant,omitempty"`
}

// CostBounds bounds the cost of queries.
type CostBounds struct {
	// Number of samples that are read.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Samples int64 `json:"samples,omitempty"`
	// Number of series that are moved from backends.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Series int64 `json:"series,omitempty"`
	// Size of what is moved from backends, as 512KB or 256MiB.
	// +kubebuilder:validation:Pattern=`^(0|([0-9]*[.])?[0-9]+((K|M|G|T|E|P)i?)?B)$`
	// +optional
	Bytes string `json:"bytes,omitempty"`
	// Time that backends are at work.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	Time string `json:"time,omitempty"`
}
