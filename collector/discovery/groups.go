package discovery

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/util/strutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const prefix = model.MetaLabelPrefix + "kubernetes_"

// podGroup has a target for every port of every container, init containers
// last, and one without a port for a container that names none. A pod that has
// no address yet has no targets.
func podGroup(pod *corev1.Pod) *targetgroup.Group {
	g := &targetgroup.Group{Source: source(RolePod, pod.Namespace+"/"+pod.Name)}
	if pod.Status.PodIP == "" {
		return g
	}
	g.Labels = podLabels(pod)
	for _, c := range pod.Spec.Containers {
		g.Targets = append(g.Targets, containerTargets(pod, c, pod.Status.ContainerStatuses, false)...)
	}
	for _, c := range pod.Spec.InitContainers {
		g.Targets = append(g.Targets, containerTargets(pod, c, pod.Status.InitContainerStatuses, true)...)
	}
	return g
}

func podLabels(pod *corev1.Pod) model.LabelSet {
	set := model.LabelSet{}
	put(set, "namespace", pod.Namespace)
	put(set, "pod_ip", pod.Status.PodIP)
	put(set, "pod_ready", podReady(pod))
	put(set, "pod_phase", string(pod.Status.Phase))
	put(set, "pod_node_name", pod.Spec.NodeName)
	put(set, "pod_host_ip", pod.Status.HostIP)
	put(set, "pod_uid", string(pod.UID))
	putMeta(set, "pod", pod.ObjectMeta)
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		if owner.Kind != "" {
			put(set, "pod_controller_kind", owner.Kind)
		}
		if owner.Name != "" {
			put(set, "pod_controller_name", owner.Name)
		}
	}
	return set
}

func podReady(pod *corev1.Pod) string {
	for _, cond := range pod.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return strings.ToLower(string(cond.Status))
		}
	}
	return strings.ToLower(string(corev1.ConditionUnknown))
}

func containerTargets(pod *corev1.Pod, c corev1.Container, statuses []corev1.ContainerStatus, init bool) []model.LabelSet {
	target := func(address string) model.LabelSet {
		set := model.LabelSet{model.AddressLabel: model.LabelValue(address)}
		put(set, "pod_container_name", c.Name)
		put(set, "pod_container_id", containerID(statuses, c.Name))
		put(set, "pod_container_image", c.Image)
		put(set, "pod_container_init", strconv.FormatBool(init))
		return set
	}
	if len(c.Ports) == 0 {
		return []model.LabelSet{target(pod.Status.PodIP)}
	}
	targets := make([]model.LabelSet, 0, len(c.Ports))
	for _, p := range c.Ports {
		number := strconv.Itoa(int(p.ContainerPort))
		set := target(net.JoinHostPort(pod.Status.PodIP, number))
		put(set, "pod_container_port_name", p.Name)
		put(set, "pod_container_port_number", number)
		put(set, "pod_container_port_protocol", string(p.Protocol))
		targets = append(targets, set)
	}
	return targets
}

func containerID(statuses []corev1.ContainerStatus, name string) string {
	i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
	if i < 0 {
		return ""
	}
	return statuses[i].ContainerID
}

// nodeGroup has one target, the kubelet. A node that has no address has none.
func nodeGroup(node *corev1.Node) *targetgroup.Group {
	g := &targetgroup.Group{Source: source(RoleNode, node.Name)}
	address := nodeAddress(node)
	if address == "" {
		return g
	}
	g.Labels = model.LabelSet{}
	put(g.Labels, "node_provider_id", node.Spec.ProviderID)
	putMeta(g.Labels, "node", node.ObjectMeta)
	port := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
	target := model.LabelSet{
		model.AddressLabel:  model.LabelValue(net.JoinHostPort(address, port)),
		model.InstanceLabel: model.LabelValue(node.Name),
	}
	// Of several addresses of a type the first one counts.
	for _, a := range slices.Backward(node.Status.Addresses) {
		put(target, "node_address_"+strutil.SanitizeLabelName(string(a.Type)), a.Address)
	}
	g.Targets = []model.LabelSet{target}
	return g
}

// addressTypes are in the order in which they are preferred.
var addressTypes = []corev1.NodeAddressType{
	corev1.NodeInternalIP, corev1.NodeInternalDNS, corev1.NodeExternalIP, corev1.NodeExternalDNS, "LegacyHostIP", corev1.NodeHostName,
}

func nodeAddress(node *corev1.Node) string {
	for _, want := range addressTypes {
		for _, a := range node.Status.Addresses {
			if a.Type == want {
				return a.Address
			}
		}
	}
	return ""
}

// putMeta adds the name, the labels and the annotations of an object.
func putMeta(set model.LabelSet, kind string, m metav1.ObjectMeta) {
	put(set, kind+"_name", m.Name)
	putPairs(set, kind+"_label", m.Labels)
	putPairs(set, kind+"_annotation", m.Annotations)
}

// putPairs goes in order, so that of two keys that make one label the same one
// wins each time.
func putPairs(set model.LabelSet, kind string, pairs map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		name := strutil.SanitizeLabelName(key)
		put(set, kind+"_"+name, pairs[key])
		put(set, kind+"present_"+name, "true")
	}
}

func put(set model.LabelSet, name, value string) {
	set[model.LabelName(prefix+name)] = model.LabelValue(value)
}
