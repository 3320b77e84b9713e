package migrate

import (
	"fmt"
	"strings"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

var endpointReasons = reasons{
	"attachMetadata":                 lost("labels of nodes and namespaces can't become labels of targets"),
	"bearerTokenFile":                lost("collectors read no files of yours: put the token into a Secret and use authorization"),
	"enableHttp2":                    changed("HTTP/2 is used where the target has it"),
	"fallbackScrapeProtocol":         lost("targets have to say which format they answer in"),
	"followRedirects":                changed("redirects are followed"),
	"honorLabels":                    lost("labels of the target never take the place of those that say where a series is from, but become exported_NAME; a ClusterPodMonitoring with targetLabels.metadata [] leaves namespace, pod and container to the target"),
	"jobLabel":                       lost("the job label is the name of the resource"),
	"jobName":                        lost("the job label is the name of the resource"),
	"keepDroppedTargets":             changed("dropped targets are counted by reason in the status"),
	"nativeHistogramMinBucketFactor": lost("only the number of buckets can be bounded"),
	"scrapeClass":                    lost("write out what the class sets"),
	"scrapeProtocols":                lost("collectors choose the format"),
	"selectorMechanism":              changed("pods are selected by relabeling, of those on the collector's node"),
	"targetLabels":                   lost("labels of Services can't become labels of targets: use targetLabels.fromPod for those of pods"),
	"trackTimestampsStaleness":       lost("samples have the time of the scrape, or that of the target if honorTimestamps is set"),
}

// endpoint migrates what is scraped of each target, but for the port.
func (m *migration) endpoint(obj object, f fields, t *targets) v1.ScrapeEndpoint {
	out := v1.ScrapeEndpoint{
		Scheme:   strings.ToLower(f.text("scheme")),
		Path:     f.text("path"),
		Interval: f.text("interval"),
		Timeout:  f.text("scrapeTimeout"),
	}
	if out.Interval == "" {
		out.Interval = m.options.Interval
		m.note(obj, Changed, f.at("interval"), fmt.Sprintf("is %s, where the global one of Prometheus counted", out.Interval))
	}
	f.into("params", &out.Params)
	out.SampleOptions = t.samples
	if out.HonorTimestamps = f.flag("honorTimestamps"); out.HonorTimestamps == nil {
		on := true // which is Prometheus' default
		out.HonorTimestamps = &on
	}
	if on := f.flag("filterRunning"); on != nil {
		t.filterRunning = on
	}
	for _, r := range f.subs("relabelings") {
		if label, ok := m.targetRule(obj, r, t); ok {
			out.MetricRelabeling = append(out.MetricRelabeling, label)
		}
	}
	for _, r := range f.subs("metricRelabelings") {
		out.MetricRelabeling = append(out.MetricRelabeling, m.relabeling(obj, r))
	}
	out.HTTPClientConfig = m.client(obj, f, t)
	m.left(obj, f, endpointReasons)
	return out
}

// relabeling migrates a rule for samples.
func (m *migration) relabeling(obj object, f fields) v1.RelabelingRule {
	out := v1.RelabelingRule{
		Separator:   f.text("separator"),
		TargetLabel: f.text("targetLabel"),
		Regex:       f.text("regex"),
		Action:      strings.ToLower(f.text("action")),
	}
	f.into("sourceLabels", &out.SourceLabels)
	f.into("modulus", &out.Modulus)
	if n := f.take("replacement"); n != nil {
		out.Replacement = n.Value
		if n.Value == "" {
			// Empty means $1 here; a group that there is not is empty.
			out.Replacement = "${none}"
		}
	}
	m.left(obj, f, nil)
	return out
}

// metadataOf are the labels that targets have for what service discovery knows.
var metadataOf = map[string]string{
	"__meta_kubernetes_namespace":          "namespace",
	"__meta_kubernetes_pod_name":           "pod",
	"__meta_kubernetes_pod_container_name": "container",
	"__meta_kubernetes_pod_node_name":      "node",
}

// targetRule migrates a rule for targets if it does what targetLabels can: copy
// a label of the pod, or set one to a text, which samples get then.
func (m *migration) targetRule(obj object, f fields, t *targets) (v1.RelabelingRule, bool) {
	rule := m.relabeling(obj, f)
	plain := rule.Regex == "" || rule.Regex == "(.*)"
	plain = plain && (rule.Action == "" || rule.Action == "replace")
	copies := plain && len(rule.SourceLabels) == 1 && (rule.Replacement == "" || rule.Replacement == "$1" || rule.Replacement == "${1}")
	switch {
	case copies && metadataOf[rule.SourceLabels[0]] == rule.TargetLabel:
		t.metadata(rule.TargetLabel)
	case copies && strings.HasPrefix(rule.SourceLabels[0], "__meta_kubernetes_pod_label_"):
		from := strings.TrimPrefix(rule.SourceLabels[0], "__meta_kubernetes_pod_label_")
		t.label(v1.LabelMapping{From: from, To: rule.TargetLabel})
	case plain && len(rule.SourceLabels) == 0 && !strings.Contains(rule.Replacement, "$"):
		m.note(obj, Changed, f.path, fmt.Sprintf("sets label %q of samples, but not of up and its like", rule.TargetLabel))
		return rule, true
	default:
		m.note(obj, Lost, f.path, fmt.Sprintf("targets can't be relabeled (action %s, target label %q): labels of pods are in targetLabels.fromPod, and the selector says what is scraped", actionOf(rule), rule.TargetLabel))
	}
	return v1.RelabelingRule{}, false
}

func actionOf(r v1.RelabelingRule) string {
	if r.Action == "" {
		return "replace"
	}
	return r.Action
}
