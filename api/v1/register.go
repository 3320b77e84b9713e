package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of all kinds in this package.
var GroupVersion = schema.GroupVersion{Group: "monitoring.googleapis.com", Version: "v1"}

// AddToScheme makes a client know all kinds of this package and their lists.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&PodMonitoring{}, &PodMonitoringList{},
		&ClusterPodMonitoring{}, &ClusterPodMonitoringList{},
		&ClusterNodeMonitoring{}, &ClusterNodeMonitoringList{},
		&Rules{}, &RulesList{},
		&ClusterRules{}, &ClusterRulesList{},
		&GlobalRules{}, &GlobalRulesList{},
		&OperatorConfig{}, &OperatorConfigList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
