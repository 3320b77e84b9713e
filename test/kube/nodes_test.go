package kube_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tocsin-rules/tocsin/test/kube"
)

// TestPodsOfWorkloadsRunOnNodes covers the simulation that other tests build on.
func TestPodsOfWorkloadsRunOnNodes(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	c.StartNodes("n1", "n2", "n3")
	c.Namespace("shop")
	client, label := c.Admin(), map[string]string{"app": "agent"}
	_, err := client.AppsV1().DaemonSets("shop").Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: label}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: label},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "agent"}}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	addresses := map[string]string{}
	require.Eventually(t, func() bool {
		pods, err := client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		clear(addresses)
		for _, p := range pods.Items {
			if p.Status.Phase == corev1.PodRunning && p.Status.PodIP != "" {
				addresses[p.Spec.NodeName] = p.Status.PodIP
			}
		}
		return len(addresses) == 3
	}, settle, 100*time.Millisecond, "a pod runs on each node")
	different := map[string]bool{}
	for _, a := range addresses {
		require.True(t, net.ParseIP(a).IsLoopback(), a)
		different[a] = true
	}
	require.Len(t, different, 3)
	require.NoError(t, client.AppsV1().DaemonSets("shop").Delete(t.Context(), "agent", metav1.DeleteOptions{}))
	require.Eventually(t, func() bool {
		pods, err := client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		return len(pods.Items) == 0
	}, settle, 100*time.Millisecond, "the pods go with what made them")
}
