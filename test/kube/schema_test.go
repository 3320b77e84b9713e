package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/tocsin-rules/tocsin/test/kube"
)

// TestSchema runs the scripts in testdata/schema against the
// CustomResourceDefinitions and admission policies in deploy. Their commands:
//
//	apply            says whether a manifest is accepted, or why not
//	apply show       prints an accepted manifest with its defaults
//	update           the same after the manifest of the last apply
func TestSchema(t *testing.T) {
	c := kube.Start(t)
	c.Namespace("shop")
	c.Namespace("gmp-public")
	c.ApplyFiles("../../deploy/crds", "../../deploy/manifests/admission-policies.yaml")
	applier := kube.NewApplier(t, c.AdminConfig())
	awaitPolicies(t, applier)
	datadriven.Walk(t, "testdata/schema", func(t *testing.T, path string) {
		var last *unstructured.Unstructured
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			objects := kube.Manifests(t, []byte(d.Input))
			require.Len(t, objects, 1, d.Pos)
			if d.Cmd == "apply" && last != nil {
				remove(t, applier, last)
			}
			got, err := applier.Apply(t.Context(), objects[0])
			if err != nil {
				return refusal(err)
			}
			last = got
			if d.HasArg("show") {
				return shown(t, got)
			}
			return "accepted\n"
		})
		if last != nil {
			remove(t, applier, last)
		}
	})
}

// awaitPolicies returns when the API server enforces the policies, which takes
// it a moment.
func awaitPolicies(t *testing.T, a *kube.Applier) {
	t.Helper()
	for _, manifest := range []string{
		"{apiVersion: monitoring.googleapis.com/v1, kind: OperatorConfig, metadata: {name: other, namespace: shop}}",
		"{apiVersion: monitoring.googleapis.com/v1, kind: ClusterNodeMonitoring, metadata: {name: twice}, spec: {endpoints: [{}, {}]}}",
		"{apiVersion: monitoring.googleapis.com/v1, kind: ClusterNodeMonitoring, metadata: {name: drop}, spec: {endpoints: [{metricRelabeling: [{action: labeldrop, regex: job}]}]}}",
	} {
		object := kube.Manifests(t, []byte(manifest))[0]
		require.Eventually(t, func() bool {
			_, err := a.Apply(t.Context(), object)
			if err == nil {
				remove(t, a, object)
			}
			return err != nil
		}, settle, 50*time.Millisecond, manifest)
	}
}

func remove(t *testing.T, a *kube.Applier, object *unstructured.Unstructured) {
	resource, err := a.Resource(object)
	require.NoError(t, err)
	if err := resource.Delete(context.Background(), object.GetName(), metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		require.NoError(t, err)
	}
}

// refusal is the reason and, one in a line, what is wrong with which field.
func refusal(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return "error: " + err.Error() + "\n"
	}
	details := status.Status().Details
	if details == nil || len(details.Causes) == 0 {
		return fmt.Sprintf("%s: %s\n", status.Status().Reason, status.Status().Message)
	}
	var b strings.Builder
	for _, cause := range details.Causes {
		if cause.Field == "<nil>" && len(details.Causes) > 1 {
			continue // There may be more to say, it says.
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", status.Status().Reason, cause.Field, cause.Message)
	}
	return b.String()
}

// shown is what a user wrote and what was added to it.
func shown(t *testing.T, object *unstructured.Unstructured) string {
	content := object.DeepCopy().Object
	delete(content, "metadata")
	delete(content, "apiVersion")
	delete(content, "kind")
	out, err := yaml.Marshal(content)
	require.NoError(t, err)
	return string(out)
}
