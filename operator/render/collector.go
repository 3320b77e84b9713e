package render

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/common/config"
	promconfig "github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// collectorFile is what all collectors share; jobs of resources are in Parts.
type collectorFile struct {
	Global        collectorGlobal                 `yaml:"global"`
	ScrapeConfigs []*promconfig.ScrapeConfig      `yaml:"scrape_configs,omitempty"`
	RemoteWrite   []*promconfig.RemoteWriteConfig `yaml:"remote_write,omitempty"`
}

type collectorGlobal struct {
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
}

// Collector renders the part of the collectors' configuration that comes of the
// OperatorConfig: external labels, where samples are written, and the jobs of
// kubelets. The error names every field at fault.
func (r *Renderer) Collector() (Config, error) {
	creds := &credentials{scope: onlyNamespace(r.settings.PublicNamespace)}
	file := collectorFile{Global: collectorGlobal{ExternalLabels: map[string]string{}}}
	// Prometheus' loader expands environment variables in these.
	for name, value := range r.externalLabels(r.config.Collection.ExternalLabels) {
		file.Global.ExternalLabels[name] = literal(value)
	}
	var errKubelet, errWrites error
	file.ScrapeConfigs, errKubelet = kubeletJobs(r.config.Collection.KubeletScraping)
	file.RemoteWrite, errWrites = r.remoteWrites(creds)
	if err := errors.Join(append(creds.errs, errKubelet, errWrites)...); err != nil {
		return Config{}, err
	}
	text, err := yaml.Marshal(file)
	if err := errors.Join(err, checkCollector(file)); err != nil {
		return Config{}, fmt.Errorf("the collectors' configuration is not valid: %w", err)
	}
	return Config{Text: text, Secrets: sortedSecrets(creds.keys), Warnings: r.collectorWarnings(len(file.RemoteWrite))}, nil
}

// checkCollector reads the file as collectors will, but for the values of
// external labels: there the loader would look into the environment.
func checkCollector(file collectorFile) error {
	names := map[string]string{}
	for name := range file.Global.ExternalLabels {
		names[name] = ""
	}
	file.Global.ExternalLabels = names
	text, err := yaml.Marshal(file)
	if err == nil {
		_, err = promconfig.Load(string(text), nil)
	}
	return err
}

func (r *Renderer) collectorWarnings(writes int) []string {
	var out []string
	if writes == 0 {
		out = append(out, "collectors write nowhere: set remoteWrite of the backend that holds this cluster's data, or exports")
	}
	if r.config.Collection.Credentials != nil {
		out = append(out, "collection.credentials has no effect: give credentials to the entries of backends and exports")
	}
	for _, b := range r.config.Backends {
		if missing := r.missingLabel(b); missing != "" {
			out = append(out, fmt.Sprintf("collectors don't write to backend %q: its partition label %q is none of collection.externalLabels", b.Name, missing))
		}
	}
	return out
}

// remoteWrites are the backends that hold this cluster's data, and the exports.
func (r *Renderer) remoteWrites(creds *credentials) ([]*promconfig.RemoteWriteConfig, error) {
	filtered, err := filter(r.config.Collection.Filter)
	errs := []error{err}
	var out []*promconfig.RemoteWriteConfig
	for i, b := range r.config.Backends {
		if b.RemoteWrite == nil || !r.holdsOurs(b) {
			continue
		}
		w := writeOf(b)
		rw, err := remoteWrite(fmt.Sprintf("backends[%d].%s", i, w.field), w, creds)
		errs = append(errs, err)
		rw.Name = b.Name
		rw.WriteRelabelConfigs = filtered
		out = append(out, rw)
	}
	for i, e := range r.config.Exports {
		field := fmt.Sprintf("exports[%d].", i)
		rw, err := remoteWrite(field, write{url: e.URL, headers: e.Headers, client: e.HTTPClientConfig}, creds)
		errs = append(errs, err)
		rw.Name = strings.TrimSuffix(field, ".")
		out = append(out, rw)
	}
	return out, errors.Join(errs...)
}

// holdsOurs says whether what collectors of this cluster write belongs into the
// backend: it has all of its partition labels.
func (r *Renderer) holdsOurs(b v1.Backend) bool {
	external := r.externalLabels(r.config.Collection.ExternalLabels)
	for name, value := range b.PartitionLabels {
		if external[name] != value {
			return false
		}
	}
	return true
}

// missingLabel names a partition label that nobody sets, of a backend that
// collectors would otherwise write to.
func (r *Renderer) missingLabel(b v1.Backend) string {
	if b.RemoteWrite == nil {
		return ""
	}
	missing := ""
	external := r.externalLabels(r.config.Collection.ExternalLabels)
	for _, name := range slices.Sorted(maps.Keys(b.PartitionLabels)) {
		given, ok := external[name]
		if ok && given != b.PartitionLabels[name] {
			return "" // It holds the data of others.
		}
		if !ok && b.PartitionLabels[name] != "" {
			missing = cmp.Or(missing, name)
		}
	}
	return missing
}

// write is a remote-write endpoint, wherever it is configured.
type write struct {
	// field is what precedes the names of fields in messages.
	field   string
	url     string
	headers map[string]string
	client  v1.HTTPClientConfig
}

// writeOf is where the backend takes samples: what is not set is that of its
// queries.
func writeOf(b v1.Backend) write {
	w := write{url: b.RemoteWrite.URL, headers: b.Headers, client: b.HTTPClientConfig}
	if c := b.RemoteWrite.Client; c != nil {
		w.field, w.headers, w.client = "remoteWrite.client.", c.Headers, c.HTTPClientConfig
	}
	if w.url == "" {
		w.url = strings.TrimSuffix(b.URL, "/") + "/api/v1/write"
	}
	return w
}

func remoteWrite(field string, w write, creds *credentials) (*promconfig.RemoteWriteConfig, error) {
	out := &promconfig.RemoteWriteConfig{
		Headers:              w.headers,
		SendExemplars:        true,
		SendNativeHistograms: true,
		HTTPClientConfig:     creds.client(field, w.client),
	}
	u, err := endpointURL(w.url)
	if err != nil {
		return out, fmt.Errorf("%surl: %w", field, err)
	}
	out.URL = &config.URL{URL: u}
	return out, nil
}

// endpointURL parses a URL that everybody may read.
func endpointURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.User != nil:
		return nil, errors.New("must not contain a user name or password")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%q is not an http or https URL", text)
	}
	return u, nil
}
