package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Rules are recording and alerting rules over the data of their own namespace:
// every selector is restricted to it and every result belongs to it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=rules,singular=rules,shortName=prules
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether rule evaluators get it"
// +kubebuilder:printcolumn:name="Rules",type=integer,JSONPath=`.status.activeRules`,description="Rules that are evaluated"
// +kubebuilder:printcolumn:name="Failing",type=integer,JSONPath=`.status.failingRules`,description="Rules whose last evaluation failed"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].message`,description="Why rule evaluators don't get it",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Rules struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// The rules.
	Spec RulesSpec `json:"spec"`
	// What came of them.
	// +optional
	Status RulesStatus `json:"status,omitempty"`
}

// RulesList is a list of Rules.
// +kubebuilder:object:root=true
type RulesList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Rules `json:"items"`
}

// ClusterRules are recording and alerting rules over the data of their own
// cluster: every selector is restricted to it and every result belongs to it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=clusterrules,singular=clusterrules,scope=Cluster,shortName=crules
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether rule evaluators get it"
// +kubebuilder:printcolumn:name="Rules",type=integer,JSONPath=`.status.activeRules`,description="Rules that are evaluated"
// +kubebuilder:printcolumn:name="Failing",type=integer,JSONPath=`.status.failingRules`,description="Rules whose last evaluation failed"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].message`,description="Why rule evaluators don't get it",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterRules struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// The rules.
	Spec RulesSpec `json:"spec"`
	// What came of them.
	// +optional
	Status RulesStatus `json:"status,omitempty"`
}

// ClusterRulesList is a list of ClusterRules.
// +kubebuilder:object:root=true
type ClusterRulesList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterRules `json:"items"`
}

// GlobalRules are recording and alerting rules over all data of all clusters.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=globalrules,singular=globalrules,scope=Cluster,shortName=grules
// +kubebuilder:printcolumn:name="Configured",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].status`,description="Whether rule evaluators get it"
// +kubebuilder:printcolumn:name="Rules",type=integer,JSONPath=`.status.activeRules`,description="Rules that are evaluated"
// +kubebuilder:printcolumn:name="Failing",type=integer,JSONPath=`.status.failingRules`,description="Rules whose last evaluation failed"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ConfigurationCreateSuccess")].message`,description="Why rule evaluators don't get it",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GlobalRules struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// The rules.
	Spec RulesSpec `json:"spec"`
	// What came of them.
	// +optional
	Status RulesStatus `json:"status,omitempty"`
}

// GlobalRulesList is a list of GlobalRules.
// +kubebuilder:object:root=true
type GlobalRulesList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GlobalRules `json:"items"`
}

// RulesSpec holds groups of rules. Names of groups need to differ within one
// resource only.
type RulesSpec struct {
	// Groups of rules that are evaluated together, in order.
	Groups []RuleGroup `json:"groups"`
}

// RuleGroup holds rules that are evaluated together, in order.
type RuleGroup struct {
	// Name of the group.
	Name string `json:"name"`
	// Time between two evaluations.
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	Interval string `json:"interval,omitempty"`
	// How far in the past rules are evaluated, for data that arrives late.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	QueryOffset string `json:"query_offset,omitempty"`
	// Number of series that a recording rule may produce, or of alerts that an
	// alerting rule may have; beyond it the evaluation fails. Zero or missing
	// means no bound.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Limit int32 `json:"limit,omitempty"`
	// Labels of the results of all rules, unless a rule has the label itself.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// What to do if a part of the data can't be read: abort, which is the default,
	// fails the evaluation; warn uses the rest and marks the results.
	// +kubebuilder:validation:Enum=abort;ABORT;warn;WARN
	// +optional
	PartialResponseStrategy string `json:"partial_response_strategy,omitempty"`
	// The rules.
	// +kubebuilder:validation:MinItems=1
	Rules []Rule `json:"rules"`
}

// Rule records the result of an expression, or raises an alert for each series
// of it.
// +kubebuilder:validation:XValidation:rule="has(self.record) != has(self.alert)",message="Must set exactly one of Record or Alert"
// +kubebuilder:validation:XValidation:rule="!has(self.annotations) || self.annotations.size() == 0 || has(self.alert)",message="Annotations are only allowed for alerting rules"
// +kubebuilder:validation:XValidation:rule="!has(self.keep_firing_for) || has(self.alert)",message="keep_firing_for is only allowed for alerting rules"
type Rule struct {
	// Name of the metric that is recorded.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_:][a-zA-Z0-9_:]*$`
	// +optional
	Record string `json:"record,omitempty"`
	// Name of the alert.
	// +optional
	Alert string `json:"alert,omitempty"`
	// PromQL expression.
	Expr string `json:"expr"`
	// How long an alert is pending before it fires.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	For string `json:"for,omitempty"`
	// How long an alert goes on firing after its condition has ended.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$`
	// +optional
	KeepFiringFor string `json:"keep_firing_for,omitempty"`
	// Labels of the results; templates in those of alerts are filled in.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Texts that go with an alert; templates in them are filled in.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}
