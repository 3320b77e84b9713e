package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Resource is what all kinds of this package have in common.
//
// +kubebuilder:object:generate=false
type Resource interface {
	metav1.Object
	// GetKey names a resource in the whole cluster: its kind, its namespace if it
	// has one, and its name. Scrape jobs and scrape pools are named by what they
	// come from: "PodMonitoring/shop/api/web" is port "web" of PodMonitoring
	// shop/api.
	GetKey() string
	// GetMonitoringStatus is the part of the status that all kinds have. Changes
	// of it are changes of the resource.
	GetMonitoringStatus() *MonitoringStatus
}

var (
	_ Resource = (*PodMonitoring)(nil)
	_ Resource = (*ClusterPodMonitoring)(nil)
	_ Resource = (*ClusterNodeMonitoring)(nil)
	_ Resource = (*Rules)(nil)
	_ Resource = (*ClusterRules)(nil)
	_ Resource = (*GlobalRules)(nil)
	_ Resource = (*OperatorConfig)(nil)
)

// GetKey implements Resource.
func (p *PodMonitoring) GetKey() string { return "PodMonitoring/" + p.Namespace + "/" + p.Name }

// GetKey implements Resource.
func (c *ClusterPodMonitoring) GetKey() string { return "ClusterPodMonitoring/" + c.Name }

// GetKey implements Resource.
func (c *ClusterNodeMonitoring) GetKey() string { return "ClusterNodeMonitoring/" + c.Name }

// GetKey implements Resource.
func (r *Rules) GetKey() string { return "Rules/" + r.Namespace + "/" + r.Name }

// GetKey implements Resource.
func (r *ClusterRules) GetKey() string { return "ClusterRules/" + r.Name }

// GetKey implements Resource.
func (r *GlobalRules) GetKey() string { return "GlobalRules/" + r.Name }

// GetKey implements Resource.
func (c *OperatorConfig) GetKey() string { return "OperatorConfig/" + c.Namespace + "/" + c.Name }

// GetMonitoringStatus implements Resource.
func (p *PodMonitoring) GetMonitoringStatus() *MonitoringStatus { return &p.Status.MonitoringStatus }

// GetMonitoringStatus implements Resource.
func (c *ClusterPodMonitoring) GetMonitoringStatus() *MonitoringStatus {
	return &c.Status.MonitoringStatus
}

// GetMonitoringStatus implements Resource.
func (c *ClusterNodeMonitoring) GetMonitoringStatus() *MonitoringStatus {
	return &c.Status.MonitoringStatus
}

// GetMonitoringStatus implements Resource.
func (r *Rules) GetMonitoringStatus() *MonitoringStatus { return &r.Status.MonitoringStatus }

// GetMonitoringStatus implements Resource.
func (r *ClusterRules) GetMonitoringStatus() *MonitoringStatus { return &r.Status.MonitoringStatus }

// GetMonitoringStatus implements Resource.
func (r *GlobalRules) GetMonitoringStatus() *MonitoringStatus { return &r.Status.MonitoringStatus }

// GetMonitoringStatus implements Resource.
func (c *OperatorConfig) GetMonitoringStatus() *MonitoringStatus { return &c.Status.MonitoringStatus }
