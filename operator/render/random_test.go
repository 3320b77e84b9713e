package render

import (
	"fmt"
	"math/rand/v2"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// randomMonitoring is a valid PodMonitoring of the number, which is in its name.
func randomMonitoring(random *rand.Rand, i int) *v1.PodMonitoring {
	some := func(max int) int { return random.IntN(max + 1) }
	m := &v1.PodMonitoring{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("ns-%d", some(20)), Name: fmt.Sprintf("monitoring-%d", i)}}
	m.Spec.TargetLabels.Metadata = &[]string{"pod", "container"}
	m.Spec.Selector.MatchLabels = map[string]string{}
	for j := range some(3) {
		m.Spec.Selector.MatchLabels[fmt.Sprintf("app.kubernetes.io/l%d", j)] = fmt.Sprintf("v%d.%d", some(9), some(9))
	}
	for j := range some(3) {
		m.Spec.TargetLabels.FromPod = append(m.Spec.TargetLabels.FromPod, v1.LabelMapping{From: fmt.Sprintf("from-%d", j)})
	}
	for j := range 1 + some(3) {
		e := v1.ScrapeEndpoint{Port: intstr.FromString(fmt.Sprintf("port-%d", j)), Interval: "30s"}
		if some(1) == 0 {
			e.Port = intstr.FromInt(8000 + j)
		}
		for k := range some(4) {
			e.MetricRelabeling = append(e.MetricRelabeling, v1.RelabelingRule{
				SourceLabels: []string{"__name__"}, Action: "drop", Regex: fmt.Sprintf("# (metric|%d)\n# .*", k),
			})
		}
		if some(2) == 0 {
			e.Authorization = &v1.Auth{Credentials: &v1.SecretSelector{Secret: &v1.SecretKeySelector{Name: "secret", Key: fmt.Sprintf("key_%d", some(5))}}}
		}
		m.Spec.Endpoints = append(m.Spec.Endpoints, e)
	}
	return m
}
