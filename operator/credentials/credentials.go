// Package credentials makes what rule-evaluators in a cluster of Kubernetes
// trust each other by: the key that encrypts their gossip and the certificate
// of their gRPC connections, in a Secret that all of them mount.
//
// What is there is never changed, so whoever wants other keys puts them into
// the Secret. The authority's own key is forgotten at once: nobody else can get
// a certificate from it, and a new one needs a new authority, as after a
// deletion of the Secret. An Ensurer is used by one goroutine.
package credentials

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// SecretName is that of the Secret, in the operator's namespace.
const SecretName = "rule-evaluator-cluster"

// ServerName is the name that the certificate is for. Members check it in place
// of their addresses.
const ServerName = "rule-evaluator"

const (
	gossipKeyBytes = 32 // AES-256
	// validity is as good as for ever: who can read the Secret has the key, too.
	validity = 30 * 365 * 24 * time.Hour
	// retryInterval is the time between two attempts while the API server is away.
	retryInterval = 5 * time.Second
)

// Ensurer makes the Secret where it is missing.
type Ensurer struct {
	// Secrets are those of the operator's namespace.
	Secrets typedcorev1.SecretInterface
	// Failed is told of every failure; it is tried again.
	Failed func(error)
}

// NeedLeaderElection makes the leading operator alone run it.
func (e *Ensurer) NeedLeaderElection() bool { return true }

// Start makes the Secret and returns nil when it is there or ctx has ended.
func (e *Ensurer) Start(ctx context.Context) error {
	ticker := time.NewTicker(retryInterval)
	defer ticker.Stop()
	for {
		err := e.ensure(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		e.Failed(err)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// ensure asks before it makes keys, because the Secret is there but once.
func (e *Ensurer) ensure(ctx context.Context) error {
	_, err := e.Secrets.Get(ctx, SecretName, metav1.GetOptions{})
	if err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	data, err := generate(time.Now())
	if err != nil {
		return err
	}
	_, err = e.Secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: SecretName, Labels: map[string]string{"app.kubernetes.io/part-of": "tocsin"}},
		Data:       data,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// generate returns the content of the Secret by key.
func generate(now time.Time) (map[string][]byte, error) {
	gossipKey := make([]byte, gossipKeyBytes)
	_, _ = rand.Read(gossipKey) // never fails
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := template("rule-evaluator authority", now)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template(ServerName, now)
	leaf.DNSNames, leaf.KeyUsage = []string{ServerName}, x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"gossip.key":            []byte(base64.StdEncoding.EncodeToString(gossipKey) + "\n"),
		"ca.crt":                encode("CERTIFICATE", caDER),
		corev1.TLSCertKey:       encode("CERTIFICATE", leafDER),
		corev1.TLSPrivateKeyKey: encode("PRIVATE KEY", keyDER),
	}, nil
}

// template has no serial number, for which x509 chooses a random one. Clocks
// may differ by an hour.
func template(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity)}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
