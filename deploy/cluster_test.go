package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/tocsin-rules/tocsin/test/kube"
	"github.com/tocsin-rules/tocsin/test/program"
)

// kubectl runs kubectl as an administrator.
func kubectl(t *testing.T, c *kube.Cluster, input []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(program.Kubectl().Build(t), append([]string{"--kubeconfig", c.AdminKubeconfig()}, args...)...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// install applies everything, as the documentation says.
func install(t *testing.T, c *kube.Cluster) {
	t.Helper()
	out, err := kubectl(t, c, nil, "apply", "--server-side", "-k", ".")
	require.NoError(t, err, out)
	// Deprecated, or against the pod security of the namespace.
	require.NotContains(t, out, "Warning", out)
}

// TestTheAPIServerTakesEverything is about one installation, because an API
// server takes seconds to start.
func TestTheAPIServerTakesEverything(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	install(t, c)
	install(t, c) // again, over what is there
	t.Run("variants of the chart", func(t *testing.T) { variants(t, c) })
	t.Run("examples and rules", func(t *testing.T) { examples(t, c) })
	t.Run("autoscaling component", func(t *testing.T) { autoscaled(t, c) })
	t.Run("pod security", func(t *testing.T) { podSecurity(t, c) })
	t.Run("rights", func(t *testing.T) { rights(t, c) })
}

func variants(t *testing.T, c *kube.Cluster) {
	// The storage of one that is there can't be changed.
	out, err := kubectl(t, c, nil, "-n", "gmp-system", "delete", "statefulset", "alertmanager")
	require.NoError(t, err, out)
	for _, values := range []string{
		"collector.storage.hostPath=/var/lib/tocsin",
		"ruleEvaluator.autoscaling.enabled=true",
		"ruleEvaluator.discoverInAllNamespaces=false",
		"operator.readSecretsInAllNamespaces=true",
		"alertmanager.enabled=false,networkPolicies.enabled=false,priorityClass.create=false",
		"alertmanager.storage.storageClassName=fast,labels.cluster=east,collector.extraArgs={--log.level=debug}",
	} {
		manifests := helm(t, "template", "tocsin", "helm", "--include-crds", "--set", values)
		out, err := kubectl(t, c, manifests, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
		require.NoError(t, err, "%s: %s", values, out)
		require.NotContains(t, out, "unknown field", values)
	}
}

// examples are for namespaces of users, too.
func examples(t *testing.T, c *kube.Cluster) {
	c.Namespace("shop")
	for _, folder := range []string{"examples", "rules"} {
		out, err := kubectl(t, c, nil, "apply", "--server-side", "-f", folder)
		require.NoError(t, err, out)
		require.NotContains(t, out, "Warning", folder)
	}
}

// autoscaled applies the component over the rest, from a folder beside a copy
// of this one: kustomize takes relative paths only, and none that contains it.
func autoscaled(t *testing.T, c *kube.Cluster) {
	dir := t.TempDir()
	for _, folder := range []string{"crds", "manifests", "components"} {
		for _, file := range files(t, folder) {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "deploy", filepath.Dir(file)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "deploy", file), read(t, file), 0o600))
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "deploy", "kustomization.yaml"), read(t, "kustomization.yaml"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "mine"), 0o755))
	const mine = "resources: [../deploy]\ncomponents: [../deploy/components/autoscaling]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mine", "kustomization.yaml"), []byte(mine), 0o600))
	out, err := kubectl(t, c, nil, "kustomize", filepath.Join(dir, "mine"))
	require.NoError(t, err, out)
	for _, object := range kube.Manifests(t, []byte(out)) {
		_, pinned, err := unstructured.NestedInt64(object.Object, "spec", "replicas")
		require.NoError(t, err)
		require.False(t, pinned && object.GetKind() == "Deployment" && object.GetName() == "rule-evaluator", "the autoscaler says how many")
	}
	out, err = kubectl(t, c, []byte(out), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
	require.NoError(t, err, out)
}

// podSecurity makes the pods that controllers would, which is where the
// standard is enforced.
func podSecurity(t *testing.T, c *kube.Cluster) {
	templates := podTemplates(t, "manifests")
	require.Len(t, templates, 4)
	for name, template := range templates {
		require.NoError(t, createPod(t, c, name, template.Spec), name)
	}
	root := templates["collector"].Spec
	root.SecurityContext = nil
	require.ErrorContains(t, createPod(t, c, "root", root), `violates PodSecurity "restricted`)
}

func createPod(t *testing.T, c *kube.Cluster, name string, spec corev1.PodSpec) error {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	_, err := c.Admin().CoreV1().Pods("gmp-system").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// podTemplates are those of all workloads, by name.
func podTemplates(t *testing.T, folder string) map[string]corev1.PodTemplateSpec {
	t.Helper()
	templates := map[string]corev1.PodTemplateSpec{}
	for _, object := range objects(t, folder) {
		content, found, err := unstructured.NestedMap(object.Object, "spec", "template")
		require.NoError(t, err)
		if found {
			var template corev1.PodTemplateSpec
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template))
			claims, _, err := unstructured.NestedSlice(object.Object, "spec", "volumeClaimTemplates")
			require.NoError(t, err)
			for range claims {
				template.Spec.Volumes = append(template.Spec.Volumes, claimed("data"))
			}
			templates[object.GetName()] = template
		}
	}
	return templates
}

// claimed is the volume that a StatefulSet gives its pods for a claim.
func claimed(name string) corev1.Volume {
	source := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: source}}
}

// access is something that a component may or may not do: "VERB
// [NAMESPACE/]RESOURCE[.GROUP][/SUBRESOURCE][ NAME]", or "VERB /PATH".
type access struct {
	account     string
	may, mayNot []string
}

const group = "monitoring.googleapis.com"

// matrix is what each component needs and what would be worth having for
// somebody who has taken it over.
var matrix = []access{
	{
		account: "collector",
		may: []string{
			"list pods", "watch pods", "get nodes", "list nodes", "watch nodes", "get nodes/metrics", "get /metrics",
			"list gmp-system/configmaps", "watch gmp-system/configmaps",
		},
		mayNot: []string{
			"get secrets", "list secrets", "watch secrets", "get gmp-system/secrets collection", "list gmp-public/secrets",
			"list configmaps", "update gmp-system/configmaps collector", "list services", "list endpoints", "list namespaces",
			"create pods", "delete pods", "patch pods", "create pods/exec", "get nodes/proxy", "get nodes/log", "update nodes",
			"list podmonitorings." + group, "create serviceaccounts/token", "get /logs",
		},
	},
	{
		account: "rule-evaluator",
		may: []string{
			"list gmp-system/configmaps", "watch gmp-system/configmaps", "list endpoints", "watch endpoints", "list services",
			"list pods", "list endpointslices.discovery.k8s.io",
		},
		mayNot: []string{
			"list secrets", "get gmp-system/secrets rules", "get gmp-system/secrets rule-evaluator-cluster", "list configmaps",
			"update gmp-system/configmaps rules-generated", "list nodes", "create pods", "create pods/exec",
			"list rules." + group, "update gmp-system/deployments.apps/scale rule-evaluator",
		},
	},
	{account: "alertmanager", mayNot: []string{"get gmp-system/secrets alertmanager", "list pods", "list gmp-system/configmaps", "list services"}},
	{
		account: "operator",
		may: append(verbsOn("get list watch", "podmonitorings", "clusterpodmonitorings", "clusternodemonitorings", "rules", "clusterrules", "globalrules"),
			"patch podmonitorings."+group+"/status", "patch globalrules."+group+"/status", "update clusternodemonitorings."+group+"/status",
			"list gmp-public/operatorconfigs."+group, "watch gmp-public/operatorconfigs."+group, "patch gmp-public/operatorconfigs."+group+"/status config",
			"get gmp-public/secrets x", "list gmp-public/secrets", "watch gmp-public/secrets", "get gmp-public/configmaps x",
			"create gmp-system/configmaps", "update gmp-system/configmaps collector-7", "delete gmp-system/configmaps rules-generated-1",
			"create gmp-system/secrets", "update gmp-system/secrets collection", "update gmp-system/secrets rules", "get gmp-system/secrets alertmanager",
			"get gmp-system/secrets rule-evaluator-cluster", "update gmp-system/secrets operator-webhook",
			"list gmp-system/pods", "watch gmp-system/pods", "list gmp-system/services", "watch gmp-system/services",
			"get gmp-system/leases.coordination.k8s.io x", "create gmp-system/leases.coordination.k8s.io", "update gmp-system/leases.coordination.k8s.io x",
			"create gmp-system/events", "patch gmp-system/events x",
			"update validatingwebhookconfigurations.admissionregistration.k8s.io operator.gmp-system.monitoring.googleapis.com",
		),
		mayNot: []string{
			"get secrets", "list secrets", "watch secrets", "get gmp-system/secrets x", "list gmp-system/secrets", "delete gmp-system/secrets collection",
			"update gmp-public/secrets alertmanager", "list pods", "list configmaps", "create configmaps", "list nodes",
			"update podmonitorings." + group, "delete rules." + group, "create podmonitorings." + group,
			"update gmp-public/operatorconfigs." + group + " config", "list operatorconfigs." + group,
			"update gmp-system/deployments.apps rule-evaluator", "patch gmp-system/daemonsets.apps collector", "update gmp-system/statefulsets.apps alertmanager",
			"update gmp-system/deployments.apps/scale rule-evaluator", "create gmp-system/pods", "create gmp-system/pods/exec",
			"update validatingwebhookconfigurations.admissionregistration.k8s.io another", "create validatingwebhookconfigurations.admissionregistration.k8s.io",
			"update clusterroles.rbac.authorization.k8s.io", "create gmp-system/rolebindings.rbac.authorization.k8s.io",
			"update customresourcedefinitions.apiextensions.k8s.io podmonitorings." + group, "create gmp-system/serviceaccounts/token collector",
		},
	},
}

func verbsOn(verbs string, resources ...string) (all []string) {
	for _, r := range resources {
		for verb := range strings.FieldsSeq(verbs) {
			all = append(all, verb+" "+r+"."+group)
		}
	}
	return all
}

func rights(t *testing.T, c *kube.Cluster) {
	for _, a := range matrix {
		for _, what := range a.may {
			require.True(t, allowed(t, c, a.account, what), "%s may %s", a.account, what)
		}
		for _, what := range a.mayNot {
			require.False(t, allowed(t, c, a.account, what), "%s may not %s", a.account, what)
		}
	}
	require.ElementsMatch(t, []string{"alertmanager", "collector", "operator", "rule-evaluator"}, serviceAccounts(t), "each is in the matrix")
}

func serviceAccounts(t *testing.T) (names []string) {
	for _, object := range objects(t, "manifests") {
		if object.GetKind() == "ServiceAccount" {
			names = append(names, object.GetName())
		}
	}
	return names
}

// allowed asks the API server's authorizer.
func allowed(t *testing.T, c *kube.Cluster, account, what string) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:   "system:serviceaccount:gmp-system:" + account,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:gmp-system", "system:authenticated"},
	}}
	words := strings.Fields(what)
	if strings.HasPrefix(words[1], "/") {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: words[0], Path: words[1]}
	} else {
		review.Spec.ResourceAttributes = resourceAttributes(words)
	}
	answer, err := c.Admin().AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	require.NoError(t, err)
	return answer.Status.Allowed
}

func resourceAttributes(words []string) *authorizationv1.ResourceAttributes {
	a := &authorizationv1.ResourceAttributes{Verb: words[0], Resource: words[1], Version: "*"}
	if len(words) == 3 {
		a.Name = words[2]
	}
	if namespace, rest, ok := strings.Cut(a.Resource, "/"); ok && strings.HasPrefix(namespace, "gmp-") {
		a.Namespace, a.Resource = namespace, rest
	}
	a.Resource, a.Subresource, _ = strings.Cut(a.Resource, "/")
	a.Resource, a.Group, _ = strings.Cut(a.Resource, ".")
	return a
}

// objects are all those in the files of a folder, in the order of their names.
func objects(t *testing.T, folder string) (all []*unstructured.Unstructured) {
	t.Helper()
	names := files(t, folder)
	slices.Sort(names)
	for _, name := range names {
		all = append(all, kube.Manifests(t, read(t, name))...)
	}
	return all
}
