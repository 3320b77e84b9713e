package migrate

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// service is what a Service of the input says of pods.
type service struct {
	namespace, name string
	labels          map[string]string
	pods            map[string]string
	// ports are those of pods by name and by number of those of the Service.
	ports map[string]intstr.IntOrString
}

// readService reads a Service, which may be read again.
func readService(obj object) service {
	s := service{namespace: cmp.Or(obj.namespace, "default"), name: obj.name, ports: map[string]intstr.IntOrString{}}
	var doc struct {
		Selector map[string]string
		Ports    []struct {
			Name, Port string
			TargetPort string `yaml:"targetPort"`
		}
	}
	if n := obj.root.entries["spec"]; n != nil {
		_ = n.Decode(&doc) // What does not fit selects no pods.
	}
	s.labels, s.pods = obj.labels, doc.Selector
	for _, p := range doc.Ports {
		port := intstr.Parse(cmp.Or(p.TargetPort, p.Port))
		s.ports[p.Name], s.ports[p.Port] = port, port
	}
	return s
}

func (m *migration) serviceMonitor(obj object) {
	spec, _ := obj.root.sub("spec")
	sel, err := selector(spec)
	if err != nil {
		m.note(obj, Failed, "spec.selector", err.Error())
		return
	}
	namespaces, any := m.namespaces(obj, spec)
	found, err := m.selectedServices(sel, namespaces, any)
	if err != nil {
		m.note(obj, Failed, "spec.selector", err.Error())
		return
	}
	t := m.monitorSpec(spec)
	if len(found) == 0 {
		t.secrets = secretsNamespace(obj, any)
	}
	var endpoints []serviceEndpoint
	for _, e := range spec.subs("endpoints") {
		port := serviceEndpoint{at: e.path, name: e.text("port"), target: e.text("targetPort")}
		port.ScrapeEndpoint = m.endpoint(obj, e, &t)
		endpoints = append(endpoints, port)
	}
	obj.root.take("status")
	m.left(obj, spec, endpointReasons)
	m.left(obj, obj.root, nil)
	if len(found) == 0 {
		m.likePods(obj, endpoints, sel, t, namespaces, any)
	}
	for _, s := range found {
		m.podsOf(obj, s, len(found) > 1, endpoints, t)
	}
}

// serviceEndpoint is an endpoint whose port is one of Services, by name, or of
// their pods.
type serviceEndpoint struct {
	v1.ScrapeEndpoint

	at, name, target string
}

// likePods migrates a monitor whose Services are unknown, as if it were one of
// pods.
func (m *migration) likePods(obj object, endpoints []serviceEndpoint, sel metav1.LabelSelector, t targets, namespaces []string, any bool) {
	m.note(obj, Lost, "spec.selector", "no Service of the input fits, and so pods are taken to have its labels, and their ports the names of its ports: check that, or add Services to the input (kubectl get services -A -o yaml)")
	made := make([]v1.ScrapeEndpoint, len(endpoints))
	for i, e := range endpoints {
		made[i] = e.ScrapeEndpoint
		made[i].Port = intstr.Parse(cmp.Or(e.target, e.name))
	}
	if any {
		m.clusterPods(obj, objectName(obj.namespace, obj.name), sel, made, t)
		return
	}
	for _, namespace := range namespaces {
		m.pods(obj, metav1.ObjectMeta{Namespace: namespace, Name: obj.name}, sel, made, t)
	}
}

// podsOf makes the PodMonitoring of the pods behind one Service.
func (m *migration) podsOf(obj object, s service, several bool, endpoints []serviceEndpoint, t targets) {
	if len(s.pods) == 0 {
		m.note(obj, Failed, "", fmt.Sprintf("Service %s/%s selects no pods", s.namespace, s.name))
		return
	}
	var made []v1.ScrapeEndpoint
	for _, e := range endpoints {
		port, ok := s.ports[e.name]
		if e.target != "" {
			port, ok = intstr.Parse(e.target), true
		}
		if !ok {
			m.note(obj, Lost, e.at, fmt.Sprintf("Service %s/%s has no port %q", s.namespace, s.name, e.name))
			continue
		}
		e.Port = port
		made = append(made, e.ScrapeEndpoint)
	}
	name := obj.name
	if several {
		name = objectName(obj.name, s.name)
	}
	m.pods(obj, metav1.ObjectMeta{Namespace: s.namespace, Name: name}, metav1.LabelSelector{MatchLabels: s.pods}, made, t)
}

// selectedServices are the Services of the input that a monitor is about.
func (m *migration) selectedServices(sel metav1.LabelSelector, namespaces []string, any bool) ([]service, error) {
	matcher, err := metav1.LabelSelectorAsSelector(&sel)
	if err != nil {
		return nil, err
	}
	var out []service
	for _, obj := range m.services {
		s := readService(obj)
		if (any || slices.Contains(namespaces, s.namespace)) && matcher.Matches(labels.Set(s.labels)) {
			out = append(out, s)
		}
	}
	return out, nil
}
