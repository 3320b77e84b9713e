package v1

// The keys name a resource in the whole cluster: its kind, its namespace if it
// has one, and its name. Scrape jobs and scrape pools are named by what they
// come from, so "PodMonitoring/shop/api/web" is port "web" of the first below.

// GetKey returns "PodMonitoring/NAMESPACE/NAME".
func (p *PodMonitoring) GetKey() string { return "PodMonitoring/" + p.Namespace + "/" + p.Name }

// GetKey returns "ClusterPodMonitoring/NAME".
func (c *ClusterPodMonitoring) GetKey() string { return "ClusterPodMonitoring/" + c.Name }

// GetKey returns "ClusterNodeMonitoring/NAME".
func (c *ClusterNodeMonitoring) GetKey() string { return "ClusterNodeMonitoring/" + c.Name }

// GetKey returns "Rules/NAMESPACE/NAME".
func (r *Rules) GetKey() string { return "Rules/" + r.Namespace + "/" + r.Name }

// GetKey returns "ClusterRules/NAME".
func (r *ClusterRules) GetKey() string { return "ClusterRules/" + r.Name }

// GetKey returns "GlobalRules/NAME".
func (r *GlobalRules) GetKey() string { return "GlobalRules/" + r.Name }

// GetKey returns "OperatorConfig/NAMESPACE/NAME".
func (c *OperatorConfig) GetKey() string { return "OperatorConfig/" + c.Namespace + "/" + c.Name }
