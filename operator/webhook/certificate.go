package webhook

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tocsin-rules/tocsin/operator/credentials"
)

const (
	// secretName is that of the Secret with the certificate.
	secretName = "operator-webhook"
	// serviceName is that of the Service that the API server talks to.
	serviceName = "operator"

	validity = 365 * 24 * time.Hour
	// renewal is how long before its end a certificate is replaced.
	renewal = 120 * 24 * time.Hour
	// checkPeriod is how often the Secret is looked at, and retryPeriod after a
	// failure.
	checkPeriod = time.Minute
	retryPeriod = 5 * time.Second
)

// Certificate keeps the certificate that the webhook shows and the API server
// trusts.
type Certificate struct {
	client    kubernetes.Interface
	namespace string
	logger    *slog.Logger
	current   atomic.Pointer[tls.Certificate]
}

// NewCertificate returns one that is kept in a namespace.
func NewCertificate(client kubernetes.Interface, namespace string, logger *slog.Logger) *Certificate {
	return &Certificate{client: client, namespace: namespace, logger: logger}
}

// Get is for tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := c.current.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// NeedLeaderElection makes all operators keep it.
func (c *Certificate) NeedLeaderElection() bool { return false }

// Start keeps the certificate until ctx ends.
func (c *Certificate) Start(ctx context.Context) error {
	for {
		wait := checkPeriod
		if err := c.check(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.logger.Warn("keeping the webhook's certificate failed", "err", err)
			wait = retryPeriod
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// check makes the API server trust a new certificate before it is shown.
func (c *Certificate) check(ctx context.Context, now time.Time) error {
	secret, err := c.secret(ctx, now)
	if err != nil {
		return fmt.Errorf("secret %s: %w", secretName, err)
	}
	if err := c.trust(ctx, secret.Data[credentials.AuthorityKey]); err != nil {
		return fmt.Errorf("webhook configuration %s: %w", c.configuration(), err)
	}
	cert, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("secret %s: %w", secretName, err)
	}
	c.current.Store(&cert)
	return nil
}

// secret returns the Secret with a certificate that is good for a while.
func (c *Certificate) secret(ctx context.Context, now time.Time) (*corev1.Secret, error) {
	secrets := c.client.CoreV1().Secrets(c.namespace)
	s, err := secrets.Get(ctx, secretName, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, err
	}
	if !missing && good(s.Data[corev1.TLSCertKey], now) {
		return s, nil
	}
	data, err := credentials.Issue(serviceName+"."+c.namespace+".svc", validity, now)
	if err != nil {
		return nil, err
	}
	if missing {
		meta := metav1.ObjectMeta{Name: secretName, Labels: map[string]string{"app.kubernetes.io/part-of": "tocsin"}}
		return secrets.Create(ctx, &corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeTLS, Data: data}, metav1.CreateOptions{})
	}
	// Other operators show the old certificate until they have seen this.
	if block, _ := pem.Decode(s.Data[credentials.AuthorityKey]); block != nil {
		data[credentials.AuthorityKey] = append(data[credentials.AuthorityKey], pem.EncodeToMemory(block)...)
	}
	s.Data = data
	return secrets.Update(ctx, s, metav1.UpdateOptions{})
}

// good says whether a certificate need not be renewed.
func good(pem []byte, now time.Time) bool {
	cert, err := credentials.Parse(pem)
	return err == nil && now.Add(renewal).Before(cert.NotAfter)
}

func (c *Certificate) configuration() string {
	return serviceName + "." + c.namespace + ".monitoring.googleapis.com"
}

// trust makes the API server trust the authorities. Without a configuration it
// asks nobody.
func (c *Certificate) trust(ctx context.Context, authorities []byte) error {
	configurations := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	cfg, err := configurations.Get(ctx, c.configuration(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	changed := false
	for i := range cfg.Webhooks {
		changed = trusts(&cfg.Webhooks[i].ClientConfig, authorities) || changed
	}
	if !changed {
		return nil
	}
	_, err = configurations.Update(ctx, cfg, metav1.UpdateOptions{})
	return err
}

func trusts(c *admissionregistrationv1.WebhookClientConfig, authorities []byte) (changed bool) {
	changed = string(c.CABundle) != string(authorities)
	c.CABundle = authorities
	return changed
}
