package render

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"

	amconfig "github.com/prometheus/alertmanager/config"
	"gopkg.in/yaml.v3"
)

// silent is the configuration of an Alertmanager that tells nobody.
const silent = `route:
  receiver: noop
receivers:
- name: noop
`

// managedSection is what only Google's Alertmanager has.
const managedSection = "google_cloud"

// Alertmanager returns the configuration of the managed Alertmanager for what
// the user's Secret holds, nil if there is none: then it runs and tells nobody.
// A section that only Google's Alertmanager knows is left out; otherwise not a
// byte is changed. The error quotes nothing that may be secret.
func Alertmanager(content []byte) ([]byte, error) {
	if content == nil {
		return []byte(silent), nil
	}
	content, err := withoutSection(content, managedSection)
	if err != nil {
		return nil, err
	}
	if _, err := amconfig.Load(string(content)); err != nil {
		return nil, fmt.Errorf("the Alertmanager's configuration is not valid: %w", discreet(err))
	}
	return content, nil
}

// withoutSection removes a top-level section, with all others as they are.
func withoutSection(content []byte, name string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("the Alertmanager's configuration is not YAML: %w", discreet(err))
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return content, nil
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			root.Content = append(root.Content[:i], root.Content[i+2:]...)
			var out bytes.Buffer
			encoder := yaml.NewEncoder(&out)
			encoder.SetIndent(2)
			err := encoder.Encode(&doc)
			return out.Bytes(), err
		}
	}
	return content, nil
}

// quoted is where messages may repeat a part of the configuration.
var quoted = regexp.MustCompile("`[^`]*`|\"[^\"]*://[^\"]*\"")

func discreet(err error) error { return errors.New(quoted.ReplaceAllString(err.Error(), "(hidden)")) }
