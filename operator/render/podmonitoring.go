package render

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/util/strutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// podScrape is what PodMonitoring and ClusterPodMonitoring have in common.
type podScrape struct {
	key, name string
	// namespace is the only one whose pods are scraped, "" for all.
	namespace string
	selector  metav1.LabelSelector
	endpoints []v1.ScrapeEndpoint
	metadata  []string
	// permitted are the metadata labels that the kind has.
	permitted     []string
	fromPod       []v1.LabelMapping
	limits        *v1.ScrapeLimits
	filterRunning *bool
	secrets       secretScope
}

// PodMonitoring renders the jobs of a PodMonitoring, one for each endpoint. The
// error names every field at fault.
func (r *Renderer) PodMonitoring(m *v1.PodMonitoring) (Piece, error) {
	return r.podJobs(podScrape{
		key:           m.GetKey(),
		name:          m.Name,
		namespace:     m.Namespace,
		selector:      m.Spec.Selector,
		endpoints:     m.Spec.Endpoints,
		metadata:      metadata(m.Spec.TargetLabels.Metadata, nil),
		permitted:     podMetadata[1:],
		fromPod:       m.Spec.TargetLabels.FromPod,
		limits:        m.Spec.Limits,
		filterRunning: m.Spec.FilterRunning,
		secrets:       onlyNamespace(m.Namespace),
	})
}

// ClusterPodMonitoring renders the jobs of a ClusterPodMonitoring, one for each
// endpoint. The error names every field at fault.
func (r *Renderer) ClusterPodMonitoring(m *v1.ClusterPodMonitoring) (Piece, error) {
	return r.podJobs(podScrape{
		key:           m.GetKey(),
		name:          m.Name,
		selector:      m.Spec.Selector,
		endpoints:     m.Spec.Endpoints,
		metadata:      metadata(m.Spec.TargetLabels.Metadata, podMetadata[:1]),
		permitted:     podMetadata,
		fromPod:       m.Spec.TargetLabels.FromPod,
		limits:        m.Spec.Limits,
		filterRunning: m.Spec.FilterRunning,
		secrets:       anyNamespace,
	})
}

// metadata is the list that is given, or what null stands for.
func metadata(list *[]string, null []string) []string {
	if list == nil {
		return null
	}
	return *list
}

func (r *Renderer) podJobs(p podScrape) (Piece, error) {
	shared, errShared := r.podTargets(p)
	labels, errLabels := podLabels(p)
	template, errLimits := limited(p.limits)
	creds := &credentials{scope: p.secrets}
	errs := []error{errShared, errLabels, errLimits}
	paths := paths{}
	var jobs []*config.ScrapeConfig
	for i, e := range p.endpoints {
		field := fmt.Sprintf("spec.endpoints[%d].", i)
		job, err := podJob(template, field, e, creds)
		ports, errPort := portRules(field, e.Port)
		also, errPath := paths.add(i, e.Port.String(), pathOf(e.Path))
		if err := errors.Join(err, errPort, errPath); err != nil {
			errs = append(errs, err)
			continue
		}
		job.JobName = p.key + "/" + e.Port.String() + also
		job.RelabelConfigs = slices.Concat(shared, ports, pathRules(also), labels)
		jobs = append(jobs, job)
	}
	if err := errors.Join(append(errs, creds.errs...)...); err != nil {
		return Piece{}, err
	}
	return scrapePiece(p.key, jobs, creds.keys)
}

func podJob(template config.ScrapeConfig, field string, e v1.ScrapeEndpoint, creds *credentials) (*config.ScrapeConfig, error) {
	job, err := scrapeJob(template, endpoint{
		field:  field,
		scheme: e.Scheme, path: e.Path, params: e.Params,
		interval: e.Interval, timeout: e.Timeout,
		relabeling: e.MetricRelabeling,
		samples:    e.SampleOptions,
		client:     e.HTTPClientConfig,
	}, creds)
	job.ServiceDiscoveryConfigs = onNode(kubernetes.RolePod, "spec.nodeName")
	return job, err
}

// podTargets selects pods and sets the labels that all endpoints share.
func (r *Renderer) podTargets(p podScrape) ([]*relabel.Config, error) {
	rules := r.placeRules()
	if p.namespace != "" {
		rules = append(rules, keepIf(exactly(p.namespace), "__meta_kubernetes_namespace"))
	}
	selection, errSelector := selected(pod, p.selector)
	rules = append(rules, selection...)
	errMetadata := checkMetadata(p)
	for _, name := range podMetadata {
		if slices.Contains(p.metadata, name) {
			rules = append(rules, metadataRules(name)...)
		}
	}
	if p.namespace != "" {
		rules = append(rules, copyLabel(namespaceLabel, "__meta_kubernetes_namespace"))
	}
	rules = append(rules, setLabel(jobLabel, p.name))
	if p.filterRunning == nil || *p.filterRunning {
		rules = append(rules, dropIf(relabel.MustNewRegexp("(Failed|Succeeded)"), "__meta_kubernetes_pod_phase"))
	}
	return append(rules, instanceRules()...), errors.Join(errSelector, errMetadata, checkKeys(p.selector, p.fromPod))
}

// checkKeys makes sure that no two labels that are used look alike.
func checkKeys(sel metav1.LabelSelector, mappings []v1.LabelMapping) error {
	keys := slices.Sorted(maps.Keys(sel.MatchLabels))
	fields := slices.Repeat([]string{"spec.selector.matchLabels"}, len(keys))
	for i, e := range sel.MatchExpressions {
		fields, keys = append(fields, fmt.Sprintf("spec.selector.matchExpressions[%d].key", i)), append(keys, e.Key)
	}
	for i, m := range mappings {
		fields, keys = append(fields, fmt.Sprintf("spec.targetLabels.fromPod[%d].from", i)), append(keys, m.From)
	}
	return distinct(fields, keys)
}

// podLabels makes labels of pods labels of targets.
func podLabels(p podScrape) ([]*relabel.Config, error) {
	var rules []*relabel.Config
	var errs []error
	for i, m := range p.fromPod {
		field := fmt.Sprintf("spec.targetLabels.fromPod[%d].", i)
		to, at := m.To, field+"to"
		if to == "" {
			to, at = strutil.SanitizeFullLabelName(m.From), field+"from"
		}
		if m.From == "" {
			errs = append(errs, fmt.Errorf("%sfrom: is empty", field))
		}
		if err := checkTarget(to); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		rules = append(rules, copyLabel(to, pod.label(m.From)))
	}
	return rules, errors.Join(errs...)
}

// portRules turn discovered ports into targets: those of a name, which is a
// regular expression, or one for each pod.
func portRules(field string, port intstr.IntOrString) ([]*relabel.Config, error) {
	if port.Type == intstr.Int {
		return numberRules(field, port.IntValue())
	}
	regex, err := ofUser(port.StrVal)
	if err != nil {
		return nil, fmt.Errorf("%sport: %w", field, err)
	}
	if port.StrVal == "" {
		return nil, fmt.Errorf("%sport: must be set", field)
	}
	const name = "__meta_kubernetes_pod_container_port_name"
	return []*relabel.Config{
		keepIf(regex, name),
		rewrite(instanceLabel, "$1:$2", relabel.MustNewRegexp("(.+);(.+)"), tmpInstance, name),
	}, nil
}

// numberRules make the targets of all containers and ports of a pod one. An
// IPv6 address needs brackets.
func numberRules(field string, port int) ([]*relabel.Config, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("%sport: %d is not between 1 and 65535", field, port)
	}
	const podIP = "__meta_kubernetes_pod_ip"
	return []*relabel.Config{
		{Regex: exactly("container"), Action: relabel.LabelDrop},
		rewrite(instanceLabel, fmt.Sprintf("$1:%d", port), anything, tmpInstance),
		rewrite("__address__", fmt.Sprintf("$1:%d", port), anything, podIP),
		rewrite("__address__", fmt.Sprintf("[$1]:%d", port), relabel.MustNewRegexp("(.*:.*)"), podIP),
	}, nil
}
