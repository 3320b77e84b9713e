package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/relabel"
)

const (
	tmpInstance = "__tmp_instance"

	controllerKind = "__meta_kubernetes_pod_controller_kind"
	controllerName = "__meta_kubernetes_pod_controller_name"
	podNodeName    = "__meta_kubernetes_pod_node_name"
)

// podMetadata are the metadata labels in the order in which they are set.
// PodMonitoring does not have the first, since it always sets it.
var podMetadata = []string{namespaceLabel, "pod", "container", "node", "top_level_controller_name", "top_level_controller_type"}

func checkMetadata(p podScrape) error {
	var errs []error
	for i, name := range p.metadata {
		if !slices.Contains(p.permitted, name) {
			errs = append(errs, fmt.Errorf("spec.targetLabels.metadata[%d]: %q is none of %s", i, name, strings.Join(p.permitted, ", ")))
		}
	}
	return errors.Join(errs...)
}

// metadataRules set one metadata label.
func metadataRules(name string) []*relabel.Config {
	switch name {
	case "pod":
		return []*relabel.Config{copyLabel(name, "__meta_kubernetes_pod_name")}
	case "container":
		return []*relabel.Config{copyLabel(name, "__meta_kubernetes_pod_container_name")}
	case "node":
		return []*relabel.Config{copyLabel(name, podNodeName)}
	case "top_level_controller_name":
		return topLevelController(name, controllerName, "", "")
	case "top_level_controller_type":
		return topLevelController(name, controllerKind, "Deployment", "CronJob")
	default:
		return []*relabel.Config{copyLabel(name, "__meta_kubernetes_namespace")}
	}
}

// topLevelController sets a label to what source says of the pod's controller,
// or of the Deployment or CronJob which that belongs to by its name. An empty
// replacement means the name.
func topLevelController(target, source, deployment, cronJob string) []*relabel.Config {
	return []*relabel.Config{
		copyLabel(target, source),
		rewrite(target, deployment, relabel.MustNewRegexp(`ReplicaSet;true;(.+)-[a-z0-9]+`), controllerKind, pod.labelPresent("pod-template-hash"), controllerName),
		rewrite(target, cronJob, relabel.MustNewRegexp(`Job;(.+)-\d{8}$`), controllerKind, controllerName),
	}
}

// instanceRules find the first part of the instance: the pod, or its node if
// each node has one.
func instanceRules() []*relabel.Config {
	return []*relabel.Config{
		copyLabel(tmpInstance, "__meta_kubernetes_pod_name"),
		rewrite(tmpInstance, "$1", relabel.MustNewRegexp("DaemonSet;(.*)"), controllerKind, podNodeName),
	}
}

// paths finds endpoints of one resource that have the same port.
type paths map[string]map[string]int

// add returns "" for the first endpoint of a port and the path for others,
// which have to be told apart. It is an error if they can't be.
func (p paths) add(i int, port, path string) (string, error) {
	seen, ok := p[port]
	if !ok {
		p[port] = map[string]int{path: i}
		return "", nil
	}
	if j, ok := seen[path]; ok {
		return "", fmt.Errorf("spec.endpoints[%d]: has port and path of spec.endpoints[%d], and so its series would be the same", i, j)
	}
	seen[path] = i
	return path, nil
}

// pathRules tell series of a further path on a port from those of the first,
// whose labels stay what they were without.
func pathRules(path string) []*relabel.Config {
	if path == "" {
		return nil
	}
	return []*relabel.Config{setLabel("metrics_path", path)}
}
