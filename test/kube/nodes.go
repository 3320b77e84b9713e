package kube

import (
	"context"
	_ "embed"
	"os"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tocsin-rules/tocsin/test/program"
)

// podCIDR is where simulated pods get their addresses from: all of 127.0.0.0/8
// is this machine, so whatever plays a pod can listen there.
const podCIDR = "127.64.0.0/10"

// controllers are those of kube-controller-manager that tests need. The ones
// for endpoints are not among them: an address of the loopback interface is not
// valid there.
const controllers = "daemonset-controller,deployment-controller,replicaset-controller,statefulset-controller," +
	"serviceaccount-controller,root-ca-certificate-publisher-controller,garbage-collector-controller,namespace-controller," +
	"persistentvolume-binder-controller,disruption-controller,node-lifecycle-controller"

// stages say how simulated nodes and pods come to be ready, and pods go.
//
//go:embed stages.yaml
var stages []byte

// StartNodes makes nodes and starts what puts pods on them: controllers, the
// scheduler, and a simulation of kubelets. Pods are Running, with an address on
// the loopback interface, but nothing runs in them. It returns when the nodes
// are ready.
func (c *Cluster) StartNodes(names ...string) {
	c.t.Helper()
	manager, scheduler, kwok := program.KubeControllerManager().Build(c.t), program.KubeScheduler().Build(c.t), program.Kwok().Build(c.t)
	admin := c.AdminKubeconfig()
	require.NoError(c.t, os.WriteFile(c.path("stages.yaml"), stages, 0o600))
	for _, name := range names {
		c.node(name)
	}
	c.spawn(manager, "kube-controller-manager.log", "--kubeconfig="+admin, "--leader-elect=false", "--secure-port=0", "--controllers="+controllers,
		"--service-account-private-key-file="+c.pki.accounts, "--root-ca-file="+c.pki.ca, "--kube-api-qps=1000", "--kube-api-burst=1000")
	c.spawn(scheduler, "kube-scheduler.log", "--kubeconfig="+admin, "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=1000", "--kube-api-burst=1000")
	c.spawn(kwok, "kwok.log", "--kubeconfig="+admin, "--config="+c.path("stages.yaml"), "--manage-all-nodes", "--cidr="+podCIDR, "--node-ip=127.0.0.1",
		"--node-lease-duration-seconds=40")
	require.Eventually(c.t, func() bool {
		nodes, err := c.Admin().CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
		return err == nil && readyNodes(nodes.Items) == len(names)
	}, patience, 200*time.Millisecond, "nodes are ready; see the logs in %s", c.dir)
}

func readyNodes(nodes []corev1.Node) (n int) {
	for _, node := range nodes {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				n++
			}
		}
	}
	return n
}

func (c *Cluster) node(name string) {
	c.t.Helper()
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("1000"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	}
	_, err := c.Admin().CoreV1().Nodes().Create(context.Background(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelTopologyZone: "zone-" + name,
		}},
		Status: corev1.NodeStatus{Allocatable: room, Capacity: room},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
}
