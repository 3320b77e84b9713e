package operator_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tocsin-rules/tocsin/test/kube"
)

// answers makes the API server ask the operator of a test where it listens: on
// a port of this machine, with the certificate of its Service.
func (f *fleet) answers() {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f.t, err)
	f.webhook = l.Addr().String()
	require.NoError(f.t, l.Close())
	var s corev1.Service
	require.NoError(f.t, f.Get(f.t.Context(), client.ObjectKey{Namespace: "gmp-system", Name: "operator"}, &s))
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}
	require.NoError(f.t, f.Update(f.t.Context(), &s))
	manifests, err := os.ReadFile("../../../deploy/manifests/admission-webhooks.yaml")
	require.NoError(f.t, err)
	f.apply(strings.ReplaceAll(string(manifests), "name: operator, path", "name: operator, port: "+strings.TrimPrefix(f.webhook, "127.0.0.1:")+", path"))
}

// trusted is the authority that the API server checks the operator by.
func (f *fleet) trusted() string {
	f.t.Helper()
	var c admissionregistrationv1.ValidatingWebhookConfiguration
	require.NoError(f.t, f.Get(f.t.Context(), client.ObjectKey{Name: "operator.gmp-system.monitoring.googleapis.com"}, &c))
	return string(c.Webhooks[0].ClientConfig.CABundle)
}

func TestRulesThatDoNotParseAreRefused(t *testing.T) {
	f := newFleet(t)
	f.answers()
	stop := f.operate()
	applier := kube.NewApplier(t, f.AdminConfig())
	apply := func(kind, expr string) error {
		manifest := fmt.Sprintf(`{apiVersion: monitoring.googleapis.com/v1, kind: %s, metadata: {name: webhook}, spec: {groups: [{name: g, rules: [{record: a, expr: '%s'}]}]}}`, kind, expr)
		object := kube.Manifests(t, []byte(manifest))[0]
		if kind == "Rules" {
			object.SetNamespace("shop")
		}
		_, err := applier.Apply(t.Context(), object)
		return err
	}
	for _, kind := range []string{"Rules", "ClusterRules", "GlobalRules"} {
		f.eventually(func() error {
			if err := apply(kind, "sum("); err == nil || !strings.Contains(err.Error(), "unclosed left parenthesis") {
				return fmt.Errorf("%s is not refused: %w", kind, err)
			}
			return nil
		})
		require.NoError(t, apply(kind, "sum(up)"))
	}
	require.ErrorContains(t, apply("Rules", `up{namespace="other"}`), "namespace", "what is outside the tenant")

	t.Log("the certificate is replaced while the operator runs, and trusted before it is shown")
	before := f.trusted()
	secret := &corev1.Secret{}
	require.NoError(t, f.Get(t.Context(), client.ObjectKey{Namespace: "gmp-system", Name: "operator-webhook"}, secret))
	require.NoError(t, f.Delete(t.Context(), secret))
	f.eventually(func() error {
		if f.trusted() == before {
			return errors.New("the API server trusts the old authority still")
		}
		return nil
	})
	f.eventually(func() error {
		if err := apply("Rules", "sum("); err == nil {
			return errors.New("nobody answers the API server")
		}
		return nil
	})

	t.Log("without an operator nothing is refused")
	stop()
	require.NoError(t, apply("Rules", "sum("))
}
