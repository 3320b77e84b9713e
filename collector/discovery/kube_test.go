package discovery_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/discovery"
	upstream "github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	tocsin "github.com/tocsin-rules/tocsin/collector/discovery"
	"github.com/tocsin-rules/tocsin/test/kube"
)

// settle bounds waiting on a loaded machine; after an outage of the API server
// a watch may wait for most of a minute before it tries again.
const settle = 3 * time.Minute

// followed is what a discoverer has found, by source.
type followed struct {
	mu     sync.Mutex
	groups map[string]*targetgroup.Group
}

func follow(t *testing.T, cfg discovery.Config) *followed {
	t.Helper()
	reg := prometheus.NewRegistry()
	d, err := cfg.NewDiscoverer(discovery.DiscovererOptions{
		Logger:  slog.New(slog.DiscardHandler),
		Metrics: cfg.NewDiscovererMetrics(reg, discovery.NewRefreshMetrics(reg)),
	})
	require.NoError(t, err)
	f := &followed{groups: map[string]*targetgroup.Group{}}
	ch := make(chan []*targetgroup.Group)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { d.Run(ctx, ch) })
	wg.Go(func() {
		for {
			select {
			case groups := <-ch:
				f.take(groups)
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return f
}

// take does what the discovery manager does.
func (f *followed) take(groups []*targetgroup.Group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range groups {
		delete(f.groups, g.Source)
		if len(g.Targets) > 0 {
			f.groups[g.Source] = g
		}
	}
}

func (f *followed) sources() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.groups))
}

// text has every label of every target, in order.
func (f *followed) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, source := range slices.Sorted(maps.Keys(f.groups)) {
		fmt.Fprintf(&b, "%s\n", source)
		for _, set := range append(slices.Clone(f.groups[source].Targets), f.groups[source].Labels) {
			for _, name := range slices.Sorted(maps.Keys(set)) {
				fmt.Fprintf(&b, "  %s=%q\n", name, set[name])
			}
		}
	}
	return b.String()
}

func (f *followed) await(t *testing.T, sources ...string) {
	t.Helper()
	slices.Sort(sources)
	require.Eventually(t, func() bool { return slices.Equal(sources, f.sources()) }, settle, 20*time.Millisecond,
		"want %v", sources)
}

// world is an API server and the rights that a collector has.
type world struct {
	*testing.T

	cluster    *kube.Cluster
	admin      kubernetes.Interface
	kubeconfig string
}

func newWorld(t *testing.T) *world {
	c := kube.Start(t)
	w := &world{T: t, cluster: c, admin: c.Admin(), kubeconfig: c.ServiceAccount("gmp-system", "collector")}
	c.GrantEverywhere("gmp-system", "collector", rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"},
	})
	return w
}

// ours is a configuration that follows what is on node n1.
func (w *world) ours(role tocsin.Role, field string) *tocsin.Config {
	w.Helper()
	c := &tocsin.Config{Role: role, Selectors: []tocsin.Selector{{Role: role, Field: field + "=" + tocsin.NodeVariable}}}
	require.NoError(w, c.Place("n1", w.kubeconfig))
	return c
}

func (w *world) upstream(role upstream.Role, field string) *upstream.SDConfig {
	return &upstream.SDConfig{
		Role: role, KubeConfig: w.kubeconfig, HTTPClientConfig: config.DefaultHTTPClientConfig,
		Selectors: []upstream.SelectorConfig{{Role: role, Field: field + "=n1"}},
	}
}

func (w *world) createNode(n *corev1.Node) {
	w.Helper()
	status := n.Status
	n, err := w.admin.CoreV1().Nodes().Create(w.Context(), n, metav1.CreateOptions{})
	require.NoError(w, err)
	n.Status = status
	_, err = w.admin.CoreV1().Nodes().UpdateStatus(w.Context(), n, metav1.UpdateOptions{})
	require.NoError(w, err)
}

// createPod makes a pod and reports its status, as a kubelet does.
func (w *world) createPod(p *corev1.Pod) {
	w.Helper()
	status := p.Status
	p, err := w.admin.CoreV1().Pods(p.Namespace).Create(w.Context(), p, metav1.CreateOptions{})
	require.NoError(w, err)
	w.report(p, status)
}

func (w *world) report(p *corev1.Pod, status corev1.PodStatus) {
	w.Helper()
	p.Status = status
	_, err := w.admin.CoreV1().Pods(p.Namespace).UpdateStatus(w.Context(), p, metav1.UpdateOptions{})
	require.NoError(w, err)
}

func (w *world) deletePod(namespace, name string) {
	w.Helper()
	now := int64(0)
	require.NoError(w, w.admin.CoreV1().Pods(namespace).Delete(w.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

// pod is a simple pod that runs at an address.
func pod(namespace, name, node, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}}}}},
		Status:     podStatus(ip),
	}
}

func podStatus(ip string) corev1.PodStatus {
	status := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip}
	if ip != "" {
		status.PodIPs = []corev1.PodIP{{IP: ip}}
	}
	return status
}

// fancyPod has everything that makes a label.
func fancyPod() *corev1.Pod {
	p := pod("shop", "fancy", "n1", "fd00::1")
	yes, no := true, false
	p.Labels = map[string]string{"app.kubernetes.io/name": "fancy", "empty": "", "pod-template-hash": "abc"}
	p.Annotations = map[string]string{"prometheus.io/scrape": "true", "text": "several\nlines, \"quoted\" ü"}
	p.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Other", Name: "not-the-controller", UID: "1", Controller: &no},
		{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "fancy-abc", UID: "2", Controller: &yes},
	}
	p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "init-image"}}
	p.Spec.Containers = append(p.Spec.Containers,
		corev1.Container{Name: "two-ports", Image: "image:2", Ports: []corev1.ContainerPort{
			{Name: "metrics", ContainerPort: 9090}, {ContainerPort: 9091, Protocol: corev1.ProtocolUDP},
		}},
		corev1.Container{Name: "no-port", Image: "image@sha256:0"})
	p.Status.HostIP = "10.0.0.1"
	p.Status.HostIPs = []corev1.HostIP{{IP: "10.0.0.1"}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionFalse}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "no-port", ContainerID: "containerd://1"}, {Name: "two-ports", ContainerID: "containerd://2"}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", ContainerID: "containerd://3"}}
	return p
}

func TestTargetsAreThoseOfPrometheus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cluster.Namespace("shop")
	pods, upstreamPods := follow(t, w.ours(tocsin.RolePod, "spec.nodeName")), follow(t, w.upstream(upstream.RolePod, "spec.nodeName"))
	nodes, upstreamNodes := follow(t, w.ours(tocsin.RoleNode, "metadata.name")), follow(t, w.upstream(upstream.RoleNode, "metadata.name"))
	same := func(sources ...string) {
		t.Helper()
		pods.await(t, sources...)
		require.Eventually(t, func() bool { return pods.text() == upstreamPods.text() }, settle, 20*time.Millisecond)
		require.Equal(t, upstreamPods.text(), pods.text())
	}

	w.createPod(fancyPod())
	w.createPod(pod("shop", "elsewhere", "n2", "10.0.0.9"))
	w.createPod(pod("shop", "starting", "n1", ""))
	w.createPod(pod("shop", "plain", "n1", "10.0.0.2"))
	same("pod/shop/fancy", "pod/shop/plain")
	require.Contains(t, pods.text(), `__address__="[fd00::1]:9090"`)
	require.Contains(t, pods.text(), `__meta_kubernetes_pod_controller_kind="ReplicaSet"`)
	require.Contains(t, pods.text(), `__meta_kubernetes_pod_container_id="containerd://3"`)

	p, err := w.admin.CoreV1().Pods("shop").Get(t.Context(), "starting", metav1.GetOptions{})
	require.NoError(t, err)
	w.report(p, podStatus("10.0.0.3"))
	w.deletePod("shop", "plain")
	same("pod/shop/fancy", "pod/shop/starting")
	p, err = w.admin.CoreV1().Pods("shop").Get(t.Context(), "fancy", metav1.GetOptions{})
	require.NoError(t, err)
	p.Labels["added"] = "later"
	_, err = w.admin.CoreV1().Pods("shop").Update(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Contains(pods.text(), `label_added="later"`) }, settle, 20*time.Millisecond)
	same("pod/shop/fancy", "pod/shop/starting")

	w.createNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.1.0.2"}},
	}})
	w.createNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"topology.kubernetes.io/zone": "a"}, Annotations: map[string]string{"x": "y"}},
		Spec:       corev1.NodeSpec{ProviderID: "cloud://n1"},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "n1.local"},
				{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
				{Type: corev1.NodeInternalIP, Address: "10.1.0.1"},
				{Type: corev1.NodeInternalIP, Address: "fd00::7"},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250}},
		},
	})
	require.Eventually(t, func() bool { return strings.Contains(nodes.text(), `__address__="10.1.0.1:10250"`) }, settle, 20*time.Millisecond)
	require.Eventually(t, func() bool { return nodes.text() == upstreamNodes.text() }, settle, 20*time.Millisecond)
	require.Equal(t, upstreamNodes.text(), nodes.text())
	require.Equal(t, []string{"node/n1"}, nodes.sources())
}

func TestTargetsStayWhileTheAPIServerIsAwayAndFollowAfterwards(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, ns := range []string{"shop", "bank"} {
		w.cluster.Namespace(ns)
		w.createPod(pod(ns, "a", "n1", "10.0.0.1"))
		w.createPod(pod(ns, "b", "n1", "10.0.0.2"))
	}
	f := follow(t, w.ours(tocsin.RolePod, "spec.nodeName"))
	f.await(t, "pod/bank/a", "pod/bank/b", "pod/shop/a", "pod/shop/b")

	// What a namespace's deletion does to its pods.
	now := int64(0)
	require.NoError(t, w.admin.CoreV1().Pods("bank").DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}))
	f.await(t, "pod/shop/a", "pod/shop/b")

	w.cluster.StopAPIServer()
	require.Never(t, func() bool { return len(f.sources()) != 2 }, 2*time.Second, 50*time.Millisecond)
	w.cluster.StartAPIServer()
	// The watch has not seen these changes, and may have an expired version.
	w.deletePod("shop", "a")
	w.createPod(pod("shop", "c", "n1", "10.0.0.3"))
	f.await(t, "pod/shop/b", "pod/shop/c")
}

func TestAThousandGenerationsOfPodsLeaveNothingBehind(t *testing.T) {
	w := newWorld(t)
	w.cluster.Namespace("shop")
	f := follow(t, w.ours(tocsin.RolePod, "spec.nodeName"))
	generation := func(i int) {
		name := fmt.Sprintf("pod-%d", i)
		w.createPod(pod("shop", name, "n1", "10.0.0.1"))
		f.await(t, "pod/shop/"+name)
		w.deletePod("shop", name)
		f.await(t)
	}
	measure := func() (goroutines int, heap uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	for i := range 100 {
		generation(i)
	}
	goroutines, heap := measure()
	for i := range 1000 {
		generation(100 + i)
	}
	goroutinesAfter, heapAfter := measure()
	t.Logf("goroutines %d, then %d; heap %d KiB, then %d KiB", goroutines, goroutinesAfter, heap>>10, heapAfter>>10)
	require.LessOrEqual(t, goroutinesAfter, goroutines+5)
	require.LessOrEqual(t, heapAfter, heap+1<<20)
}
