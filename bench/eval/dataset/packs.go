package dataset

// entry is a rule of a pack. In the expression $w is the window of the pack's
// generation.
type entry struct {
	// record names a recorded series, alert an alert; one of them is set.
	record, alert string
	expr          string
	// above, if set, is the threshold of an alert, which grows with the
	// generation.
	above float64
}

// The expressions that several rules of the tenants' pack build on.
const (
	requests   = `sum by (workload) (rate(http_requests_total[$w]))`
	errorRatio = `sum by (workload) (rate(http_requests_total{code=~"5.."}[$w])) / ` + requests
	p99        = `histogram_quantile(0.99, sum by (workload, le) (rate(http_request_duration_seconds_bucket[$w])))`
)

// tenantPack is what a team installs in its namespace.
var tenantPack = []entry{
	{record: "namespace:container_cpu_usage:rate", expr: `sum(rate(container_cpu_usage_seconds_total{container!=""}[$w]))`},
	{record: "workload:container_cpu_usage:rate", expr: `sum by (workload) (rate(container_cpu_usage_seconds_total{container!=""}[$w]))`},
	{record: "pod:container_cpu_usage:rate", expr: `sum by (workload, pod) (rate(container_cpu_usage_seconds_total{container!=""}[$w]))`},
	{record: "workload:container_memory_working_set_bytes:sum", expr: `sum by (workload) (container_memory_working_set_bytes{container!=""})`},
	{record: "workload:resource_requests:sum", expr: `sum by (workload, resource) (kube_pod_container_resource_requests * on (pod) group_left () (kube_pod_status_phase{phase="Running"} == 1))`},
	{record: "workload:http_requests:rate", expr: requests},
	{record: "workload_code:http_requests:rate", expr: `sum by (workload, code) (rate(http_requests_total[$w]))`},
	{record: "workload:http_errors:ratio", expr: errorRatio},
	{record: "workload:http_request_duration_seconds:p99", expr: p99},
	{record: "workload:http_request_duration_seconds:p50", expr: `histogram_quantile(0.5, sum by (workload, le) (rate(http_request_duration_seconds_bucket[$w])))`},
	{record: "workload:http_request_duration_seconds:mean", expr: `sum by (workload) (rate(http_request_duration_seconds_sum[$w])) / sum by (workload) (rate(http_request_duration_seconds_count[$w]))`},
	{record: "workload:rpc_duration_seconds:p99", expr: `histogram_quantile(0.99, sum by (workload) (rate(rpc_duration_seconds[$w])))`},
	{record: "workload:network_receive_bytes:rate", expr: `sum by (workload) (rate(container_network_receive_bytes_total[$w]))`},
	{record: "workload:network_transmit_bytes:rate", expr: `sum by (workload) (rate(container_network_transmit_bytes_total[$w]))`},
	{alert: "PodRestarts", expr: `increase(kube_pod_container_status_restarts_total[$w])`, above: 3},
	{alert: "PodNotReady", expr: `sum by (pod) (max by (pod, phase) (kube_pod_status_phase{phase=~"Pending|Unknown|Failed"}))`, above: 0.5},
	{alert: "CPUThrottled", expr: `sum by (pod) (rate(container_cpu_cfs_throttled_periods_total[$w])) / sum by (pod) (rate(container_cpu_cfs_periods_total[$w]))`, above: 0.13},
	{alert: "MemoryNearLimit", expr: `max by (pod) (container_memory_working_set_bytes{container!=""}) / on (pod) max by (pod) (kube_pod_container_resource_limits{resource="memory"})`, above: 0.95},
	{alert: "ErrorRate", expr: errorRatio, above: 0.02},
	{alert: "Latency", expr: p99, above: 2},
	{alert: "TargetsDown", expr: `100 * (count by (job) (up == 0) / count by (job) (up))`, above: 3},
	{alert: "ReplicasMissing", expr: `(kube_deployment_spec_replicas != kube_deployment_status_replicas_available) and (changes(kube_deployment_status_replicas_updated[$w]) == 0)`},
	{alert: "GoroutinesGrow", expr: `deriv(go_goroutines[$w])`, above: 0.1},
	{alert: "MemoryGrows", expr: `predict_linear(process_resident_memory_bytes[$w], 3600)`, above: 2e9},
	{alert: "NoTargets", expr: `absent(up{job="apps"})`},
}

// nodeOfPod joins what is known of a pod with its node.
const nodeOfPod = ` * on (cluster, namespace, pod) group_left (node) topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))`

// clusterPack is about the nodes and all pods of one cluster.
var clusterPack = []entry{
	{record: "instance:node_num_cpu:sum", expr: `count without (cpu, mode) (node_cpu_seconds_total{mode="idle"})`},
	{record: "instance:node_cpu_utilisation:rate", expr: `1 - avg without (cpu) (sum without (mode) (rate(node_cpu_seconds_total{mode=~"idle|iowait|steal"}[$w])))`},
	{record: "instance:node_load1_per_cpu:ratio", expr: `node_load1 / count without (cpu, mode) (node_cpu_seconds_total{mode="idle"})`},
	{record: "instance:node_memory_utilisation:ratio", expr: `1 - (node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)`},
	{record: "instance:node_network_receive_bytes:rate", expr: `sum without (device) (rate(node_network_receive_bytes_total{device!="lo"}[$w]))`},
	{record: "instance:node_network_transmit_bytes:rate", expr: `sum without (device) (rate(node_network_transmit_bytes_total{device!="lo"}[$w]))`},
	{record: "cluster:node_cpu:ratio_rate", expr: `sum by (cluster) (rate(node_cpu_seconds_total{mode!="idle"}[$w])) / count by (cluster) (sum by (cluster, instance, cpu) (node_cpu_seconds_total))`},
	{record: "node_namespace_pod:kube_pod_info:", expr: `topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))`},
	{record: "node_namespace_pod_container:container_cpu_usage:irate", expr: `sum by (cluster, namespace, pod, container) (irate(container_cpu_usage_seconds_total{container!=""}[$w]))` + nodeOfPod},
	{record: "node_namespace_pod_container:container_memory_working_set_bytes", expr: `sum by (cluster, namespace, pod, container) (container_memory_working_set_bytes{container!=""})` + nodeOfPod},
	{record: "cluster:namespace:pod_cpu:active:requests", expr: `sum by (cluster, namespace) (sum by (cluster, namespace, pod) (max by (cluster, namespace, pod, container) (kube_pod_container_resource_requests{resource="cpu"})) * on (cluster, namespace, pod) group_left () max by (cluster, namespace, pod) (kube_pod_status_phase{phase=~"Pending|Running"} == 1))`},
	{record: "namespace_cpu:container_cpu_usage:rate", expr: `sum by (cluster, namespace) (rate(container_cpu_usage_seconds_total{container!=""}[$w]))`},
	{record: "cluster:http_requests:rate", expr: `sum by (cluster, code) (rate(http_requests_total[$w]))`},
	{record: "cluster:http_request_duration_seconds:p99", expr: `histogram_quantile(0.99, sum by (cluster, le) (rate(http_request_duration_seconds_bucket[$w])))`},
	{record: "cluster:rpc_duration_seconds:p99", expr: `histogram_quantile(0.99, sum by (cluster) (rate(rpc_duration_seconds[$w])))`},
	{alert: "FilesystemAlmostFull", expr: `(node_filesystem_avail_bytes / node_filesystem_size_bytes * 100 < 52) and node_filesystem_readonly == 0`},
	{alert: "FilesystemFillsUp", expr: `predict_linear(node_filesystem_avail_bytes[$w], 24 * 3600) < 0 and node_filesystem_readonly == 0`},
	{alert: "NetworkReceiveErrors", expr: `rate(node_network_receive_errs_total[$w]) / rate(node_network_receive_packets_total[$w])`, above: 1.2},
	{alert: "NodeNotReady", expr: `kube_node_status_condition{condition="Ready", status="true"} == 0`},
	{alert: "CPUOvercommitted", expr: `sum by (cluster) (kube_pod_container_resource_requests{resource="cpu"}) / sum by (cluster) (kube_node_status_allocatable{resource="cpu"})`, above: 1e12},
	{alert: "TooManyPods", expr: `count by (cluster, node) (kube_pod_info{node!=""}) / max by (cluster, node) (kube_node_status_allocatable{resource="pods"})`, above: 0.15},
	{alert: "NodesDown", expr: `100 * (count by (cluster, job) (up == 0) / count by (cluster, job) (up))`, above: 3},
	{alert: "LoadHigh", expr: `node_load1 / count without (cpu, mode) (node_cpu_seconds_total{mode="idle"})`, above: 0.9},
	{alert: "NodeExporterAbsent", expr: `absent(up{job="node-exporter"} == 1)`},
}

// globalPack is about the whole fleet.
var globalPack = []entry{
	{record: "fleet:up:ratio", expr: `sum(up) / count(up)`},
	{record: "cluster:up:sum", expr: `sum by (cluster) (up)`},
	{record: "fleet:http_requests:rate", expr: `sum(rate(http_requests_total[$w]))`},
	{record: "fleet_code:http_requests:rate", expr: `sum by (code) (rate(http_requests_total[$w]))`},
	{record: "fleet:http_errors:ratio", expr: `sum(rate(http_requests_total{code=~"5.."}[$w])) / sum(rate(http_requests_total[$w]))`},
	{record: "fleet:http_request_duration_seconds:p99", expr: `histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[$w])))`},
	{record: "cluster:http_request_duration_seconds:p90", expr: `histogram_quantile(0.9, sum by (cluster, le) (rate(http_request_duration_seconds_bucket[$w])))`},
	{record: "fleet:node_load1:max", expr: `max by (cluster) (node_load1)`},
	{record: "fleet:node_cpu:ratio_rate", expr: `1 - avg(rate(node_cpu_seconds_total{mode="idle"}[$w]))`},
	{record: "namespace:container_memory_working_set_bytes:sum", expr: `sum by (namespace) (container_memory_working_set_bytes{container!=""})`},
	{record: "fleet:container_cpu_usage:top", expr: `topk(10, sum by (cluster, namespace) (rate(container_cpu_usage_seconds_total{container!=""}[$w])))`},
	{alert: "FleetErrorRate", expr: `sum by (namespace) (rate(http_requests_total{code=~"5.."}[$w])) / sum by (namespace) (rate(http_requests_total[$w]))`, above: 0.01},
	{alert: "FleetTargetsDown", expr: `100 * (count by (job) (up == 0) / count by (job) (up))`, above: 1},
	{alert: "ClusterQuiet", expr: `sum by (cluster) (rate(http_requests_total[$w])) < 0.01 * scalar(sum(rate(http_requests_total[$w])))`},
	{alert: "ClusterHot", expr: `avg by (cluster) (node_load1) > on () group_left () (1.5 * avg(node_load1))`},
}
