package operator_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/operator/app"
	"github.com/tocsin-rules/tocsin/operator/render"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/test/kube"
	"github.com/tocsin-rules/tocsin/web/server"
)

// settle is how long something may take on a loaded machine.
const settle = 1 * time.Minute

// fleet is a cluster with the operator's manifests and clients for tests.
type fleet struct {
	*kube.Cluster
	client.Client
	t *testing.T
	// webhook is where the operator answers the API server.
	webhook string
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	c := kube.Start(t)
	c.ApplyFiles("../../../deploy/crds", "../../../deploy/manifests/namespaces.yaml", "../../../deploy/manifests/operator.yaml")
	c.Namespace("gmp-system") // its default service account
	c.Namespace("shop")
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1.AddToScheme(scheme))
	admin, err := client.New(c.AdminConfig(), client.Options{Scheme: scheme})
	require.NoError(t, err)
	return &fleet{Cluster: c, Client: admin, t: t}
}

func TestMain(m *testing.M) {
	app.SetLoggers(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// operate runs an operator with the rights of its service account until the
// returned function is called.
func (f *fleet) operate() (stop func()) {
	f.t.Helper()
	o := app.Options{
		Render: render.Settings{
			SystemNamespace: "gmp-system", PublicNamespace: "gmp-public", Cluster: "clu", Location: "loc", ProjectID: "proj",
			Scope: plan.Scope, CheckEvaluator: ruler.CheckConfig,
		},
		Kubeconfig: f.Kubeconfig("gmp-system", "operator"), LeaderElection: true, WebhookAddress: f.webhook,
		HTTP: server.Config{ListenAddress: "127.0.0.1:0"}, ProbeAddress: "127.0.0.1:0",
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, o, slog.New(slog.NewTextHandler(f.t.Output(), nil))) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(f.t, <-ended)
		}
	}
	f.t.Cleanup(stop)
	return stop
}

// apply applies manifests as an administrator.
func (f *fleet) apply(manifests string) {
	f.t.Helper()
	applier := kube.NewApplier(f.t, f.AdminConfig())
	for _, o := range kube.Manifests(f.t, []byte(manifests)) {
		_, err := applier.Apply(f.t.Context(), o)
		require.NoError(f.t, err, o.GetName())
	}
}

// eventually polls until a check has nothing to object.
func (f *fleet) eventually(check func() error) {
	f.t.Helper()
	var err error
	deadline := time.After(settle)
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		if err = check(); err == nil {
			return
		}
		select {
		case <-ticks.C:
		case <-deadline:
			require.NoError(f.t, err)
		}
	}
}

// holds checks that a value of a ConfigMap contains a text, or that it does not.
func (f *fleet) holds(configMap, key, text string, want bool) func() error {
	return func() error {
		var m corev1.ConfigMap
		if err := f.Get(f.t.Context(), client.ObjectKey{Namespace: "gmp-system", Name: configMap}, &m); err != nil {
			return err
		}
		if strings.Contains(m.Data[key], text) != want {
			return fmt.Errorf("%s of %s contains %q: not %v in %v", key, configMap, text, want, m.Data)
		}
		return nil
	}
}

// says checks a condition of a resource, and that its message contains a text.
func (f *fleet) says(o client.Object, status corev1.ConditionStatus, text string) func() error {
	return func() error {
		if err := f.Get(f.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		s := o.(v1.Resource).GetMonitoringStatus()
		for _, c := range s.Conditions {
			if c.Type == v1.ConfigurationCreateSuccess && c.Status == status && strings.Contains(c.Message, text) && s.ObservedGeneration == o.GetGeneration() {
				return nil
			}
		}
		return fmt.Errorf("%s has no condition %s with %q: %+v", o.GetName(), status, text, s)
	}
}

// mirrored checks the value of a key in the Secret of collectors; "" means that
// there is none.
func (f *fleet) mirrored(key, want string) func() error {
	return func() error {
		var s corev1.Secret
		err := f.Get(f.t.Context(), client.ObjectKey{Namespace: "gmp-system", Name: "collection"}, &s)
		if err == nil && string(s.Data[key]) != want {
			err = fmt.Errorf("%s is mirrored as %q, not %q", key, s.Data[key], want)
		}
		return err
	}
}

func podMonitoring(name string) *v1.PodMonitoring {
	return &v1.PodMonitoring{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
}

func rules(name string) *v1.Rules {
	return &v1.Rules{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
}

const manifests = `
apiVersion: monitoring.googleapis.com/v1
kind: PodMonitoring
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  endpoints: [{port: web, interval: 30s}]
---
apiVersion: monitoring.googleapis.com/v1
kind: PodMonitoring
metadata: {name: broken, namespace: shop}
spec:
  selector: {}
  endpoints: [{port: "(", interval: 30s}]
---
apiVersion: monitoring.googleapis.com/v1
kind: Rules
metadata: {name: slo, namespace: shop}
spec:
  groups: [{name: slo, rules: [{record: "shop:up", expr: sum(up)}]}]
---
apiVersion: monitoring.googleapis.com/v1
kind: Rules
metadata: {name: broken, namespace: shop}
spec:
  groups: [{name: slo, rules: [{record: "shop:up", expr: "sum("}]}]
`

// config is an OperatorConfig with all that rules need.
const config = `
apiVersion: monitoring.googleapis.com/v1
kind: OperatorConfig
metadata: {name: config, namespace: gmp-public}
backends: [{name: all, url: "http://prometheus.example:9090", remoteWrite: {}}]
`

func TestOperatorConfiguresAndReports(t *testing.T) {
	f := newFleet(t)
	f.operate()
	f.apply(config + "---" + manifests)
	t.Log("resources are part of the configuration, those at fault say so and concern no other")
	f.eventually(f.holds("collector-0", "scrape.yaml", "job_name: PodMonitoring/shop/api/web", true))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "sum(up)", true))
	f.eventually(f.holds("collector", "config.yaml", "http://prometheus.example:9090/api/v1/write", true))
	f.eventually(f.holds("rule-evaluator", "config.yaml", "http://prometheus.example:9090", true))
	f.eventually(f.says(podMonitoring("api"), corev1.ConditionTrue, ""))
	f.eventually(f.says(rules("slo"), corev1.ConditionTrue, ""))
	f.eventually(f.says(podMonitoring("broken"), corev1.ConditionFalse, "port"))
	f.eventually(f.says(rules("broken"), corev1.ConditionFalse, "unclosed left parenthesis"))

	t.Log("a bad update changes nothing, a good one heals")
	f.apply(strings.ReplaceAll(strings.ReplaceAll(manifests, "sum(up)", "sum(up"), "port: web", `port: "["`))
	f.eventually(f.says(rules("slo"), corev1.ConditionFalse, "unclosed left parenthesis"))
	f.eventually(f.says(podMonitoring("api"), corev1.ConditionFalse, "port"))
	require.NoError(t, f.holds("collector-0", "scrape.yaml", "job_name: PodMonitoring/shop/api/web", true)())
	require.NoError(t, f.holds("rules-generated", "rules__shop__slo.yaml", "sum(up)", true)())
	f.apply(strings.ReplaceAll(manifests, "sum(up)", "max(up)"))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "max(up)", true))
	f.eventually(f.says(rules("slo"), corev1.ConditionTrue, ""))

	t.Log("what somebody changes in the output is put right")
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "gmp-system", Name: "rules-generated"}}
	require.NoError(t, f.Delete(t.Context(), m))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "max(up)", true))

	t.Log("deleted resources are gone from the configuration")
	require.NoError(t, f.Delete(t.Context(), podMonitoring("api")))
	require.NoError(t, f.Delete(t.Context(), rules("slo")))
	f.eventually(f.holds("collector-0", "scrape.yaml", "PodMonitoring/shop/api", false))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "up", false))
}

func TestWhatChangedWhileNoOperatorRan(t *testing.T) {
	f := newFleet(t)
	stop := f.operate()
	f.apply(config + "---" + manifests)
	f.eventually(f.holds("collector-0", "scrape.yaml", "PodMonitoring/shop/api/web", true))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "sum(up)", true))
	f.eventually(f.says(rules("slo"), corev1.ConditionTrue, ""))
	stop()

	require.NoError(t, f.Delete(t.Context(), podMonitoring("api")))
	f.apply(strings.ReplaceAll(manifests[strings.Index(manifests, "---"):], "sum(up)", "min(up)"))
	f.operate()
	f.eventually(f.holds("collector-0", "scrape.yaml", "PodMonitoring/shop/api", false))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "min(up)", true))
	f.eventually(f.says(rules("slo"), corev1.ConditionTrue, ""))
}

func TestTheOtherOperatorTakesOver(t *testing.T) {
	f := newFleet(t)
	stop := f.operate()
	f.apply(config + "---" + manifests)
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "sum(up)", true))
	f.operate()
	stop()
	f.apply(strings.ReplaceAll(manifests, "sum(up)", "max(up)"))
	f.eventually(f.holds("rules-generated", "rules__shop__slo.yaml", "max(up)", true))
}

func TestOnlyReferencedKeysAreMirrored(t *testing.T) {
	f := newFleet(t)
	f.operate()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-token"},
		StringData: map[string]string{"token": "first", "other": "nobody asks for it"},
	}
	require.NoError(t, f.Create(t.Context(), secret))
	f.apply(config + `---
apiVersion: monitoring.googleapis.com/v1
kind: PodMonitoring
metadata: {name: api, namespace: shop}
spec:
  selector: {}
  endpoints: [{port: web, interval: 30s, authorization: {credentials: {secret: {name: api-token, key: token}}}}]
`)
	t.Log("the namespace has to allow it, and the status says how")
	f.eventually(f.says(podMonitoring("api"), corev1.ConditionFalse, "bind ClusterRole gmp-system:scrape-secrets"))
	f.eventually(f.holds("collector-0", "scrape.yaml", "credentials_file: /etc/secrets/secret_shop_api-token_token", true))
	require.NoError(t, f.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "scrape-secrets"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "gmp-system:scrape-secrets"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "gmp-system", Name: "operator"}},
	}))
	f.eventually(f.mirrored("secret_shop_api-token_token", "first"))
	f.eventually(f.says(podMonitoring("api"), corev1.ConditionTrue, ""))
	require.NoError(t, f.mirrored("secret_shop_api-token_other", "")())

	t.Log("rotation")
	secret.StringData = map[string]string{"token": "second"}
	require.NoError(t, f.Update(t.Context(), secret))
	f.eventually(f.mirrored("secret_shop_api-token_token", "second"))

	t.Log("removal with the reference")
	require.NoError(t, f.Delete(t.Context(), podMonitoring("api")))
	f.eventually(f.mirrored("secret_shop_api-token_token", ""))
}

func TestAlertmanagerKeepsItsLastGoodConfiguration(t *testing.T) {
	f := newFleet(t)
	f.operate()
	f.eventually(f.alertmanagerHas("noop"))
	f.apply(config)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "gmp-public", Name: "alertmanager"},
		StringData: map[string]string{"alertmanager.yaml": "route: {receiver: team}\nreceivers: [{name: team}]\n"},
	}
	require.NoError(t, f.Create(t.Context(), secret))
	f.eventually(f.alertmanagerHas("receiver: team"))
	f.eventually(f.alertmanagerSays(corev1.ConditionTrue, ""))

	secret.StringData = map[string]string{"alertmanager.yaml": "route: {receiver: nobody}\nreceivers: [{name: team}]\n"}
	require.NoError(t, f.Update(t.Context(), secret))
	f.eventually(f.alertmanagerSays(corev1.ConditionFalse, "undefined receiver"))
	require.NoError(t, f.alertmanagerHas("receiver: team")())

	require.NoError(t, f.Delete(t.Context(), secret))
	f.eventually(f.alertmanagerHas("noop"))
	f.eventually(f.alertmanagerSays(corev1.ConditionTrue, "nobody is notified"))
}

func (f *fleet) alertmanagerHas(text string) func() error {
	return func() error {
		var s corev1.Secret
		err := f.Get(f.t.Context(), client.ObjectKey{Namespace: "gmp-system", Name: "alertmanager"}, &s)
		if err == nil && !strings.Contains(string(s.Data["config.yaml"]), text) {
			err = fmt.Errorf("the Alertmanager's configuration lacks %q: %s", text, s.Data["config.yaml"])
		}
		return err
	}
}

func (f *fleet) alertmanagerSays(status corev1.ConditionStatus, text string) func() error {
	return func() error {
		var oc v1.OperatorConfig
		if err := f.Get(f.t.Context(), client.ObjectKey{Namespace: "gmp-public", Name: "config"}, &oc); err != nil {
			return err
		}
		for _, c := range oc.Status.Conditions {
			if c.Type == v1.AlertmanagerConfigurationSuccess && c.Status == status && strings.Contains(c.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("no condition %s with %q: %+v", status, text, oc.Status)
	}
}

// The operator is refused what its role does not have.
func TestOperatorHasNoOtherRights(t *testing.T) {
	f := newFleet(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "private"}}
	require.NoError(t, f.Create(t.Context(), secret))
	cfg := f.AdminConfig()
	cfg.Impersonate.UserName = "system:serviceaccount:gmp-system:operator"
	operator, err := client.New(cfg, client.Options{})
	require.NoError(t, err)
	for name, err := range map[string]error{
		"read a Secret":        operator.Get(t.Context(), client.ObjectKeyFromObject(secret), secret),
		"list Secrets":         operator.List(t.Context(), &corev1.SecretList{}, client.InNamespace("gmp-system")),
		"write a ConfigMap":    operator.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x"}}),
		"write another Secret": operator.Update(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "gmp-system", Name: "x"}}),
	} {
		require.True(t, apierrors.IsForbidden(err), "%s: %v", name, err)
	}
}
