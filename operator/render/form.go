package render

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// ConfigLabel has the kind of configuration that a ConfigMap holds:
	// CollectorConfig or RulesConfig.
	ConfigLabel     = "monitoring.googleapis.com/config"
	CollectorConfig = "collector"
	RulesConfig     = "rules"

	// maxParts bounds what the names of ConfigMaps make us keep.
	maxParts = 10_000
	// maxValueBytes bounds what a compressed value may have uncompressed.
	maxValueBytes = 64 << 20
	gzipMagic     = "\x1f\x8b"
)

// form is how pieces are stored in a ConfigMap.
type form interface {
	// config is the value of ConfigLabel.
	config() string
	// name is that of a part, number its inverse, -1 for any other name.
	name(i int) string
	number(name string) int
	// values are the keys of a part and what they hold.
	values(pieces map[string]Piece) map[string][]byte
	// pieces are those in the values of a part.
	pieces(m *corev1.ConfigMap) ([]Piece, error)
}

// configMap is a part as the API server should have it.
func (p *Parts) configMap(i int) *corev1.ConfigMap {
	m := newConfigMap(p.options.Namespace, p.form.name(i), p.form.config())
	for key, value := range p.form.values(p.parts[i].pieces) {
		setValue(m, key, value, p.options.Gzip)
	}
	return m
}

// ConfigMap is the base of the collectors' configuration, or that of the
// rule-evaluators, as the API server should have it.
func (c Config) ConfigMap(namespace, name string, gzip bool) *corev1.ConfigMap {
	label := ""
	if name == CollectorConfig {
		label = CollectorConfig
	}
	m := newConfigMap(namespace, name, label)
	setValue(m, "config.yaml", c.Text, gzip)
	return m
}

func newConfigMap(namespace, name, config string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	m.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
	if config != "" {
		m.Labels = map[string]string{ConfigLabel: config}
	}
	return m
}

func setValue(m *corev1.ConfigMap, key string, value []byte, gzip bool) {
	switch {
	case gzip && m.BinaryData == nil:
		m.BinaryData = map[string][]byte{key: zipped(value)}
	case gzip:
		m.BinaryData[key] = zipped(value)
	case m.Data == nil:
		m.Data = map[string]string{key: string(value)}
	default:
		m.Data[key] = string(value)
	}
}

// SameConfigMap says whether what the API server has is what it should have.
func SameConfigMap(want, got *corev1.ConfigMap) bool {
	return maps.Equal(want.Data, got.Data) &&
		maps.EqualFunc(want.BinaryData, got.BinaryData, bytes.Equal) &&
		want.Labels[ConfigLabel] == got.Labels[ConfigLabel]
}

// zipped has no time in it, so that equal texts are equal bytes.
func zipped(text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, errWrite := w.Write(text)
	if err := errors.Join(errWrite, w.Close()); err != nil {
		panic(err) // A buffer takes everything.
	}
	return out.Bytes()
}

// values are all values of a ConfigMap by key, uncompressed.
func valuesOf(m *corev1.ConfigMap) (map[string][]byte, error) {
	out := map[string][]byte{}
	for key, value := range m.Data {
		out[key] = []byte(value)
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
		value, err := unzipped(m.BinaryData[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("key %s: %w", key, err))
			continue
		}
		out[key] = value
	}
	return out, errors.Join(errs...)
}

func unzipped(value []byte) ([]byte, error) {
	if !bytes.HasPrefix(value, []byte(gzipMagic)) {
		return value, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxValueBytes+1))
	if err == nil && len(text) > maxValueBytes {
		err = fmt.Errorf("has more than %d bytes", maxValueBytes)
	}
	return text, err
}

// ruleForm has a file in each key.
type ruleForm struct{}

func (ruleForm) config() string { return RulesConfig }

func (ruleForm) name(i int) string {
	if i == 0 {
		return "rules-generated"
	}
	return fmt.Sprintf("rules-generated-%d", i)
}

func (ruleForm) number(name string) int {
	if name == "rules-generated" {
		return 0
	}
	if i := numberAfter(name, "rules-generated-"); i > 0 {
		return i
	}
	return -1
}

func (ruleForm) values(pieces map[string]Piece) map[string][]byte {
	out := map[string][]byte{}
	for key, piece := range pieces {
		out[key] = piece.Text
	}
	return out
}

func (ruleForm) pieces(m *corev1.ConfigMap) ([]Piece, error) {
	values, err := valuesOf(m)
	var out []Piece
	for _, key := range slices.Sorted(maps.Keys(values)) {
		out = append(out, Piece{Key: key, Text: values[key]})
	}
	return out, err
}

const (
	scrapeKey    = "scrape.yaml"
	scrapeHeader = "scrape_configs:\n"
	// pieceMark precedes the key of a piece on a line of its own. YAML of ours
	// has no other line that begins with it, since all text is in a list.
	pieceMark = "# "
)

// scrapeForm has all jobs in one key, in the form of Prometheus'
// scrape_config_files.
type scrapeForm struct{}

func (scrapeForm) config() string    { return CollectorConfig }
func (scrapeForm) name(i int) string { return fmt.Sprintf("collector-%d", i) }

func (scrapeForm) number(name string) int { return numberAfter(name, "collector-") }

func (scrapeForm) values(pieces map[string]Piece) map[string][]byte {
	var text bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(pieces)) {
		text.WriteString(pieceMark + key + "\n")
		text.Write(pieces[key].Text)
	}
	if text.Len() == 0 {
		return map[string][]byte{scrapeKey: []byte("scrape_configs: []\n")}
	}
	return map[string][]byte{scrapeKey: append([]byte(scrapeHeader), text.Bytes()...)}
}

func (scrapeForm) pieces(m *corev1.ConfigMap) ([]Piece, error) {
	values, err := valuesOf(m)
	if err != nil {
		return nil, err
	}
	var out []Piece
	var errs []error
	_, text, _ := strings.Cut(string(values[scrapeKey]), scrapeHeader)
	for block := range strings.SplitSeq("\n"+text, "\n"+pieceMark) {
		key, jobs, _ := strings.Cut(block, "\n")
		if jobs == "" {
			continue
		}
		jobs = strings.TrimSuffix(jobs, "\n") + "\n"
		secrets, err := secretsOf(jobs)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
			continue
		}
		out = append(out, Piece{Key: key, Text: []byte(jobs), Secrets: secrets})
	}
	return out, errors.Join(errs...)
}

// secretsOf finds the keys that the jobs refer to.
func secretsOf(text string) ([]SecretKey, error) {
	var jobs []*config.ScrapeConfig
	if err := yaml.Unmarshal([]byte(text), &jobs); err != nil {
		return nil, err
	}
	var out []SecretKey
	for _, job := range jobs {
		for _, path := range filesOf(job.HTTPClientConfig) {
			if key, ok := parseSecretPath(path); ok {
				out = append(out, key)
			}
		}
	}
	return sortedSecrets(out), nil
}

// filesOf are the files that a client reads.
func filesOf(c commonconfig.HTTPClientConfig) []string {
	files := []string{c.TLSConfig.CAFile, c.TLSConfig.CertFile, c.TLSConfig.KeyFile}
	if c.Authorization != nil {
		files = append(files, c.Authorization.CredentialsFile)
	}
	if c.BasicAuth != nil {
		files = append(files, c.BasicAuth.PasswordFile)
	}
	if o := c.OAuth2; o != nil {
		files = append(files, o.ClientSecretFile, o.TLSConfig.CAFile, o.TLSConfig.CertFile, o.TLSConfig.KeyFile)
	}
	return files
}

func numberAfter(name, prefix string) int {
	digits, ok := strings.CutPrefix(name, prefix)
	i, err := strconv.Atoi(digits)
	if !ok || err != nil || i < 0 || i >= maxParts || strconv.Itoa(i) != digits {
		return -1
	}
	return i
}
