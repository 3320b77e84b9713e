package migrate

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// probe migrates a Probe with static targets whose prober is behind a Service of
// the input: each target becomes a PodMonitoring of the prober's pods, since
// what is scraped is the prober.
func (m *migration) probe(obj object) {
	spec, _ := obj.root.sub("spec")
	prober, _ := spec.sub("prober")
	list, _ := spec.sub("targets")
	static, isStatic := list.sub("staticConfig")
	var addresses []string
	static.into("static", &addresses)
	if !isStatic || len(addresses) == 0 {
		m.note(obj, Failed, "spec.targets", "only static targets have an equivalent: nothing discovers Ingresses")
		return
	}
	s, port, err := m.proberOf(obj, prober.text("url"))
	if err != nil {
		m.note(obj, Failed, "spec.prober.url", err.Error())
		return
	}
	t := m.monitorSpec(spec)
	spec.entries["path"], spec.entries["scheme"] = prober.take("path"), prober.take("scheme")
	module := spec.text("module")
	var own map[string]string
	static.into("labels", &own)
	endpoint := m.endpoint(obj, spec, &t)
	endpoint.Port = port
	endpoint.Path = cmp.Or(endpoint.Path, "/probe")
	endpoint.MetricRelabeling = append(labelRules(own), endpoint.MetricRelabeling...)
	m.left(obj, prober, nil)
	m.left(obj, static, nil)
	m.left(obj, list, nil)
	m.note(obj, Changed, "", "label target is what is probed, and instance a pod of the prober; every pod of it probes")
	for i, address := range addresses {
		m.pods(obj, metav1.ObjectMeta{Namespace: s.namespace, Name: objectName(obj.name, fmt.Sprint(i+1))},
			metav1.LabelSelector{MatchLabels: s.pods}, []v1.ScrapeEndpoint{probing(endpoint, module, address)}, t)
	}
}

// probing is the endpoint for one target.
func probing(e v1.ScrapeEndpoint, module, address string) v1.ScrapeEndpoint {
	e.Params = map[string][]string{"target": {address}}
	if module != "" {
		e.Params["module"] = []string{module}
	}
	e.MetricRelabeling = append(labelRules(map[string]string{"target": address}), e.MetricRelabeling...)
	return e
}

// labelRules set labels to texts.
func labelRules(texts map[string]string) []v1.RelabelingRule {
	var out []v1.RelabelingRule
	for _, name := range sorted(texts) {
		out = append(out, v1.RelabelingRule{TargetLabel: name, Replacement: strings.ReplaceAll(texts[name], "$", "$$")})
	}
	return out
}

// proberOf finds the Service that a prober's address is that of.
func (m *migration) proberOf(obj object, address string) (service, intstr.IntOrString, error) {
	u, err := url.Parse("http://" + address)
	if err != nil {
		return service{}, intstr.IntOrString{}, fmt.Errorf("%q is not an address", address)
	}
	name, rest, _ := strings.Cut(u.Hostname(), ".")
	namespace, _, _ := strings.Cut(rest, ".")
	namespace = cmp.Or(namespace, obj.namespace, "default")
	for _, candidate := range m.services {
		s := readService(candidate)
		if s.name != name || s.namespace != namespace || len(s.pods) == 0 {
			continue
		}
		if port, ok := s.ports[cmp.Or(u.Port(), "80")]; ok {
			return s, port, nil
		}
	}
	return service{}, intstr.IntOrString{}, fmt.Errorf("the pods of the prober are unknown: add Service %s/%s to the input", namespace, name)
}
