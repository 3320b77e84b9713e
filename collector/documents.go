package collector

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/config"

	"github.com/tocsin-rules/tocsin/kubeapi"
)

// Source is where a configuration is found.
type Source interface {
	// Documents returns what is there now.
	Documents() (Documents, error)
	// Fingerprint differs if something else is there; it is empty if nothing
	// can be read.
	Fingerprint() string
	// String names the source in messages.
	String() string
}

// Documents are a configuration as it is found.
type Documents struct {
	// Base is in Prometheus' format.
	Base Document
	// Parts add scrape configs, in the form of Prometheus'
	// scrape_config_files.
	Parts []Document
	// Directory is what relative paths in the base are relative to.
	Directory string
}

// Document is one of them. The name is for messages, and tells whether a
// document is the same one as before.
type Document struct {
	Name    string
	Content []byte
}

// FileSource is the path of a configuration file. It has no parts: files that
// its scrape_config_files name belong to it.
type FileSource string

var _ Source = FileSource("")

// Documents is part of Source.
func (f FileSource) Documents() (Documents, error) {
	content, err := os.ReadFile(string(f))
	if err != nil {
		return Documents{}, err
	}
	return Documents{Base: Document{Name: f.String(), Content: content}, Directory: filepath.Dir(string(f))}, nil
}

// Fingerprint is part of Source.
func (f FileSource) Fingerprint() string {
	sum, err := config.GenerateChecksum(string(f))
	if err != nil {
		return ""
	}
	return sum
}

// String is part of Source.
func (f FileSource) String() string { return fmt.Sprintf("configuration file %q", string(f)) }

// The keys of ConfigMaps that are read. Others are left alone.
const (
	baseKey = "config.yaml"
	partKey = "scrape.yaml"
)

// maxDocumentBytes bounds what a compressed value may become.
const maxDocumentBytes = 64 << 20

// ConfigMapSource finds the base under the key config.yaml of one of the
// ConfigMaps and a part under each key scrape.yaml. While the API server is
// away it has what was there last.
type ConfigMapSource struct{ ConfigMaps *kubeapi.ConfigMaps }

var _ Source = ConfigMapSource{}

// Documents is part of Source.
func (s ConfigMapSource) Documents() (Documents, error) {
	if err := s.ConfigMaps.Unread(); err != nil {
		return Documents{}, fmt.Errorf("%s: %w", s.ConfigMaps, err)
	}
	// What was read last is good enough: who asks when the API server is away
	// learns it from the log.
	values, _ := s.ConfigMaps.Values()
	var docs Documents
	for _, v := range values {
		if v.Key != baseKey && v.Key != partKey {
			continue
		}
		content, err := v.Read(maxDocumentBytes)
		doc := Document{Name: "configmap " + v.String(), Content: content}
		switch {
		case err != nil:
			return Documents{}, fmt.Errorf("configmap %w", err)
		case v.Key == partKey:
			docs.Parts = append(docs.Parts, doc)
		case docs.Base.Name != "":
			return Documents{}, fmt.Errorf("%s and %s are both the base of the configuration, remove one", docs.Base.Name, doc.Name)
		default:
			docs.Base = doc
		}
	}
	if docs.Base.Name == "" {
		return Documents{}, errors.New("none has the key " + baseKey)
	}
	return docs, nil
}

// Fingerprint is part of Source.
func (s ConfigMapSource) Fingerprint() string {
	docs, err := s.Documents()
	if err != nil {
		return err.Error()
	}
	h := sha256.New()
	for _, d := range append([]Document{docs.Base}, docs.Parts...) {
		fmt.Fprintf(h, "%q %d\n%s", d.Name, len(d.Content), d.Content)
	}
	return string(h.Sum(nil))
}

// String is part of Source.
func (s ConfigMapSource) String() string { return s.ConfigMaps.String() }
