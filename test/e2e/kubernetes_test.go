package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/tocsin-rules/tocsin/test/kube"
	"github.com/tocsin-rules/tocsin/test/kube/kubelet"
	"github.com/tocsin-rules/tocsin/test/program"
)

// installation is what a user has who applied deploy/ to a cluster of three
// nodes: the pods of gmp-system are real processes. The data is in a Prometheus
// outside of the cluster, and notifications come to the test.
type installation struct {
	t       *testing.T
	cluster *kube.Cluster
	applier *kube.Applier
	backend string // URL

	mu       sync.Mutex
	notified []notification
	hook     *httptest.Server
}

// notification is what Alertmanager posts to a webhook.
type notification struct {
	Status string
	Alerts []struct {
		Status string
		Labels map[string]string
	}
}

// install applies deploy/ and starts what its pods run. Nothing is configured
// yet.
func install(t *testing.T) *installation {
	t.Helper()
	c := kube.Start(t)
	c.StartNodes("n1", "n2", "n3")
	in := &installation{t: t, cluster: c, applier: kube.NewApplier(t, c.AdminConfig()), backend: "http://" + startStore(t)}
	in.hook = httptest.NewServer(http.HandlerFunc(in.receive))
	t.Cleanup(in.hook.Close)
	in.apply("testdata/kubernetes/volume.yaml")
	out, err := exec.Command(program.Kubectl().Build(t), "--kubeconfig", c.AdminKubeconfig(), "apply", "--server-side", "-k", "../../deploy").CombinedOutput()
	require.NoError(t, err, "%s", out)
	kubelet.Start(t, kubelet.Config{
		Client: c.Admin(), APIServer: strings.TrimPrefix(c.AdminConfig().Host, "https://"), Namespace: "gmp-system",
		Programs: kubelet.Build(t, "collector", "rule-evaluator", "operator", "tocsin"),
	})
	return in
}

// startStore runs a Prometheus that is written to and returns its address.
func startStore(t *testing.T) string {
	t.Helper()
	address, dir := freeAddress(t), t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, []byte("storage: {tsdb: {out_of_order_time_window: 10m}}"), 0o600))
	startServer(t, program.Prometheus().Build(t), address, "--web.listen-address="+address, "--web.enable-remote-write-receiver",
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"))
	return address
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (in *installation) receive(w http.ResponseWriter, r *http.Request) {
	var n notification
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.notified = append(in.notified, n)
}

// waitNotified waits for a notification of an alert and returns its labels.
func (in *installation) waitNotified(status, alert string) (labels map[string]string) {
	in.t.Helper()
	eventually(in.t, func() error {
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, n := range in.notified {
			for _, a := range n.Alerts {
				if a.Status == status && a.Labels["alertname"] == alert {
					labels = a.Labels
					return nil
				}
			}
		}
		return fmt.Errorf("nobody was told that %s is %s: %v", alert, status, in.notified)
	})
	return labels
}

// apply applies a file in which {{backend}} and {{webhook}} stand for what the
// test has started.
func (in *installation) apply(file string) {
	in.t.Helper()
	for _, object := range in.manifests(file) {
		_, err := in.applier.Apply(in.t.Context(), object)
		require.NoError(in.t, err, "%s: %s %s", file, object.GetKind(), object.GetName())
	}
}

func (in *installation) manifests(file string) []*unstructured.Unstructured {
	in.t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(in.t, err)
	content = []byte(strings.NewReplacer("{{backend}}", in.backend, "{{webhook}}", in.hook.URL, "{{dir}}", in.t.TempDir()).Replace(string(content)))
	return kube.Manifests(in.t, content)
}

// remove deletes what a file has.
func (in *installation) remove(file string) {
	in.t.Helper()
	for _, object := range in.manifests(file) {
		resource, err := in.applier.Resource(object)
		require.NoError(in.t, err)
		require.NoError(in.t, resource.Delete(in.t.Context(), object.GetName(), metav1.DeleteOptions{}))
	}
}

// get is the object as the API server has it.
func (in *installation) get(kind, namespace, name string, into any) error {
	object := &unstructured.Unstructured{}
	object.SetAPIVersion("monitoring.googleapis.com/v1")
	object.SetKind(kind)
	object.SetNamespace(namespace)
	resource, err := in.applier.Resource(object)
	if err != nil {
		return err
	}
	got, err := resource.Get(in.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	content, err := got.MarshalJSON()
	if err != nil {
		return err
	}
	return json.Unmarshal(content, into)
}

// runShop makes an application of the pods of a namespace: each answers at its
// own address, to those that have the token.
func (in *installation) runShop(namespace, token string, pods int) {
	in.t.Helper()
	var running []corev1.Pod
	eventually(in.t, func() error {
		list, err := in.cluster.Admin().CoreV1().Pods(namespace).List(in.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		running = running[:0]
		for _, p := range list.Items {
			if p.Status.PodIP != "" {
				running = append(running, p)
			}
		}
		if len(running) != pods {
			return fmt.Errorf("%d pods run in %s", len(running), namespace)
		}
		return nil
	})
	for _, p := range running {
		runExporter(in.t, podAddress(p.Status.PodIP, p.Spec.Containers[0].Ports[0].ContainerPort), token)
	}
}

func podAddress(ip string, port int32) string { return net.JoinHostPort(ip, strconv.Itoa(int(port))) }

// runExporter serves metrics of an application until the test ends.
func runExporter(t *testing.T, address, token string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	began := time.Now()
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		seconds := time.Since(began).Seconds()
		fmt.Fprintf(w, "# TYPE requests_total counter\nrequests_total{code=\"200\"} %f\nrequests_total{code=\"404\"} %f\n", 10*seconds, seconds)
		fmt.Fprintf(w, "# TYPE errors_total counter\nerrors_total %f\n", 2*seconds)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// query evaluates an expression at the backend, now.
func (in *installation) query(expr string) (model.Vector, error) {
	ctx, cancel := context.WithTimeout(in.t.Context(), 10*time.Second)
	defer cancel()
	value, _, _, err := prometheusAPI(in.t, in.backend).Query(ctx, expr, time.Now())
	if err != nil {
		return nil, err
	}
	return value.(model.Vector), nil
}

// waitSeries waits until an expression has as many results and returns them.
func (in *installation) waitSeries(n int, expr string) (series model.Vector) {
	in.t.Helper()
	eventually(in.t, func() (err error) {
		series, err = in.query(expr)
		if err == nil && len(series) != n {
			err = fmt.Errorf("%s has %d series: %v", expr, len(series), series)
		}
		return err
	})
	return series
}
