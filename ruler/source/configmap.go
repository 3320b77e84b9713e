package source

import (
	"errors"
	"strings"

	"github.com/tocsin-rules/tocsin/kubeapi"
)

// gzipSuffix is one that keys whose value is compressed may have, which is not
// a part of the file's name.
const gzipSuffix = ".gz"

// ConfigMaps says which ConfigMaps hold rule files: every key of theirs is one.
// A value may be compressed by gzip.
type ConfigMaps struct {
	// Namespace is where they are; empty means that of the kubeconfig's
	// context, or of the pod.
	Namespace string `yaml:"namespace,omitempty"`
	// LabelSelector is as kubectl takes it.
	LabelSelector string `yaml:"label_selector"`
	// KubeconfigFile says how to reach the API server; empty means as a pod
	// does, by its service account, which has to be allowed to get, list and
	// watch ConfigMaps in the namespace.
	KubeconfigFile string `yaml:"kubeconfig_file,omitempty"`
}

// Validate returns what is wrong with the selector.
func (c ConfigMaps) Validate() error { return kubeapi.Selection(c).Validate() }

// configMapFiles are the rule files in ConfigMaps. Their names begin with the
// ConfigMap's namespace and name. A fault is that they could not be read, or
// not lately: then the files are what was read last.
func configMapFiles(c *kubeapi.ConfigMaps) ([]File, error) {
	values, err := c.Values()
	files := make([]File, 0, len(values))
	for _, v := range values {
		files = append(files, configMapFile(v))
	}
	return files, err
}

func configMapFile(v kubeapi.Value) File {
	read := func(maxBytes int64) ([]byte, error) {
		content, err := v.Read(maxBytes)
		if errors.Is(err, kubeapi.ErrTooLarge) {
			return nil, tooLarge(v.String(), maxBytes)
		}
		return content, err
	}
	return File{Path: "configmap:" + v.String(), Name: strings.TrimSuffix(v.String(), gzipSuffix), read: read}
}
