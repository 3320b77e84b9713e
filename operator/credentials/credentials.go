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
	"crypto/rand"
	"encoding/base64"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// SecretName is that of the Secret, in the operator's namespace.
const SecretName = "rule-evaluator-cluster"

// GossipKey has the keys that encrypt gossip, base64, one in a line.
const GossipKey = "gossip.key"

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
	data, err := Issue(ServerName, validity, now)
	if err != nil {
		return nil, err
	}
	data[GossipKey] = []byte(base64.StdEncoding.EncodeToString(gossipKey) + "\n")
	return data, nil
}
