// Package v1alpha1 is the older name of six of the kinds in package v1. It
// exists for the schema alone: the CustomResourceDefinitions serve both
// versions, with the same fields, and store the newer one; nothing reads these
// types, since the API server shows every object as v1, too.
//
// +groupName=monitoring.googleapis.com
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// PodMonitoring is v1.PodMonitoring.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:deprecatedversion
// +kubebuilder:resource:shortName=pm
type PodMonitoring struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Which pods are scraped, and how.
	Spec v1.PodMonitoringSpec `json:"spec"`
	// What came of it.
	// +optional
	Status v1.PodMonitoringStatus `json:"status,omitempty"`
}

// ClusterPodMonitoring is v1.ClusterPodMonitoring.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:deprecatedversion
// +kubebuilder:resource:scope=Cluster,shortName=cpm
type ClusterPodMonitoring struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Which pods are scraped, and how.
	Spec v1.ClusterPodMonitoringSpec `json:"spec"`
	// What came of it.
	// +optional
	Status v1.PodMonitoringStatus `json:"status,omitempty"`
}

// Rules is v1.Rules.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:deprecatedversion
// +kubebuilder:resource:path=rules,singular=rules,shortName=prules
type Rules struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// The rules.
	Spec v1.RulesSpec `json:"spec"`
	// What came of them.
	// +optional
	Status v1.RulesStatus `json:"status,omitempty"`
}

// ClusterRules is v1.ClusterRules.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:deprecatedversion
// +kubebuilder:resource:path=clusterrules,singular=clusterrules,scope=Cluster,shortName=crules
type ClusterRules struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// The rules.
	Spec v1.RulesSpec `json:"spec"`
	// What came of them.
	// +optional
	Status v1.RulesStatus `json:"status,omitempty"`
}

// GlobalRules is v1.GlobalRules.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:deprecatedversion
// +kubebuilder:resource:path=globalrules,singular=globalrules,scope=Cluster,shortName=grules
type GlobalRules struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// The rules.
	Spec v1.RulesSpec `json:"spec"`
	// What came of them.
	// +optional
	Status v1.RulesStatus `json:"status,omitempty"`
}

// OperatorConfig is v1.OperatorConfig.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:deprecatedversion
// +kubebuilder:resource:shortName=opcfg
type OperatorConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Evaluation of rules and delivery of alerts.
	// +optional
	Rules v1.RuleEvaluatorSpec `json:"rules,omitempty"`
	// Limits and times of rule evaluation.
	// +optional
	RuleEvaluation v1.RuleEvaluationSpec `json:"ruleEvaluation,omitempty"`
	// Where data is read by rules, and written by collectors and rules.
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=name
	// +optional
	Backends []v1.Backend `json:"backends,omitempty"`
	// What collectors do.
	// +optional
	Collection v1.CollectionSpec `json:"collection,omitempty"`
	// Further places that collectors write all samples to.
	// +kubebuilder:validation:MaxItems=100
	// +optional
	Exports []v1.ExportSpec `json:"exports,omitempty"`
	// The Alertmanager that comes with the operator.
	// +kubebuilder:default={configSecret: {name: alertmanager, key: alertmanager.yaml}}
	// +optional
	ManagedAlertmanager *v1.ManagedAlertmanagerSpec `json:"managedAlertmanager,omitempty"`
	// What can be turned on and off.
	// +optional
	Features v1.OperatorFeatures `json:"features,omitempty"`
	// How the workloads grow.
	// +optional
	Scaling v1.ScalingSpec `json:"scaling,omitempty"`
	// What came of it.
	// +optional
	Status v1.OperatorConfigStatus `json:"status,omitempty"`
}
