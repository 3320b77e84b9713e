// Package dataset makes the data and the rules that the evaluation benchmark
// runs on: a fleet of Kubernetes clusters with nodes, pods, counters, gauges,
// classic and native histograms, and rules about them in the manner of
// kube-prometheus, most of them owned by tenants.
//
// Everything is a function of the seed and the sizes, so that two runs have the
// same bytes. The package writes nothing, reads no clock and keeps no state; it
// is safe for concurrent use.
package dataset

import (
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
)

// Interval is the scrape interval and the interval of all groups, in
// milliseconds.
const Interval = 30_000

const (
	clusters        = 4
	podsPerNode     = 10
	podsPerWorkload = 5
	cpusPerNode     = 4
	// seriesPerNamespace is about what a tenant has: some 80 pods.
	seriesPerNamespace = 4000
)

// Fleet says how large the data set is.
type Fleet struct {
	Seed uint64
	// Series is the least number of series; whole nodes are made.
	Series int
	// Namespaces is their number in every cluster; 0 makes one for some 4,000
	// series.
	Namespaces int
}

// Clusters are the values of the label cluster.
func Clusters() []string {
	names := make([]string, clusters)
	for i := range names {
		names[i] = fmt.Sprintf("cluster-%d", i)
	}
	return names
}

// Tenants are the scopes of tenants: a cluster and a namespace in it. Those that
// follow each other are in different clusters.
func (f Fleet) Tenants() []labels.Labels {
	var all []labels.Labels
	for n := range f.namespaces() {
		for _, c := range Clusters() {
			all = append(all, labels.FromStrings("cluster", c, "namespace", namespace(n)))
		}
	}
	return all
}

// namespaces is the number of namespaces of a cluster.
func (f Fleet) namespaces() int {
	if f.Namespaces > 0 {
		return f.Namespaces
	}
	return max(2, f.Series/clusters/seriesPerNamespace)
}

func namespace(n int) string { return fmt.Sprintf("team-%02d", n) }

// Each calls visit for every series, cluster by cluster within a node.
func (f Fleet) Each(visit func(Series) error) error {
	m := &maker{fleet: f, visit: visit}
	for node := 0; m.made < f.Series && m.err == nil; node++ {
		for _, c := range Clusters() {
			m.node(c, node)
		}
	}
	return m.err
}

// maker hands out series and remembers the first error.
type maker struct {
	fleet Fleet
	visit func(Series) error
	made  int
	err   error
}

// add makes one series; kv are the labels besides those of the target.
func (m *maker) add(target labels.Labels, name string, v values, kv ...string) {
	if m.err != nil {
		return
	}
	b := labels.NewBuilder(target).Set(labels.MetricName, name)
	for i := 0; i < len(kv); i += 2 {
		b.Set(kv[i], kv[i+1])
	}
	ls := b.Labels()
	if v.family == "" {
		v.family = ls.String()
	}
	m.made++
	m.err = m.visit(Series{Labels: ls, seed: m.fleet.Seed, values: v})
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // a hash never fails
	return h.Sum64()
}

func (m *maker) node(cluster string, n int) {
	name := fmt.Sprintf("node-%04d", n)
	t := labels.FromStrings("cluster", cluster, "job", "node-exporter", "instance", name)
	for cpu := range cpusPerNode {
		for _, mode := range []string{"idle", "user", "system", "iowait", "steal", "irq", "softirq", "nice"} {
			m.add(t, "node_cpu_seconds_total", counter(0.1), "cpu", strconv.Itoa(cpu), "mode", mode)
		}
	}
	for _, g := range []string{"MemTotal", "MemAvailable", "Buffers", "Cached"} {
		m.add(t, "node_memory_"+g+"_bytes", gauge(16e9))
	}
	for _, mount := range []string{"/", "/var", "/data"} {
		m.add(t, "node_filesystem_avail_bytes", gauge(50e9), "mountpoint", mount, "fstype", "ext4")
		m.add(t, "node_filesystem_size_bytes", gauge(100e9), "mountpoint", mount, "fstype", "ext4")
		m.add(t, "node_filesystem_readonly", flag(0), "mountpoint", mount, "fstype", "ext4")
	}
	for _, device := range []string{"eth0", "lo"} {
		for _, c := range []string{"receive_bytes", "transmit_bytes", "receive_errs", "receive_packets"} {
			m.add(t, "node_network_"+c+"_total", counter(1000), "device", device)
		}
	}
	m.add(t, "node_load1", gauge(4))
	m.add(t, "up", flag(0.98))
	m.nodeState(cluster, name)
	for p := range podsPerNode {
		m.pod(cluster, name, n*podsPerNode+p)
	}
}

// kubeState is the target that reports about Kubernetes objects.
func kubeState(cluster string) labels.Labels {
	return labels.FromStrings("cluster", cluster, "job", "kube-state-metrics")
}

func (m *maker) nodeState(cluster, node string) {
	t := kubeState(cluster)
	for _, c := range []string{"Ready", "DiskPressure", "MemoryPressure", "PIDPressure"} {
		for _, status := range []string{"true", "false", "unknown"} {
			share := 0.0
			if (c == "Ready") == (status == "true") && status != "unknown" {
				share = 0.98
			}
			m.add(t, "kube_node_status_condition", flag(share), "node", node, "condition", c, "status", status)
		}
	}
	for _, r := range []string{"cpu", "memory", "pods"} {
		m.add(t, "kube_node_status_allocatable", gauge(100), "node", node, "resource", r)
	}
}

func (m *maker) pod(cluster, node string, n int) {
	w := n / podsPerWorkload
	ns := namespace(w % m.fleet.namespaces())
	workload, pod := fmt.Sprintf("app-%04d", w), fmt.Sprintf("app-%04d-%d", w, n%podsPerWorkload)
	object := labels.NewBuilder(kubeState(cluster)).Set("namespace", ns).Set("workload", workload).Labels()
	if n%podsPerWorkload == 0 {
		for _, g := range []string{"spec_replicas", "status_replicas_available", "status_replicas_updated"} {
			m.add(object, "kube_deployment_"+g, constant(podsPerWorkload))
		}
	}
	m.podState(object, node, pod)
	m.container(labels.FromStrings("cluster", cluster, "job", "kubelet", "namespace", ns, "workload", workload, "pod", pod))
	m.service(labels.FromStrings("cluster", cluster, "job", "apps", "namespace", ns, "workload", workload, "pod", pod, "instance", pod))
}

func (m *maker) podState(t labels.Labels, node, pod string) {
	m.add(t, "kube_pod_info", constant(1), "pod", pod, "node", node)
	for _, phase := range []string{"Running", "Pending", "Failed", "Succeeded", "Unknown"} {
		share := 0.01
		if phase == "Running" {
			share = 0.97
		}
		m.add(t, "kube_pod_status_phase", flag(share), "pod", pod, "phase", phase)
	}
	for _, r := range []string{"cpu", "memory"} {
		m.add(t, "kube_pod_container_resource_requests", gauge(2e9), "pod", pod, "container", "app", "resource", r)
		m.add(t, "kube_pod_container_resource_limits", gauge(3e9), "pod", pod, "container", "app", "resource", r)
	}
	m.add(t, "kube_pod_container_status_restarts_total", counter(0.0001), "pod", pod, "container", "app")
}

func (m *maker) container(t labels.Labels) {
	m.add(t, "container_cpu_usage_seconds_total", counter(0.4), "container", "app")
	m.add(t, "container_cpu_cfs_periods_total", counter(10), "container", "app")
	m.add(t, "container_cpu_cfs_throttled_periods_total", counter(1), "container", "app")
	m.add(t, "container_memory_working_set_bytes", gauge(2e9), "container", "app")
	m.add(t, "container_network_receive_bytes_total", counter(5000))
	m.add(t, "container_network_transmit_bytes_total", counter(5000))
}

func (m *maker) service(t labels.Labels) {
	m.add(t, "up", flag(0.98))
	m.add(t, "go_goroutines", gauge(200))
	m.add(t, "process_resident_memory_bytes", gauge(1e9))
	for _, c := range codes {
		m.add(t, "http_requests_total", counter(c.perSecond), "code", c.code)
	}
	family := t.String()
	for _, b := range bounds {
		m.add(t, "http_request_duration_seconds_bucket", bucket(family, b.share), "le", b.le)
	}
	m.add(t, "http_request_duration_seconds_count", bucket(family, 1))
	m.add(t, "http_request_duration_seconds_sum", bucket(family, 0.13))
	m.add(t, "rpc_duration_seconds", native())
}
