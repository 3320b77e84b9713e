package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MonitoringStatus says what the operator made of a resource.
type MonitoringStatus struct {
	// Generation of the resource that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// What is the case about the resource, one entry for each type.
	// +optional
	Conditions []MonitoringCondition `json:"conditions,omitempty"`
}

// MonitoringConditionType names a condition.
type MonitoringConditionType string

const (
	// ConfigurationCreateSuccess is true if the resource is part of the
	// configuration that collectors and rule evaluators get.
	ConfigurationCreateSuccess MonitoringConditionType = "ConfigurationCreateSuccess"
	// AlertmanagerConfigurationSuccess is true if the managed Alertmanager gets
	// the configuration that the user's Secret holds now. It is a condition of
	// OperatorConfig.
	AlertmanagerConfigurationSuccess MonitoringConditionType = "AlertmanagerConfigurationSuccess"
)

// MonitoringCondition is one observation about a resource.
type MonitoringCondition struct {
	// What is observed.
	Type MonitoringConditionType `json:"type"`
	// Whether it is the case: True, False or Unknown.
	// +kubebuilder:validation:Enum=True;False;Unknown
	Status corev1.ConditionStatus `json:"status"`
	// When any part of the condition last changed.
	// +optional
	LastUpdateTime metav1.Time `json:"lastUpdateTime,omitempty"`
	// When the status last changed.
	// +optional
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitempty"`
	// Why, in one word.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Why, in full: the error itself, with the field that it is about.
	// +optional
	Message string `json:"message,omitempty"`
}

// PodMonitoringStatus says what the operator made of a resource and, if
// features.targetStatus is enabled, how scraping its targets goes.
type PodMonitoringStatus struct {
	MonitoringStatus `json:",inline"`
	// Targets by endpoint, sorted by name.
	// +optional
	EndpointStatuses []ScrapeEndpointStatus `json:"endpointStatuses,omitempty"`
}

// ScrapeEndpointStatus is about the targets of one endpoint on all nodes.
type ScrapeEndpointStatus struct {
	// Name of the scrape pool: what the endpoint belongs to and its port.
	Name string `json:"name"`
	// Number of targets that are scraped.
	// +optional
	ActiveTargets int64 `json:"activeTargets,omitempty"`
	// Number of targets whose last scrape failed, or that were not scraped yet.
	// +optional
	UnhealthyTargets int64 `json:"unhealthyTargets,omitempty"`
	// When the status last changed.
	// +optional
	LastUpdateTime metav1.Time `json:"lastUpdateTime,omitempty"`
	// Samples of targets, grouped by what their last scrape failed with;
	// healthy ones are last.
	// +optional
	SampleGroups []SampleGroup `json:"sampleGroups,omitempty"`
	// Why selected pods or nodes are no targets, the most frequent reasons
	// first.
	// +kubebuilder:validation:MaxItems=10
	// +optional
	DroppedTargets []DroppedTargets `json:"droppedTargets,omitempty"`
	// Why collectors refuse the endpoint's configuration.
	// +optional
	ConfigurationError string `json:"configurationError,omitempty"`
	// Part of the collectors that answered, between 0 and 1.
	CollectorsFraction string `json:"collectorsFraction"`
}

// SampleGroup is a group of targets whose last scrape went alike.
type SampleGroup struct {
	// Up to five targets of the group, sorted by instance.
	// +optional
	SampleTargets []SampleTarget `json:"sampleTargets,omitempty"`
	// Number of targets in the group.
	// +optional
	Count *int32 `json:"count,omitempty"`
}

// SampleTarget is a target and its last scrape.
type SampleTarget struct {
	// Labels of the target.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Error of the last scrape; missing if it went well.
	// +optional
	LastError *string `json:"lastError,omitempty"`
	// How long the last scrape took, in seconds.
	// +optional
	LastScrapeDurationSeconds string `json:"lastScrapeDurationSeconds,omitempty"`
	// Result of the last scrape: up, down or unknown.
	// +optional
	Health string `json:"health,omitempty"`
}

// DroppedTargets counts what was discovered for an endpoint and is not scraped.
type DroppedTargets struct {
	// Why they are not scraped.
	Reason string `json:"reason"`
	// Number of discovered targets.
	Count int64 `json:"count"`
}

// RulesStatus says what the operator made of a resource and how evaluating
// its rules goes.
type RulesStatus struct {
	MonitoringStatus `json:",inline"`
	// Number of rules that rule evaluators have.
	// +optional
	ActiveRules int64 `json:"activeRules,omitempty"`
	// Number of rules whose last evaluation failed.
	// +optional
	FailingRules int64 `json:"failingRules,omitempty"`
	// Groups, the failing ones first. Not all are listed if there are many.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	GroupStatuses []RuleGroupStatus `json:"groupStatuses,omitempty"`
}

// RuleGroupStatus is about the evaluation of one group.
type RuleGroupStatus struct {
	// Name of the group.
	Name string `json:"name"`
	// Member of the rule-evaluator cluster that evaluates the group.
	// +optional
	Owner string `json:"owner,omitempty"`
	// When the group was last evaluated. To spare the API server it is written
	// together with other changes, and otherwise every few minutes.
	// +optional
	LastEvaluationTime *metav1.Time `json:"lastEvaluationTime,omitempty"`
	// Number of rules in the group.
	// +optional
	ActiveRules int64 `json:"activeRules,omitempty"`
	// Number of rules whose last evaluation failed.
	// +optional
	FailingRules int64 `json:"failingRules,omitempty"`
	// Up to five of the failing rules, in the order of the group.
	// +kubebuilder:validation:MaxItems=5
	// +optional
	SampleRules []SampleRule `json:"sampleRules,omitempty"`
}

// SampleRule is a rule whose last evaluation failed.
type SampleRule struct {
	// Name of the recorded metric or of the alert.
	Name string `json:"name"`
	// Error of the last evaluation.
	LastError string `json:"lastError"`
}

// OperatorConfigStatus says what the operator made of its configuration.
type OperatorConfigStatus struct {
	MonitoringStatus `json:",inline"`
}
