// Package apiserver_test measures what the discovery of pods costs the
// Kubernetes API server: one agent a node that watches all pods and picks its
// own, against one that asks for those of its node. The server is a real one;
// nodes and pods are simulated, the agents are client-go's reflectors, each over
// a connection of its own, as agents on different machines have.
package apiserver_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/tocsin-rules/tocsin/test/kube"
)

var (
	agents  = flag.Int("agents", 200, "nodes, and agents that discover pods")
	pods    = flag.Int("pods", 10, "pods on each node")
	changes = flag.Int("changes", 1000, "changes of pods")
	rate    = flag.Int("rate", 50, "changes a second")
)

// BenchmarkDiscovery prints a row of a table for each way of watching.
func BenchmarkDiscovery(b *testing.B) {
	for _, way := range []struct {
		name     string
		selector func(node string) fields.Selector
	}{
		{"all pods", func(string) fields.Selector { return fields.Everything() }},
		{"spec.nodeName=NODE", func(node string) fields.Selector { return fields.OneTermEqualSelector("spec.nodeName", node) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				f := newFleet(b)
				b.Logf("| way | phase | API server: CPU s | resident MiB | received by agents, MiB | events | events a change |")
				before := f.usage()
				f.start(way.selector)
				synced := f.usage()
				b.Logf("| %s | %d agents start | %s |", way.name, *agents, synced.since(before, 0))
				f.change()
				changed := f.usage()
				b.Logf("| %s | %d changes | %s |", way.name, *changes, changed.since(synced, *changes))
				b.ReportMetric(float64(changed.events-synced.events)/float64(*changes), "events/change")
				b.ReportMetric((changed.cpu-synced.cpu)*1000/float64(*changes), "server-ms/change")
				b.ReportMetric(float64(changed.bytes-synced.bytes)/float64(*changes), "bytes/change")
			}
		})
	}
}

// fleet is a cluster with pods on all of its nodes.
type fleet struct {
	b       *testing.B
	cluster *kube.Cluster
	admin   kubernetes.Interface
	// bytes and events are what all agents have got.
	bytes, events atomic.Int64
}

func newFleet(b *testing.B) *fleet {
	f := &fleet{b: b, cluster: kube.Start(b)}
	f.admin = f.cluster.Admin()
	var nodes []string
	for i := range *agents {
		nodes = append(nodes, node(i))
	}
	f.cluster.StartNodes(nodes...)
	f.cluster.Namespace("shop")
	f.each(*agents**pods, func(i int) error {
		_, err := f.admin.CoreV1().Pods("shop").Create(context.Background(), pod(i), metav1.CreateOptions{})
		return err
	})
	require.Eventually(b, func() bool {
		list, err := f.admin.CoreV1().Pods("shop").List(context.Background(), metav1.ListOptions{
			FieldSelector: "status.phase=Running", ResourceVersion: "0",
		})
		return err == nil && len(list.Items) == *agents**pods
	}, 10*time.Minute, time.Second, "all pods run")
	return f
}

func node(i int) string { return fmt.Sprintf("node-%03d", i) }

func name(i int) string { return fmt.Sprintf("pod-%05d", i) }

// pod is of the size that pods have: an ordinary template with its defaults.
func pod(i int) *corev1.Pod {
	container := corev1.Container{Name: "server", Image: "registry.example/shop/api:v1.2.3", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}
	for j := range 20 {
		container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", j), Value: "a value of some length"})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name(i), Labels: map[string]string{"app": "api", "team": "checkout"}},
		Spec:       corev1.PodSpec{NodeName: node(i % *agents), Containers: []corev1.Container{container}},
	}
}

// each calls f for all numbers below n, several at a time.
func (f *fleet) each(n int, do func(i int) error) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					f.b.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	require.False(f.b, f.b.Failed())
}

// start starts all agents and returns when each has its list.
func (f *fleet) start(selector func(node string) fields.Selector) {
	f.b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.b.Cleanup(cancel)
	var synced []cache.InformerSynced
	for i := range *agents {
		client, err := kubernetes.NewForConfig(f.connection())
		require.NoError(f.b, err)
		watched := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll, selector(node(i)))
		_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: cache.ToListWatcherWithWatchListSemantics(watched, client), ObjectType: &corev1.Pod{}, Transform: nothing,
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc:    func(any) { f.events.Add(1) },
				UpdateFunc: func(any, any) { f.events.Add(1) },
			},
		})
		synced = append(synced, controller.HasSynced)
		go controller.RunWithContext(ctx)
	}
	require.True(f.b, cache.WaitForCacheSync(ctx.Done(), synced...))
	f.settle()
}

// nothing keeps of a pod its name and version, since this process plays all
// agents.
func nothing(object any) (any, error) {
	p, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, ResourceVersion: p.ResourceVersion}}, nil
}

// connection is a way to the API server that shares nothing with another.
func (f *fleet) connection() *rest.Config {
	config := f.cluster.AdminConfig()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return counted{c, &f.bytes}, err
	}
	return config
}

// counted counts what is read.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// change changes pods at the rate and returns when agents have all of it.
func (f *fleet) change() {
	f.b.Helper()
	ticks := time.NewTicker(time.Second / time.Duration(*rate))
	defer ticks.Stop()
	for i := range *changes {
		<-ticks.C
		patch := fmt.Sprintf(`{"metadata":{"labels":{"change":"%d"}}}`, i)
		_, err := f.admin.CoreV1().Pods("shop").Patch(context.Background(), name(i%(*agents**pods)), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		require.NoError(f.b, err)
	}
	f.settle()
}

// settle returns when no agent has got anything for two seconds.
func (f *fleet) settle() {
	last, since := f.events.Load(), time.Now()
	require.Eventually(f.b, func() bool {
		if now := f.events.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	}, 10*time.Minute, 100*time.Millisecond, "agents have everything")
}

// usage is what was used up to a moment.
type usage struct {
	cpu           float64 // of the API server, seconds
	resident      float64 // bytes
	bytes, events int64
}

func (f *fleet) usage() usage {
	f.b.Helper()
	raw, err := f.admin.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(context.Background())
	require.NoError(f.b, err)
	u := usage{bytes: f.bytes.Load(), events: f.events.Load()}
	lines := bufio.NewScanner(strings.NewReader(string(raw)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "process_cpu_seconds_total":
			u.cpu, err = strconv.ParseFloat(value, 64)
		case "process_resident_memory_bytes":
			u.resident, err = strconv.ParseFloat(value, 64)
		}
		require.NoError(f.b, err)
	}
	require.NoError(f.b, lines.Err())
	return u
}

// since are the cells of a row.
func (u usage) since(before usage, changes int) string {
	each := ""
	if changes > 0 {
		each = fmt.Sprintf("%.1f", float64(u.events-before.events)/float64(changes))
	}
	const mebi = 1 << 20
	return fmt.Sprintf("%.1f | %.0f | %.1f | %d | %s", u.cpu-before.cpu, u.resident/mebi, float64(u.bytes-before.bytes)/mebi, u.events-before.events, each)
}
