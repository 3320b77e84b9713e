package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mount brings the volumes of a pod up to date. An error says what is missing.
func (k *Kubelet) mount(ctx context.Context, c *container) error {
	for _, m := range c.spec().VolumeMounts {
		dir := filepath.Join(c.root, m.MountPath)
		v := volume(c.pod, m.Name)
		switch {
		case v == nil:
			return fmt.Errorf("volume %s is not in the pod", m.Name)
		case v.EmptyDir != nil, v.PersistentVolumeClaim != nil:
			if err := k.writable(c, dir, v.EmptyDir != nil); err != nil {
				return err
			}
		default:
			content, err := k.content(ctx, c, v)
			if err != nil {
				return fmt.Errorf("volume %s: %w", m.Name, err)
			}
			if err := project(dir, content); err != nil {
				return err
			}
		}
	}
	return nil
}

func volume(p *corev1.Pod, name string) *corev1.Volume {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return &p.Spec.Volumes[i]
		}
	}
	return nil
}

// writable makes a directory that the container may write to, empty for a new
// pod if it is the pod's own.
func (k *Kubelet) writable(c *container, dir string, own bool) error {
	if k.running[c.pod.Name] != nil {
		return nil
	}
	if own {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o777)
}

// content is what files a volume has.
func (k *Kubelet) content(ctx context.Context, c *container, v *corev1.Volume) (map[string][]byte, error) {
	switch {
	case v.ConfigMap != nil:
		return k.configMap(v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional)
	case v.Secret != nil:
		return k.secret(v.Secret.SecretName, v.Secret.Optional)
	case v.Projected != nil:
		return k.projected(ctx, c, v.Projected.Sources)
	}
	return nil, fmt.Errorf("this kubelet does not know such a volume: %v", v.VolumeSource)
}

func missingIsFine(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

func (k *Kubelet) configMap(name string, items []corev1.KeyToPath, optional *bool) (map[string][]byte, error) {
	m, err := k.maps.Get(name)
	if missingIsFine(err, optional) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := maps.Clone(m.BinaryData)
	if all == nil {
		all = map[string][]byte{}
	}
	for key, text := range m.Data {
		all[key] = []byte(text)
	}
	if len(items) == 0 {
		return all, nil
	}
	chosen := map[string][]byte{}
	for _, i := range items {
		chosen[i.Path] = all[i.Key]
	}
	return chosen, nil
}

func (k *Kubelet) secret(name string, optional *bool) (map[string][]byte, error) {
	s, err := k.secrets.Get(name)
	if missingIsFine(err, optional) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.Data, nil
}

// projected is what service accounts bring. The token is asked for once: it
// lives longer than a test.
func (k *Kubelet) projected(ctx context.Context, c *container, sources []corev1.VolumeProjection) (map[string][]byte, error) {
	content := map[string][]byte{}
	for _, s := range sources {
		switch {
		case s.ServiceAccountToken != nil:
			token, err := k.token(ctx, c, s.ServiceAccountToken)
			if err != nil {
				return nil, err
			}
			content[s.ServiceAccountToken.Path] = token
		case s.ConfigMap != nil:
			files, err := k.configMap(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional)
			if err != nil {
				return nil, err
			}
			maps.Copy(content, files)
		case s.DownwardAPI != nil:
			for _, i := range s.DownwardAPI.Items {
				value, err := field(c.pod, i.FieldRef.FieldPath)
				if err != nil {
					return nil, err
				}
				content[i.Path] = []byte(value)
			}
		}
	}
	return content, nil
}

func (k *Kubelet) token(ctx context.Context, c *container, s *corev1.ServiceAccountTokenProjection) ([]byte, error) {
	if c.token != nil {
		return c.token, nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: c.pod.Name, UID: c.pod.UID},
	}}
	answer, err := k.cfg.Client.CoreV1().ServiceAccounts(c.pod.Namespace).CreateToken(ctx, c.pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	c.token = []byte(answer.Status.Token)
	return c.token, nil
}

// environment is what the container sees.
func (k *Kubelet) environment(p *corev1.Pod) ([]string, error) {
	host, port, err := net.SplitHostPort(k.cfg.APIServer)
	if err != nil {
		return nil, err
	}
	env := []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
	for _, e := range p.Spec.Containers[0].Env {
		value := e.Value
		if e.ValueFrom != nil {
			if value, err = field(p, e.ValueFrom.FieldRef.FieldPath); err != nil {
				return nil, err
			}
		}
		env = append(env, e.Name+"="+value)
	}
	return env, nil
}

// field is what the downward API says.
func field(p *corev1.Pod, path string) (string, error) {
	if key, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return p.Labels[strings.TrimSuffix(key, "']")], nil
	}
	value, ok := map[string]string{
		"metadata.name": p.Name, "metadata.namespace": p.Namespace, "spec.nodeName": p.Spec.NodeName, "status.podIP": p.Status.PodIP,
	}[path]
	if !ok {
		return "", fmt.Errorf("this kubelet does not know field %s", path)
	}
	return value, nil
}

// project writes files as a kubelet does: into a new directory, which then
// takes the place of the one before, by a link that all files go through.
func project(dir string, content map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data := filepath.Join(dir, "..data")
	if current(data, content) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, "..fresh")
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(fresh, name), text, 0o644); err != nil {
			return err
		}
	}
	before, _ := os.Readlink(data)
	if err := os.Symlink(filepath.Base(fresh), data+".new"); err != nil {
		return err
	}
	if err := os.Rename(data+".new", data); err != nil {
		return err
	}
	if err := link(dir, content); err != nil || before == "" {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, before))
}

// current tells whether the files are there already.
func current(data string, content map[string][]byte) bool {
	entries, err := os.ReadDir(data)
	if err != nil || len(entries) != len(content) {
		return false
	}
	for name, text := range content {
		if got, err := os.ReadFile(filepath.Join(data, name)); err != nil || !bytes.Equal(got, text) {
			return false
		}
	}
	return true
}

// link has a link for each file and none else.
func link(dir string, content map[string][]byte) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, wanted := content[e.Name()]; !wanted && !strings.HasPrefix(e.Name(), "..") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for name := range content {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// writeFile replaces a file unless it has the content.
func writeFile(name string, content []byte) error {
	if got, err := os.ReadFile(name); err == nil && bytes.Equal(got, content) {
		return nil
	}
	if err := os.WriteFile(name+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
