package migrate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// targets is what all endpoints of a monitor have in common.
type targets struct {
	limits        v1.ScrapeLimits
	samples       v1.SampleOptions
	filterRunning *bool
	fromPod       []v1.LabelMapping
	also          []string
	// secrets is the namespace that references to Secrets need to name.
	secrets string
}

// label adds a label of pods, once.
func (t *targets) label(l v1.LabelMapping) {
	if !slices.Contains(t.fromPod, l) {
		t.fromPod = append(t.fromPod, l)
	}
}

// metadata adds a label that is not there by default, once.
func (t *targets) metadata(name string) {
	if name == "node" && !slices.Contains(t.also, name) {
		t.also = append(t.also, name)
	}
}

// metadataLabels are the default ones, with those that were asked for.
func (t *targets) metadataLabels(standard ...string) *[]string {
	if len(t.also) == 0 {
		return nil
	}
	all := slices.Concat(standard, t.also)
	slices.Sort(all)
	return &all
}

// monitorSpec takes what PodMonitor and ServiceMonitor have beside endpoints.
func (m *migration) monitorSpec(spec fields) targets {
	var t targets
	for key, target := range map[string]*uint64{
		"sampleLimit": &t.limits.Samples, "labelLimit": &t.limits.Labels, "targetLimit": &t.limits.Targets,
		"labelNameLengthLimit": &t.limits.LabelNameLength, "labelValueLengthLimit": &t.limits.LabelValueLength,
		"nativeHistogramBucketLimit": &t.limits.NativeHistogramBuckets,
	} {
		spec.into(key, target)
	}
	t.limits.BodySize = spec.text("bodySizeLimit")
	t.samples = v1.SampleOptions{
		ScrapeNativeHistograms:         spec.flag("scrapeNativeHistograms"),
		ScrapeClassicHistograms:        spec.flag("scrapeClassicHistograms"),
		ConvertClassicHistogramsToNHCB: spec.flag("convertClassicHistogramsToNHCB"),
	}
	var labels []string
	spec.into("podTargetLabels", &labels)
	for _, l := range labels {
		t.label(v1.LabelMapping{From: l})
	}
	return t
}

func (t *targets) limitsOrNone() *v1.ScrapeLimits {
	if t.limits == (v1.ScrapeLimits{}) {
		return nil
	}
	return &t.limits
}

// namespaces are those that a monitor is about; all of them if any is true.
func (m *migration) namespaces(obj object, spec fields) (names []string, any bool) {
	own := cmp.Or(obj.namespace, m.options.Namespace, "default")
	sel, ok := spec.sub("namespaceSelector")
	if !ok {
		return []string{own}, false
	}
	any = sel.is("any")
	sel.into("matchNames", &names)
	m.left(obj, sel, nil)
	if len(names) == 0 {
		names = []string{own}
	}
	return names, any
}

func selector(f fields) (sel metav1.LabelSelector, err error) {
	n := f.take("selector")
	if n == nil {
		return sel, nil
	}
	var tree any
	if err := n.Decode(&tree); err != nil {
		return sel, err
	}
	encoded, err := json.Marshal(tree)
	if err != nil {
		return sel, err
	}
	return sel, json.Unmarshal(encoded, &sel)
}

func (m *migration) podMonitor(obj object) {
	spec, _ := obj.root.sub("spec")
	sel, err := selector(spec)
	if err != nil {
		m.note(obj, Failed, "spec.selector", err.Error())
		return
	}
	namespaces, any := m.namespaces(obj, spec)
	t := m.monitorSpec(spec)
	t.secrets = secretsNamespace(obj, any)
	var endpoints []v1.ScrapeEndpoint
	for _, e := range spec.subs("podMetricsEndpoints") {
		port, ok := podPort(e)
		if !ok {
			m.note(obj, Failed, e.path, "names no port")
			return
		}
		endpoint := m.endpoint(obj, e, &t)
		endpoint.Port = port
		endpoints = append(endpoints, endpoint)
	}
	obj.root.take("status")
	m.left(obj, spec, endpointReasons)
	m.left(obj, obj.root, nil)
	if any {
		m.clusterPods(obj, objectName(obj.namespace, obj.name), sel, endpoints, t)
		return
	}
	for _, namespace := range namespaces {
		m.pods(obj, metav1.ObjectMeta{Namespace: namespace, Name: obj.name}, sel, endpoints, t)
	}
}

// secretsNamespace is what a resource of the cluster has to say of Secrets; one
// of a namespace has no choice.
func secretsNamespace(obj object, cluster bool) string {
	if !cluster {
		return ""
	}
	return cmp.Or(obj.namespace, "default")
}

// podPort takes the port of an endpoint: its name, or its number.
func podPort(e fields) (intstr.IntOrString, bool) {
	name, number, target := e.text("port"), e.text("portNumber"), e.text("targetPort")
	text := cmp.Or(name, number, target)
	return intstr.Parse(text), text != ""
}

// pods makes a PodMonitoring.
func (m *migration) pods(obj object, meta metav1.ObjectMeta, sel metav1.LabelSelector, endpoints []v1.ScrapeEndpoint, t targets) {
	out := &v1.PodMonitoring{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: "PodMonitoring"},
		ObjectMeta: meta,
		Spec: v1.PodMonitoringSpec{
			Selector:      sel,
			Endpoints:     endpoints,
			TargetLabels:  v1.TargetLabels{Metadata: t.metadataLabels("container", "pod", "top_level_controller_name", "top_level_controller_type"), FromPod: t.fromPod},
			Limits:        t.limitsOrNone(),
			FilterRunning: t.filterRunning,
		},
	}
	m.noteLabels(obj, meta.Name)
	if obj.namespace != "" && obj.namespace != meta.Namespace && usesSecrets(endpoints) {
		m.note(obj, Lost, "", fmt.Sprintf("its Secrets have to be in namespace %s, too", meta.Namespace))
	}
	_, err := m.renderer.PodMonitoring(out)
	m.emit(obj, out.GetKey(), out, err)
}

// clusterPods makes a ClusterPodMonitoring.
func (m *migration) clusterPods(obj object, name string, sel metav1.LabelSelector, endpoints []v1.ScrapeEndpoint, t targets) {
	out := &v1.ClusterPodMonitoring{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: "ClusterPodMonitoring"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.ClusterPodMonitoringSpec{
			Selector:      sel,
			Endpoints:     endpoints,
			TargetLabels:  v1.ClusterTargetLabels{Metadata: t.metadataLabels("container", "namespace", "pod", "top_level_controller_name", "top_level_controller_type"), FromPod: t.fromPod},
			Limits:        t.limitsOrNone(),
			FilterRunning: t.filterRunning,
		},
	}
	m.noteLabels(obj, name)
	_, err := m.renderer.ClusterPodMonitoring(out)
	m.emit(obj, out.GetKey(), out, err)
}

func (m *migration) noteLabels(obj object, name string) {
	m.note(obj, Changed, "", fmt.Sprintf("label job is %q, instance is the pod, or the node of a DaemonSet's, and the port; there is no label endpoint or service", name))
}

func usesSecrets(endpoints []v1.ScrapeEndpoint) bool {
	return slices.ContainsFunc(endpoints, func(e v1.ScrapeEndpoint) bool {
		return e.Authorization != nil || e.BasicAuth != nil || e.OAuth2 != nil || e.TLS != nil && (e.TLS.CA != nil || e.TLS.Cert != nil)
	})
}
