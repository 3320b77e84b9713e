package render

import (
	"github.com/prometheus/common/config"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/relabel"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// unusedCadvisor are metrics of the kubelet's cAdvisor with many series and
// little use. What Prometheus' rules for Kubernetes drop beside these is
// exposed by kubelets only that are older than what the resources run on.
const unusedCadvisor = "container_(network_tcp_usage_total|network_udp_usage_total|tasks_state|cpu_load_average_10s|blkio_device_usage_total|memory_failures_total)"

// kubeletJobs scrape the collector's own node's kubelet, and the cAdvisor in it.
func kubeletJobs(k *v1.KubeletScraping) ([]*promconfig.ScrapeConfig, error) {
	if k == nil {
		return nil, nil
	}
	interval, err := duration("collection.kubeletScraping.interval", k.Interval)
	if err != nil {
		return nil, err
	}
	var jobs []*promconfig.ScrapeConfig
	for _, part := range []struct{ name, path string }{{"cadvisor", "/metrics/cadvisor"}, {"metrics", "/metrics"}} {
		job := &promconfig.ScrapeConfig{
			JobName:                 "kubelet/" + part.name,
			ScrapeInterval:          interval,
			MetricsPath:             part.path,
			Scheme:                  "https",
			EnableCompression:       true,
			ServiceDiscoveryConfigs: onNode(kubernetes.RoleNode, "metadata.name"),
			HTTPClientConfig:        config.HTTPClientConfig{TLSConfig: config.TLSConfig{InsecureSkipVerify: k.TLSInsecureSkipVerify}},
			RelabelConfigs: []*relabel.Config{
				setLabel(jobLabel, "kubelet"),
				copyLabel("node", nodeNameMeta),
				rewrite(instanceLabel, "$1:"+part.name, anything, nodeNameMeta),
			},
		}
		asServiceAccount(&job.HTTPClientConfig)
		if part.name == "cadvisor" {
			job.MetricRelabelConfigs = []*relabel.Config{dropIf(relabel.MustNewRegexp(unusedCadvisor), "__name__")}
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}
