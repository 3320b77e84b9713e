package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tocsin-rules/tocsin/operator/render"
)

const (
	// secretPeriod is how often Secrets of users' namespaces are read, which
	// bounds how late a rotated credential is noticed.
	secretPeriod = 30 * time.Second
	// mirrorPeriod is how often a mirror is compared with what it should be if
	// nothing has changed.
	mirrorPeriod = time.Minute
)

// secretError says why a key that a resource refers to can't be had.
type secretError struct {
	key   render.SecretKey
	cause string
	// passing means that the key may well exist: what was read last is good.
	passing bool
}

func (e *secretError) Error() string { return e.key.String() + ": " + e.cause }

// secrets reads what resources refer to. Those of the public namespace are
// watched. Others are read one by one where a resource refers to them, since
// the operator has no right to list them.
type secrets struct {
	settings render.Settings
	watched  client.Reader // of the public namespace
	api      client.Reader

	mu   sync.Mutex
	read map[types.NamespacedName]secretRead
}

// secretRead is a Secret as it was at a time.
type secretRead struct {
	at   time.Time
	data map[string][]byte
	err  error
}

func newSecrets(s render.Settings, watched, api client.Reader) *secrets {
	return &secrets{settings: s, watched: watched, api: api, read: map[types.NamespacedName]secretRead{}}
}

// get returns the value of a key. What was read from a user's namespace may be
// as old as secretPeriod. All errors are secretErrors.
func (s *secrets) get(ctx context.Context, key render.SecretKey) ([]byte, error) {
	data, err := s.object(ctx, key)
	if err != nil {
		return nil, s.explain(key, err)
	}
	value, ok := data[key.Key]
	if !ok {
		return nil, &secretError{key: key, cause: "there is no such key"}
	}
	return value, nil
}

// readable is an error that names all keys that can't be read.
func (s *secrets) readable(ctx context.Context, keys []render.SecretKey) error {
	var errs []error
	for _, key := range keys {
		_, err := s.get(ctx, key)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *secrets) object(ctx context.Context, key render.SecretKey) (map[string][]byte, error) {
	name := types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
	if key.Namespace != s.settings.PublicNamespace {
		return s.recent(ctx, name)
	}
	if key.Kind == render.KindConfigMap {
		var m corev1.ConfigMap
		err := s.watched.Get(ctx, name, &m)
		data := maps.Clone(m.BinaryData)
		if data == nil {
			data = map[string][]byte{}
		}
		for k, v := range m.Data {
			data[k] = []byte(v)
		}
		return data, err
	}
	var o corev1.Secret
	err := s.watched.Get(ctx, name, &o)
	return o.Data, err
}

// recent reads a Secret of a user unless that was done a moment ago.
func (s *secrets) recent(ctx context.Context, name types.NamespacedName) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.read[name]; ok && time.Since(last.at) < secretPeriod-secretPeriod/4 {
		return last.data, last.err
	}
	var o corev1.Secret
	err := s.api.Get(ctx, name, &o)
	s.read[name] = secretRead{at: time.Now(), data: o.Data, err: err}
	return o.Data, err
}

// forget drops what no key refers to any more.
func (s *secrets) forget(except []render.SecretKey) {
	used := map[types.NamespacedName]bool{}
	for _, k := range except {
		used[types.NamespacedName{Namespace: k.Namespace, Name: k.Name}] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.read, func(name types.NamespacedName, _ secretRead) bool { return !used[name] })
}

func (s *secrets) explain(key render.SecretKey, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return &secretError{key: key, cause: "there is no such object"}
	case apierrors.IsForbidden(err):
		return &secretError{key: key, cause: fmt.Sprintf(
			"the operator may not read it: bind ClusterRole %s:scrape-secrets to ServiceAccount %s/operator by a RoleBinding in namespace %s",
			s.settings.SystemNamespace, s.settings.SystemNamespace, key.Namespace)}
	default:
		return &secretError{key: key, cause: err.Error(), passing: true}
	}
}

// mirror keeps a Secret of the system namespace equal to the keys that are
// referred to.
type mirror struct {
	client  client.Client
	api     client.Reader
	secrets *secrets
	name    types.NamespacedName

	mu      sync.Mutex
	checked time.Time
	data    map[string][]byte // as last written or seen
}

// sync copies the keys. The error is about writing; a key that can't be read
// is missing in the copy, and whose resource refers to it learns of that by
// reading it. What can't be read just now stays as it was.
func (m *mirror) sync(ctx context.Context, keys []render.SecretKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.checked) > mirrorPeriod {
		if err := m.look(ctx); err != nil {
			return err
		}
	}
	want := map[string][]byte{}
	for _, key := range keys {
		value, err := m.secrets.get(ctx, key)
		if e := (*secretError)(nil); errors.As(err, &e) && e.passing {
			value = m.data[key.File()]
		}
		if value != nil {
			want[key.File()] = value
		}
	}
	if m.data != nil && maps.EqualFunc(want, m.data, bytes.Equal) {
		return nil
	}
	o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: m.name.Namespace, Name: m.name.Name}, Type: corev1.SecretTypeOpaque, Data: want}
	if err := replace(ctx, m.client, o); err != nil {
		return fmt.Errorf("mirror of secrets %s: %w", m.name, err)
	}
	m.data = want
	return nil
}

// look finds out what there is; nil data means nothing.
func (m *mirror) look(ctx context.Context) error {
	var o corev1.Secret
	err := m.api.Get(ctx, m.name, &o)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	m.data, m.checked = o.Data, time.Now()
	if err == nil && m.data == nil {
		m.data = map[string][]byte{}
	}
	return nil
}

// replace writes an object whatever is there.
func replace(ctx context.Context, c client.Client, o client.Object) error {
	err := c.Update(ctx, o)
	if apierrors.IsNotFound(err) {
		return c.Create(ctx, o)
	}
	return err
}
