package controller

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

const (
	alertmanagerName = "alertmanager"
	// alertmanagerKey is where the managed Alertmanager reads its configuration.
	alertmanagerKey = "config.yaml"
	reasonAlerting  = "AlertmanagerConfigError"
	reasonNoConfig  = "NoConfiguration"
)

// alertmanager hands the user's configuration to the managed Alertmanager.
type alertmanager struct {
	settings render.Settings
	client   client.Client
	api      client.Reader
	secrets  *secrets
}

// reconcile writes the configuration unless it is not valid: then the last one
// stays. Without one of the user's the Alertmanager gets one that tells nobody.
func (a *alertmanager) reconcile(ctx context.Context, oc *v1.OperatorConfig) (finding, error) {
	key := a.source(oc)
	content, err := a.secrets.get(ctx, key)
	f := finding{kind: v1.AlertmanagerConfigurationSuccess, ok: true}
	if e := (*secretError)(nil); errors.As(err, &e) {
		if e.passing {
			return f, err
		}
		content = nil
		f.reason, f.message = reasonNoConfig, fmt.Sprintf("nobody is notified: %s", e)
	}
	config, err := render.Alertmanager(content)
	if err != nil {
		return findingOf(v1.AlertmanagerConfigurationSuccess, reasonAlerting, fmt.Errorf("%s: %w", key, err)), nil
	}
	return f, a.write(ctx, config)
}

// source is the key that holds the user's configuration.
func (a *alertmanager) source(oc *v1.OperatorConfig) render.SecretKey {
	key := render.SecretKey{Kind: render.KindSecret, Namespace: a.settings.PublicNamespace, Name: alertmanagerName, Key: "alertmanager.yaml"}
	if oc != nil && oc.ManagedAlertmanager != nil && oc.ManagedAlertmanager.ConfigSecret != nil {
		sel := oc.ManagedAlertmanager.ConfigSecret
		key.Name, key.Key = cmp.Or(sel.Name, key.Name), cmp.Or(sel.Key, key.Key)
	}
	return key
}

func (a *alertmanager) write(ctx context.Context, config []byte) error {
	name := types.NamespacedName{Namespace: a.settings.SystemNamespace, Name: alertmanagerName}
	var got corev1.Secret
	err := a.api.Get(ctx, name, &got)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil && bytes.Equal(got.Data[alertmanagerKey], config) {
		return nil
	}
	want := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{alertmanagerKey: config},
	}
	if err := replace(ctx, a.client, want); err != nil {
		return fmt.Errorf("write Secret %s: %w", name, err)
	}
	return nil
}

// port is that of the managed Alertmanager's Service, 0 if there is none.
func (a *alertmanager) port(ctx context.Context) (int32, error) {
	var s corev1.Service
	err := a.client.Get(ctx, types.NamespacedName{Namespace: a.settings.SystemNamespace, Name: alertmanagerName}, &s)
	if err != nil || len(s.Spec.Ports) == 0 {
		return 0, client.IgnoreNotFound(err)
	}
	return s.Spec.Ports[0].Port, nil
}
