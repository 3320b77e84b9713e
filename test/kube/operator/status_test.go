package operator_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// pod makes a running pod of a component behind which a server listens.
func (f *fleet) pod(component string, s *httptest.Server) {
	f.t.Helper()
	host, text, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(f.t, err)
	port, err := strconv.Atoi(text)
	require.NoError(f.t, err)
	isFalse, isTrue := false, true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "gmp-system", Name: component, Labels: map[string]string{"app.kubernetes.io/name": component}},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &isTrue, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: component, Image: "x", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: int32(port)}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &isFalse, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
	require.NoError(f.t, f.Create(f.t.Context(), p))
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: host, PodIPs: []corev1.PodIP{{IP: host}}}
	require.NoError(f.t, f.Status().Update(f.t.Context(), p))
}

// The servers answer as a collector and a rule-evaluator do; that they do is
// shown with the real ones in test/e2e.
func TestStatusOfTargetsAndRulesIsWrittenWhenItIsNews(t *testing.T) {
	f := newFleet(t)
	var polls, failing atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := polls.Add(1)
		fmt.Fprintf(w, `{"status":"success","data":{"pools":[{"name":"PodMonitoring/shop/api/web","active":1,"unhealthy":0,"dropped":[{"reason":"not selected","count":3}],
			"groups":[{"lastError":"","count":1,"targets":[{"labels":{"instance":"a:web"},"health":"up","lastScrapeDurationSeconds":"0.%d"}]}]}],"configErrors":[]}}`, n)
	}))
	t.Cleanup(collector.Close)
	evaluator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		health := "ok"
		if failing.Load() != 0 {
			health = "err"
		}
		if r.FormValue("group_next_token") == "" {
			fmt.Fprint(w, `{"status":"success","data":{"groups":[],"groupNextToken":"next"}}`)
			return
		}
		fmt.Fprintf(w, `{"status":"success","data":{"groups":[{"name":"slo","file":"configmap:gmp-system/rules-generated/rules__shop__slo.yaml","owner":"m1",
			"rules":[{"name":"shop:up","health":%q,"lastError":"no data"}]}]}}`, health)
	}))
	t.Cleanup(evaluator.Close)
	f.pod("collector", collector)
	f.pod("rule-evaluator", evaluator)
	f.operate()
	f.apply(config + "features: {targetStatus: {enabled: true}}\n---" + manifests)

	pm, r := podMonitoring("api"), rules("slo")
	f.eventually(func() error {
		if err := f.Get(t.Context(), client.ObjectKeyFromObject(pm), pm); err != nil || len(pm.Status.EndpointStatuses) != 1 || pm.Status.EndpointStatuses[0].ActiveTargets != 1 {
			return fmt.Errorf("no status of targets yet: %+v (%w)", pm.Status, err)
		}
		return nil
	})
	f.eventually(func() error {
		if err := f.Get(t.Context(), client.ObjectKeyFromObject(r), r); err != nil || r.Status.ActiveRules != 1 || r.Status.GroupStatuses[0].Owner != "m1" {
			return fmt.Errorf("no status of rules yet: %+v (%w)", r.Status, err)
		}
		return nil
	})
	f.eventually(f.says(podMonitoring("api"), corev1.ConditionTrue, ""))

	t.Log("scrapes that take another time are no news, failures are")
	require.NoError(t, f.Get(t.Context(), client.ObjectKeyFromObject(pm), pm))
	version, seen := pm.ResourceVersion, polls.Load()
	failing.Store(1)
	f.eventually(func() error {
		err := f.Get(t.Context(), client.ObjectKeyFromObject(r), r)
		if err != nil || r.Status.FailingRules != 1 || r.Status.GroupStatuses[0].SampleRules[0].LastError != "no data" || polls.Load() < seen+2 {
			return fmt.Errorf("the failure does not show: %+v (%w)", r.Status, err)
		}
		return nil
	})
	require.NoError(t, f.Get(t.Context(), client.ObjectKeyFromObject(pm), pm))
	require.Equal(t, version, pm.ResourceVersion)

	t.Log("what is turned off is not shown")
	f.apply(config)
	f.eventually(func() error {
		var after v1.PodMonitoring
		if err := f.Get(t.Context(), client.ObjectKeyFromObject(pm), &after); err != nil || len(after.Status.EndpointStatuses) != 0 {
			return fmt.Errorf("there is a status of targets still: %+v (%w)", after.Status, err)
		}
		return nil
	})
}
