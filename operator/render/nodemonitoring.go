package render

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/config"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/relabel"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

const (
	// serviceAccount has what the collector shows to the kubelet.
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

	nodeNameMeta = "__meta_kubernetes_node_name"
)

// replaced are the ClusterNodeMonitorings that collection.kubeletScraping does
// the work of.
var replaced = []string{"gmp-kubelet-metrics", "gmp-kubelet-cadvisor"}

// ClusterNodeMonitoring renders the jobs of a ClusterNodeMonitoring, one for
// each endpoint. The error names every field at fault. There is nothing to do
// for those that collection.kubeletScraping takes the place of.
func (r *Renderer) ClusterNodeMonitoring(m *v1.ClusterNodeMonitoring) (Piece, error) {
	if r.config.Collection.KubeletScraping != nil && slices.Contains(replaced, m.Name) {
		return Piece{Key: m.GetKey()}, nil
	}
	selection, errSelector := selected(node, m.Spec.Selector)
	template, errLimits := limited(m.Spec.Limits)
	errs := []error{errSelector, checkKeys(m.Spec.Selector, nil), errLimits}
	creds := &credentials{scope: anyNamespace}
	paths := paths{}
	var jobs []*promconfig.ScrapeConfig
	for i, e := range m.Spec.Endpoints {
		field := fmt.Sprintf("spec.endpoints[%d].", i)
		job, err := nodeJob(template, field, e, creds)
		also, errPath := paths.add(i, fmt.Sprint(e.Port), pathOf(e.Path))
		if err := errors.Join(err, errPath); err != nil {
			errs = append(errs, err)
			continue
		}
		job.JobName = m.GetKey() + nodePort(e.Port) + pathOf(e.Path)
		job.RelabelConfigs = slices.Concat(selection, nodeTargets(m.Name, e, also), r.placeRules())
		jobs = append(jobs, job)
	}
	if err := errors.Join(append(errs, creds.errs...)...); err != nil {
		return Piece{}, err
	}
	return scrapePiece(m.GetKey(), jobs, creds.keys)
}

func nodeJob(template promconfig.ScrapeConfig, field string, e v1.ScrapeNodeEndpoint, creds *credentials) (*promconfig.ScrapeConfig, error) {
	var errPort error
	if e.Port < 0 || e.Port > 65535 {
		errPort = fmt.Errorf("%sport: %d is not between 1 and 65535", field, e.Port)
	}
	job, err := scrapeJob(template, endpoint{
		field:  field,
		scheme: e.Scheme, path: e.Path, params: e.Params,
		interval: cmp.Or(e.Interval, "1m"), timeout: e.Timeout,
		relabeling: e.MetricRelabeling,
		samples:    e.SampleOptions,
		client:     e.HTTPClientConfig,
	}, creds)
	if e.Port == 0 && e.Scheme == "https" {
		asServiceAccount(&job.HTTPClientConfig)
	}
	job.HTTPClientConfig.FollowRedirects = false
	job.HTTPClientConfig.EnableHTTP2 = false
	job.ServiceDiscoveryConfigs = onNode(kubernetes.RoleNode, "metadata.name")
	return job, errors.Join(errPort, err)
}

// asServiceAccount shows the token of the collector's service account, unless
// there are other credentials, and trusts the cluster's authority.
func asServiceAccount(c *config.HTTPClientConfig) {
	if c.Authorization == nil && c.BasicAuth == nil && c.OAuth2 == nil {
		c.Authorization = &config.Authorization{CredentialsFile: serviceAccount + "token"}
	}
	c.TLSConfig.CAFile = cmp.Or(c.TLSConfig.CAFile, serviceAccount+"ca.crt")
}

// nodeTargets sets the labels of an endpoint's targets. At the kubelet the path
// is what tells one from the other, at any other port the port is.
func nodeTargets(name string, e v1.ScrapeNodeEndpoint, also string) []*relabel.Config {
	instance := strings.TrimPrefix(pathOf(e.Path), "/")
	if e.Port != 0 {
		instance = fmt.Sprint(e.Port)
	}
	rules := []*relabel.Config{
		setLabel(jobLabel, name),
		copyLabel("node", nodeNameMeta),
		rewrite(instanceLabel, "$1:"+literal(instance), anything, nodeNameMeta),
	}
	if e.Port == 0 {
		return rules
	}
	address := rewrite("__address__", fmt.Sprintf("$1:%d", e.Port), relabel.MustNewRegexp(`(.+):\d+`), "__address__")
	return slices.Concat(rules, []*relabel.Config{address}, pathRules(also))
}

// nodePort is what tells the job of a port from those of the kubelet.
func nodePort(port int32) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprintf("/%d", port)
}
