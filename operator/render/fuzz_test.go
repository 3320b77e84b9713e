package render

import (
	"testing"

	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// FuzzPodMonitoring holds rendering to its contract, whatever is in the fields:
// an error, or jobs that Prometheus takes, that read no Secret but their own
// and that come back from a ConfigMap as they were.
func FuzzPodMonitoring(f *testing.F) {
	f.Add("web", "/metrics", "a|b", "$1", "app.kubernetes.io/name", "token")
	f.Add("a\n# b", "# PodMonitoring/bank/x\n- job_name: x", "\n# c\n", "${1}", "\u2028", "../x")
	f.Add("$(NODE_NAME)", "\x00", "(?i)x", "'\"", "a: b", "k_")
	f.Fuzz(func(t *testing.T, port, path, regex, replacement, label, key string) {
		m := &v1.PodMonitoring{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}}
		m.Spec.Selector.MatchLabels = map[string]string{label: replacement}
		m.Spec.TargetLabels.FromPod = []v1.LabelMapping{{From: label, To: "to"}}
		m.Spec.Endpoints = []v1.ScrapeEndpoint{{
			Port: intstr.FromString(port), Path: path, Interval: "30s",
			Params:           map[string][]string{label: {path}},
			MetricRelabeling: []v1.RelabelingRule{{TargetLabel: "a", SourceLabels: []string{"b"}, Regex: regex, Replacement: replacement}},
		}}
		m.Spec.Endpoints[0].Authorization = &v1.Auth{Credentials: &v1.SecretSelector{Secret: &v1.SecretKeySelector{Name: "s", Key: key}}}
		piece, err := New(testSettings(), nil).PodMonitoring(m)
		if err != nil {
			return
		}
		require.Equal(t, []SecretKey{{Kind: KindSecret, Namespace: "shop", Name: "s", Key: key}}, piece.Secrets)
		stored := scrapeForm{}.values(map[string]Piece{piece.Key: piece})
		cfg, err := config.Load(string(stored[scrapeKey]), nil)
		require.NoError(t, err)
		require.Len(t, cfg.ScrapeConfigs, 1)
		require.Equal(t, "PodMonitoring/shop/api/"+port, cfg.ScrapeConfigs[0].JobName)
		require.Equal(t, piece.Secrets[0].path(), cfg.ScrapeConfigs[0].HTTPClientConfig.Authorization.CredentialsFile)
		back, err := scrapeForm{}.pieces(&corev1.ConfigMap{Data: map[string]string{scrapeKey: string(stored[scrapeKey])}})
		require.NoError(t, err)
		require.Equal(t, []Piece{piece}, back)
	})
}
