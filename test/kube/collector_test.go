package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tocsin-rules/tocsin/collector"
	"github.com/tocsin-rules/tocsin/collector/app"
	"github.com/tocsin-rules/tocsin/collector/discovery"
	"github.com/tocsin-rules/tocsin/kubeapi"
	"github.com/tocsin-rules/tocsin/test/kube"
	"github.com/tocsin-rules/tocsin/web/server"
)

func TestMain(m *testing.M) {
	discovery.Register()
	os.Exit(m.Run())
}

func mayReadPodsAndNodes() rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}}
}

// collect runs a collector on node n1 until the test ends and returns its URL.
func collect(t *testing.T, o app.Options) string {
	t.Helper()
	o.Terms.Node, o.StoragePath = "n1", t.TempDir()
	o.HTTP = server.Config{ListenAddress: "127.0.0.1:0", EnableLifecycle: true}
	a, err := app.New(o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, a.Listen())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return "http://" + a.Addr().String()
}

// healthy are the pools' targets that are up, as POOL/POD, in order.
func healthy(t *testing.T, url string) []string {
	t.Helper()
	resp, err := http.Get(url + "/api/v1/targets?state=active")
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			ActiveTargets []struct {
				ScrapePool, Health string
				Labels             struct{ Pod string }
			}
		}
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil {
		return nil // it is starting
	}
	up := []string{}
	for _, target := range answer.Data.ActiveTargets {
		if target.Health == "up" {
			up = append(up, target.ScrapePool+"/"+target.Labels.Pod)
		}
	}
	slices.Sort(up)
	return up
}

// exporter is a server with a metric, and its port.
func exporter(t *testing.T) int {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintln(w, "up_to_date 1")
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

// runPod makes a pod that says it runs at a loopback address.
func runPod(t *testing.T, c *kube.Cluster, namespace, app, node string, port int) {
	t.Helper()
	c.Namespace(namespace)
	pods := c.Admin().CoreV1().Pods(namespace)
	p, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: app + "-" + node, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "127.0.0.1", PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}}}
	_, err = pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// podJob is a job for the pods of an app, as the operator makes them.
func podJob(app string) string {
	return fmt.Sprintf(`
- job_name: PodMonitoring/shop/%[1]s/web
  scrape_interval: 1s
  scrape_timeout: 1s
  relabel_configs:
  - {source_labels: [__meta_kubernetes_namespace], regex: shop, action: keep}
  - {source_labels: [__meta_kubernetes_pod_label_app], regex: %[1]s, action: keep}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  kubernetes_sd_configs:
  - {role: pod, follow_redirects: true, enable_http2: true, selectors: [{role: pod, field: spec.nodeName=$(NODE_NAME)}]}
`, app)
}

const nodeJobs = `
- job_name: ClusterNodeMonitoring/kubelet/metrics
  kubernetes_sd_configs: [{role: node, selectors: [{role: node, field: metadata.name=$(NODE_NAME)}]}]
- job_name: ClusterNodeMonitoring/kubelet/metrics/cadvisor
  kubernetes_sd_configs: [{role: node, selectors: [{role: node, field: metadata.name=$(NODE_NAME)}]}]
`

func writeFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "collector.yml")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func TestACollectorWatchesThePodsOfItsNodeOnceForAllJobs(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	kubeconfig := c.ServiceAccount("gmp-system", "collector")
	c.GrantEverywhere("gmp-system", "collector", mayReadPodsAndNodes())
	port := exporter(t)
	config := "scrape_configs:" + nodeJobs
	var want []string
	for i := range 20 {
		app := fmt.Sprintf("app%02d", i)
		config += podJob(app)
		runPod(t, c, "shop", app, "n1", port)
		want = append(want, "PodMonitoring/shop/"+app+"/web/"+app+"-n1")
	}
	runPod(t, c, "shop", "app00", "n2", port)
	url := collect(t, app.Options{ConfigFile: writeFile(t, config), Terms: collector.Terms{Kubeconfig: kubeconfig}})
	require.Eventually(t, func() bool { return slices.Equal(want, healthy(t, url)) }, settle, 100*time.Millisecond)

	require.ElementsMatch(t, []kube.Request{
		{Verb: "watch", Resource: "pods", FieldSelector: "spec.nodeName=n1", Code: http.StatusOK},
		{Verb: "watch", Resource: "nodes", FieldSelector: "metadata.name=n1", Code: http.StatusOK},
	}, c.OpenWatches("gmp-system", "collector"))
	for _, r := range c.Requests("gmp-system", "collector") {
		require.Contains(t, []string{"list", "watch"}, r.Verb, r)
		require.Contains(t, []string{"spec.nodeName=n1", "metadata.name=n1"}, r.FieldSelector, r)
	}

	c.StopAPIServer()
	require.Equal(t, want, healthy(t, url), "what is known is scraped on")
	c.StartAPIServer()
	now := int64(0)
	require.NoError(t, c.Admin().CoreV1().Pods("shop").Delete(t.Context(), "app07-n1", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	want = slices.Delete(want, 7, 8)
	require.Eventually(t, func() bool { return slices.Equal(want, healthy(t, url)) }, settle, 100*time.Millisecond)
}

// configMap is one of those that the operator writes for collectors.
func configMap(name, key, content string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"monitoring.googleapis.com/config": "collector"}},
		Data:       map[string]string{key: content},
	}
}

func TestACollectorsConfigurationComesFromConfigMaps(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	kubeconfig := c.ServiceAccount("gmp-system", "collector", mayReadConfigMaps())
	c.GrantEverywhere("gmp-system", "collector", mayReadPodsAndNodes())
	port := exporter(t)
	for _, app := range []string{"a", "b", "c"} {
		runPod(t, c, "shop", app, "n1", port)
	}
	admin := c.Admin()
	url := collect(t, app.Options{
		ConfigMaps: kubeapi.Selection{LabelSelector: "monitoring.googleapis.com/config=collector"},
		Terms:      collector.Terms{Kubeconfig: kubeconfig},
	})
	scraped := func(want ...string) {
		t.Helper()
		for i, app := range want {
			want[i] = fmt.Sprintf("PodMonitoring/shop/%[1]s/web/%[1]s-n1", app)
		}
		require.Eventually(t, func() bool { return slices.Equal(want, healthy(t, url)) }, settle, 100*time.Millisecond, "%v", want)
	}
	ask := func(path string) string {
		resp, err := http.Get(url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(body)
	}

	require.Eventually(t, func() bool { return strings.Contains(ask("/-/ready"), "none has the key config.yaml") }, settle, 100*time.Millisecond)
	apply(t, admin, "gmp-system", create(configMap("collector-0", "scrape.yaml", "scrape_configs:"+podJob("a"))))
	zipped := configMap("collector-1", "", "")
	zipped.Data, zipped.BinaryData = nil, map[string][]byte{"scrape.yaml": compressed(t, "scrape_configs:"+podJob("b"))}
	apply(t, admin, "gmp-system", create(zipped))
	apply(t, admin, "gmp-system", create(configMap("collector", "config.yaml", "global: {external_labels: {cluster: east}}")))
	scraped("a", "b")

	bad := "\n- {job_name: PodMonitoring/shop/bad/web, scrape_intervall: 1s}"
	apply(t, admin, "gmp-system", update(configMap("collector-0", "scrape.yaml", "scrape_configs:"+podJob("a")+podJob("c")+bad)))
	scraped("a", "b", "c")
	require.Contains(t, ask("/metrics"), "tocsin_collector_refused_scrape_configs 1")

	// The base is at fault: everything stays, also while the API server is away.
	apply(t, admin, "gmp-system", update(configMap("collector", "config.yaml", "global: {external_labels: 7}")))
	require.Eventually(t, func() bool { return strings.Contains(ask("/metrics"), "prometheus_config_last_reload_successful 0") }, settle, 100*time.Millisecond)
	c.StopAPIServer()
	scraped("a", "b", "c")
	c.StartAPIServer()
	apply(t, admin, "gmp-system", update(configMap("collector", "config.yaml", "global: {external_labels: {cluster: west}}")))
	apply(t, admin, "gmp-system", update(configMap("collector-0", "scrape.yaml", "scrape_configs:"+podJob("c"))))
	scraped("b", "c")
	require.Contains(t, ask("/metrics"), "tocsin_collector_refused_scrape_configs 0")
	require.Contains(t, ask("/api/v1/status/config"), "cluster: west")

	var watches []string
	for _, w := range c.OpenWatches("gmp-system", "collector") {
		watches = append(watches, w.Resource)
	}
	require.Subset(t, []string{"pods", "configmaps"}, watches)
}
