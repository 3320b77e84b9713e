package render

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

const (
	// secretsDir is where programs find the mirrored keys.
	secretsDir = "/etc/secrets/"
	// maxKeyLength is Kubernetes' bound for a key of a Secret or ConfigMap.
	maxKeyLength = 253

	// KindSecret and KindConfigMap are where keys are.
	KindSecret    = "secret"
	KindConfigMap = "configmap"
)

// SecretKey names one key of a Secret, or of a ConfigMap, that programs need.
type SecretKey struct {
	// Kind is KindSecret or KindConfigMap.
	Kind string
	// Namespace and Name are those of the object, Key is the key in it.
	Namespace, Name, Key string
}

// File is the name under which the key is mirrored, in a Secret and so in the
// directory where that is mounted. Names of namespaces and objects have no
// underscore, so that no two keys have the same.
func (k SecretKey) File() string {
	return strings.Join([]string{k.Kind, k.Namespace, k.Name, k.Key}, "_")
}

// String names the key in messages.
func (k SecretKey) String() string {
	return fmt.Sprintf("%s %s/%s key %q", k.Kind, k.Namespace, k.Name, k.Key)
}

// path is where programs read the key.
func (k SecretKey) path() string { return secretsDir + k.File() }

func (k SecretKey) validate() error {
	switch {
	case k.Name == "" || k.Key == "":
		return fmt.Errorf("a %s needs name and key", k.Kind)
	case strings.ContainsAny(k.Name, "_/") || strings.ContainsAny(k.Namespace, "_/"):
		return fmt.Errorf("%s %s/%s: no object has such a name", k.Kind, k.Namespace, k.Name)
	case strings.ContainsFunc(k.Key, func(c rune) bool { return !isKeyChar(c) }):
		return fmt.Errorf("%s: no %s has such a key", k, k.Kind)
	case len(k.File()) > maxKeyLength:
		return fmt.Errorf("%s: its mirrored name would have %d characters, the limit is %d", k, len(k.File()), maxKeyLength)
	}
	return nil
}

// isKeyChar tells the characters that keys may have.
func isKeyChar(c rune) bool {
	return c < 0x80 && (isAlphanumeric(c) || strings.ContainsRune("-_.", c))
}

func isAlphanumeric(c rune) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// parseSecretPath is the inverse of SecretKey.path.
func parseSecretPath(path string) (SecretKey, bool) {
	file, ok := strings.CutPrefix(path, secretsDir)
	parts := strings.SplitN(file, "_", 4)
	if !ok || len(parts) != 4 || parts[0] != KindSecret && parts[0] != KindConfigMap {
		return SecretKey{}, false
	}
	return SecretKey{Kind: parts[0], Namespace: parts[1], Name: parts[2], Key: parts[3]}, true
}

// secretScope decides which namespace a reference without one means, and
// whether one that is given may be used.
type secretScope func(namespace string) (string, error)

// onlyNamespace permits Secrets of one namespace only.
func onlyNamespace(own string) secretScope {
	return func(namespace string) (string, error) {
		if namespace != "" && namespace != own {
			return "", fmt.Errorf("namespace: a Secret of namespace %q can't be used here, only those of %q", namespace, own)
		}
		return own, nil
	}
}

// anyNamespace permits Secrets of all namespaces.
func anyNamespace(namespace string) (string, error) {
	return cmp.Or(namespace, "default"), nil
}

// credentials gathers the secrets that a resource refers to.
type credentials struct {
	scope secretScope
	keys  []SecretKey
	errs  []error
}

// file returns the path of what is selected, "" if nothing is. Faults are kept.
func (c *credentials) file(field string, sel *v1.SecretSelector) string {
	if sel == nil {
		return ""
	}
	if sel.Secret == nil {
		c.fail(field, errors.New("names no secret"))
		return ""
	}
	namespace, err := c.scope(sel.Secret.Namespace)
	if err != nil {
		c.fail(field+".secret", err)
		return ""
	}
	return c.add(field+".secret", SecretKey{Kind: KindSecret, Namespace: namespace, Name: sel.Secret.Name, Key: sel.Secret.Key})
}

func (c *credentials) add(field string, key SecretKey) string {
	if err := key.validate(); err != nil {
		c.fail(field, err)
		return ""
	}
	c.keys = append(c.keys, key)
	return key.path()
}

func (c *credentials) fail(field string, err error) {
	c.errs = append(c.errs, fmt.Errorf("%s: %w", field, err))
}
