package rule

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"
)

// namespaceLabel is what Rules are scoped by, beside the cluster.
const namespaceLabel = "namespace"

// defaultNamespace is where kubectl puts an object whose manifest names none.
const defaultNamespace = "default"

// fileKind is the kind of groups that no custom resource defines.
const fileKind = "file"

// object is what groups are defined in: a file or a custom resource.
type object struct {
	kind      string
	namespace string
	name      string
	// scopes has one entry for each instance of the object's groups; none
	// means a single instance without scope.
	scopes []labels.Labels
}

// header is the part that all Kubernetes manifests share.
type header struct {
	kind      string
	name      string
	namespace string
	spec      yaml.Node
	items     yaml.Node
}

// isManifest tells Kubernetes manifests from rule files.
func isManifest(n *yaml.Node) bool {
	return child(n, "kind") != nil || child(n, "apiVersion") != nil
}

func (p *fileParser) manifest(n *yaml.Node) {
	apiVersion, kind := text(n, "apiVersion"), text(n, "kind")
	group, version, _ := strings.Cut(apiVersion, "/")
	item, isList := strings.CutSuffix(kind, "List")
	switch {
	case apiVersion == "v1" && kind == "List", isList && isRuleKind(group, version, item):
		h := p.header(n)
		p.items(&h.items)
	case isRuleKind(group, version, kind):
		p.resource(n, p.header(n))
	default:
		p.add("", n, fmt.Errorf("kind %q of apiVersion %q is none that holds rules", kind, apiVersion))
	}
}

// text returns the scalar under a key, "" if there is none.
func text(n *yaml.Node, key string) string {
	if value := child(n, key); value != nil && value.Kind == yaml.ScalarNode {
		return value.Value
	}
	return ""
}

func (p *fileParser) header(n *yaml.Node) header {
	var h header
	var apiVersion string
	var metadata, status yaml.Node
	p.fields("", n, map[string]any{
		"apiVersion": &apiVersion, "kind": &h.kind, "metadata": &metadata,
		"spec": &h.spec, "status": &status, "items": &h.items,
	})
	if name := child(&metadata, "name"); name != nil {
		p.decode("", "metadata.name", name, &h.name)
	}
	if namespace := child(&metadata, "namespace"); namespace != nil {
		p.decode("", "metadata.namespace", namespace, &h.namespace)
	}
	return h
}

func isRuleKind(group, version, kind string) bool {
	switch group {
	case "monitoring.coreos.com":
		return version == "v1" && kind == "PrometheusRule"
	case "monitoring.googleapis.com":
		return (version == "v1" || version == "v1alpha1") &&
			(kind == "Rules" || kind == "ClusterRules" || kind == "GlobalRules")
	}
	return false
}

func (p *fileParser) items(items *yaml.Node) {
	for _, item := range p.list("", "items", items) {
		if !isManifest(item) {
			p.add("", item, fmt.Errorf("found %s without kind in a list of resources", kindText(item)))
			continue
		}
		p.manifest(item)
	}
}

// resource reads one custom resource that defines groups.
func (p *fileParser) resource(n *yaml.Node, h header) {
	if h.name == "" {
		p.add("", n, fmt.Errorf("%s has no metadata.name", h.kind))
		return
	}
	if !h.items.IsZero() {
		p.add("", &h.items, fmt.Errorf("%s %q: unknown field %q", h.kind, h.name, "items"))
	}
	if isNull(&h.spec) {
		p.add("", n, fmt.Errorf("%s %q has no spec", h.kind, h.name))
		return
	}
	obj, err := p.object(h)
	if err != nil {
		p.add("", n, err)
		return
	}
	var groups yaml.Node
	p.fields("", &h.spec, map[string]any{"groups": &groups})
	p.define(obj, &groups)
}

// object gives a resource its identity and its tenancy.
func (p *fileParser) object(h header) (object, error) {
	obj := object{kind: strings.ToLower(h.kind), namespace: h.namespace, name: h.name}
	switch h.kind {
	case "PrometheusRule":
		if obj.namespace == "" {
			obj.namespace = defaultNamespace
		}
		return obj, nil
	case "Rules":
		if h.namespace == "" {
			return obj, fmt.Errorf("object Rules %q has no metadata.namespace, which its rules are scoped to", h.name)
		}
		obj.scopes = namespaced(p.opts.Clusters, h.namespace)
		return obj, nil
	case "ClusterRules":
		obj.scopes = p.opts.Clusters
	}
	if h.namespace != "" {
		return obj, fmt.Errorf("%s %q is not namespaced, remove metadata.namespace", h.kind, h.name)
	}
	return obj, nil
}

// namespaced adds the namespace to the scope of every cluster.
func namespaced(clusters []labels.Labels, namespace string) []labels.Labels {
	if len(clusters) == 0 {
		return []labels.Labels{labels.FromStrings(namespaceLabel, namespace)}
	}
	out := make([]labels.Labels, len(clusters))
	for i, c := range clusters {
		out[i] = labels.NewBuilder(c).Set(namespaceLabel, namespace).Labels()
	}
	return out
}

// instances returns the scope of each instance.
func (o object) instances() []labels.Labels {
	if len(o.scopes) == 0 {
		return []labels.Labels{labels.EmptyLabels()}
	}
	return o.scopes
}

// key identifies one instance of a group. Only a file's name may contain
// slashes that separate something, so those of the group's are escaped.
func (o object) key(group string, scope labels.Labels) string {
	parts := []string{o.kind}
	var clusters []string
	scope.Range(func(l labels.Label) {
		if l.Name != namespaceLabel || o.kind != "rules" {
			clusters = append(clusters, escape(l.Value))
		}
	})
	if len(clusters) > 0 {
		parts = append(parts, strings.Join(clusters, ","))
	}
	if o.namespace != "" {
		parts = append(parts, o.namespace)
	}
	return strings.Join(append(parts, o.name, escape(group)), "/")
}

func escape(s string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(s)
}
