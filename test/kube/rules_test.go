package kube_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tocsin-rules/tocsin/ruler/source"
	"github.com/tocsin-rules/tocsin/test/kube"
)

const settle = 2 * time.Minute

// rulesIn is a ConfigMap with a rule file of one group under each key.
func rulesIn(name string, groups map[string]string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tocsin.dev/rules": "true"}}, Data: map[string]string{}}
	for key, group := range groups {
		m.Data[key] = "groups: [{name: " + group + ", rules: [{record: x, expr: 1}]}]"
	}
	return m
}

// follow runs a source that reads the labelled ConfigMaps of a namespace with
// the rights of a service account of its own.
func follow(t *testing.T, kubeconfig string) (*source.Loader, <-chan source.Snapshot) {
	cfg := source.DefaultConfig()
	cfg.PollInterval = time.Hour // what is noticed is noticed by the watch
	cfg.MaxFileBytes = 64 << 10
	cfg.ConfigMaps = []source.ConfigMaps{{LabelSelector: "tocsin.dev/rules=true", KubeconfigFile: kubeconfig}}
	l, err := source.New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	snapshots := make(chan source.Snapshot, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, func(s source.Snapshot) { snapshots <- s }) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return l, snapshots
}

// await returns the first snapshot that has these keys and number of errors.
func await(t *testing.T, snapshots <-chan source.Snapshot, faults int, keys ...string) source.Snapshot {
	t.Helper()
	deadline := time.After(settle)
	for {
		select {
		case s := <-snapshots:
			var got []string
			for _, g := range s.Groups {
				got = append(got, g.Key)
			}
			if slices.Equal(got, keys) && len(s.Errors) == faults {
				return s
			}
		case <-deadline:
			require.Fail(t, "no snapshot with the expected groups", "%v, %d faults", keys, faults)
		}
	}
}

func mayReadConfigMaps() rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"}}
}

// change is one edit of ConfigMaps.
type change func(context.Context, typedcorev1.ConfigMapInterface) error

func create(m *corev1.ConfigMap) change {
	return func(ctx context.Context, maps typedcorev1.ConfigMapInterface) error {
		_, err := maps.Create(ctx, m, metav1.CreateOptions{})
		return err
	}
}

func update(m *corev1.ConfigMap) change {
	return func(ctx context.Context, maps typedcorev1.ConfigMapInterface) error {
		_, err := maps.Update(ctx, m, metav1.UpdateOptions{})
		return err
	}
}

func apply(t *testing.T, client kubernetes.Interface, namespace string, c change) {
	t.Helper()
	require.NoError(t, c(t.Context(), client.CoreV1().ConfigMaps(namespace)))
}

func compressed(t *testing.T, text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestRulesComeFromLabelledConfigMapsOfOneNamespace(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	kubeconfig := c.ServiceAccount("monitoring", "rule-evaluator", mayReadConfigMaps())
	c.Namespace("other")
	admin := c.Admin()
	apply(t, admin, "monitoring", create(rulesIn("a", map[string]string{"one.yml": "one"})))
	apply(t, admin, "other", create(rulesIn("a", map[string]string{"foreign.yml": "foreign"})))
	unlabelled := rulesIn("unlabelled", map[string]string{"x.yml": "unlabelled"})
	unlabelled.Labels = nil
	apply(t, admin, "monitoring", create(unlabelled))

	_, snapshots := follow(t, kubeconfig)
	s := await(t, snapshots, 0, "file/one")
	require.Equal(t, "monitoring/a/one.yml", s.Groups[0].File)

	began := time.Now()
	apply(t, admin, "monitoring", update(rulesIn("a", map[string]string{"renamed.yml": "one", "two.yml": "two"})))
	s = await(t, snapshots, 0, "file/one", "file/two")
	t.Logf("a change was there after %s", time.Since(began))
	require.Equal(t, "monitoring/a/renamed.yml", s.Groups[0].File)

	zipped := rulesIn("b", nil)
	zipped.BinaryData = map[string][]byte{"three.yml.gz": compressed(t, "groups: [{name: three, rules: [{record: x, expr: 1}]}]")}
	apply(t, admin, "monitoring", create(zipped))
	await(t, snapshots, 0, "file/one", "file/three", "file/two")

	bad := rulesIn("a", nil)
	bad.Data = map[string]string{"renamed.yml": "groups: 7", "two.yml": string(bytes.Repeat([]byte("#"), 65<<10))}
	apply(t, admin, "monitoring", update(bad))
	s = await(t, snapshots, 2, "file/one", "file/three", "file/two")
	require.Equal(t, "configmap:monitoring/a/renamed.yml", s.Errors[0].File)
	require.ErrorContains(t, s.Errors[1].Err, "has more than max-file-bytes (65536)")

	require.NoError(t, admin.CoreV1().ConfigMaps("monitoring").Delete(t.Context(), "a", metav1.DeleteOptions{}))
	await(t, snapshots, 0, "file/three")
}

func TestRulesStayWhileTheAPIServerIsAway(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	kubeconfig := c.ServiceAccount("monitoring", "rule-evaluator", mayReadConfigMaps())
	apply(t, c.Admin(), "monitoring", create(rulesIn("a", map[string]string{"one.yml": "one"})))
	_, snapshots := follow(t, kubeconfig)
	await(t, snapshots, 0, "file/one")
	c.StopAPIServer()
	s := await(t, snapshots, 1, "file/one")
	require.Equal(t, "configmaps of namespace monitoring with tocsin.dev/rules=true", s.Errors[0].File)
	c.StartAPIServer()
	await(t, snapshots, 0, "file/one")
	apply(t, c.Admin(), "monitoring", update(rulesIn("a", map[string]string{"one.yml": "two"})))
	await(t, snapshots, 0, "file/two")
}

func TestWithoutTheRightToReadConfigMapsNoRulesAreKnown(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	l, snapshots := follow(t, c.ServiceAccount("monitoring", "nobody"))
	require.Eventually(t, func() bool {
		s, err := l.Load(t.Context())
		require.NoError(t, err)
		return len(s.Errors) == 1 && bytes.Contains([]byte(s.Errors[0].Err.Error()), []byte("configmaps is forbidden"))
	}, settle, 100*time.Millisecond)
	require.ErrorContains(t, l.Incomplete(), "configmaps is forbidden")
	require.Empty(t, snapshots, "nothing is delivered as long as nobody knows what rules there are")
}
