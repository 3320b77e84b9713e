package kube_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tocsin-rules/tocsin/operator/credentials"
	"github.com/tocsin-rules/tocsin/test/kube"
)

func TestTheOperatorMakesTheSecretOfTheMembersOnce(t *testing.T) {
	t.Parallel()
	c := kube.Start(t)
	kubeconfig := c.ServiceAccount("gmp-system", "operator",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{credentials.SecretName}, Verbs: []string{"get"}})
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	failed := make(chan error, 100)
	e := &credentials.Ensurer{Secrets: client.CoreV1().Secrets("gmp-system"), Failed: func(err error) { failed <- err }}

	require.NoError(t, e.Start(t.Context()))
	secrets := c.Admin().CoreV1().Secrets("gmp-system")
	first, err := secrets.Get(t.Context(), credentials.SecretName, metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, first.Data, 4)
	require.NoError(t, e.Start(t.Context()), "there is nothing to do")
	again, err := secrets.Get(t.Context(), credentials.SecretName, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, first.Data, again.Data)
	require.Empty(t, failed)

	require.NoError(t, secrets.Delete(t.Context(), credentials.SecretName, metav1.DeleteOptions{}))
	c.StopAPIServer()
	ended := make(chan error, 1)
	go func() { ended <- e.Start(context.WithoutCancel(t.Context())) }()
	require.False(t, apierrors.IsNotFound(<-failed), "the API server is away")
	c.StartAPIServer()
	require.NoError(t, <-ended)
	anew, err := secrets.Get(t.Context(), credentials.SecretName, metav1.GetOptions{})
	require.NoError(t, err)
	require.NotEqual(t, first.Data, anew.Data)
}
