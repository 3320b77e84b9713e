package kube

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Namespace makes a namespace unless it is there, with the service account that
// pods have by default, which no controller makes here.
func (c *Cluster) Namespace(name string) {
	c.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := c.Admin().CoreV1().Namespaces().Create(context.Background(), ns, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(c.t, err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err = c.Admin().CoreV1().ServiceAccounts(name).Create(context.Background(), account, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(c.t, err)
	}
}

// GrantEverywhere lets a service account do in all namespaces, and with what is
// in none, what the rules say.
func (c *Cluster) GrantEverywhere(namespace, account string, rules ...rbacv1.PolicyRule) {
	c.t.Helper()
	ctx, client, meta := context.Background(), c.Admin(), metav1.ObjectMeta{Name: namespace + "-" + account}
	_, err := client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
}

// ServiceAccount makes a service account that may do in its namespace what the
// rules say and no more, and returns the path of a kubeconfig with its token.
func (c *Cluster) ServiceAccount(namespace, name string, rules ...rbacv1.PolicyRule) string {
	c.t.Helper()
	c.Namespace(namespace)
	ctx, client, meta := context.Background(), c.Admin(), metav1.ObjectMeta{Name: name, Namespace: namespace}
	_, err := client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	_, err = client.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	_, err = client.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	return c.Kubeconfig(namespace, name)
}

// Kubeconfig is the path of a kubeconfig with a token of a service account.
func (c *Cluster) Kubeconfig(namespace, account string) string {
	c.t.Helper()
	accounts := c.Admin().CoreV1().ServiceAccounts(namespace)
	token, err := accounts.CreateToken(context.Background(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	return c.kubeconfig(namespace, account, token.Status.Token)
}

func (c *Cluster) kubeconfig(namespace, user, token string) string {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["test"] = &clientcmdapi.Cluster{Server: fmt.Sprintf("https://127.0.0.1:%d", c.apiPort), CertificateAuthority: c.pki.ca}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token}
	cfg.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: user, Namespace: namespace}
	cfg.CurrentContext = "test"
	path := c.path(fmt.Sprintf("kubeconfig-%s-%s", namespace, user))
	require.NoError(c.t, clientcmd.WriteToFile(*cfg, path))
	return path
}

// AdminKubeconfig is the path of a kubeconfig with all rights.
func (c *Cluster) AdminKubeconfig() string { return c.kubeconfig("default", "admin", c.adminToken) }
