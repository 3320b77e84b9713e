// Package migrate turns what other programs read into resources of ours:
// prometheus-operator's PrometheusRule, PodMonitor, ServiceMonitor and Probe,
// and rule files of Prometheus, Thanos, vmalert, Mimir and Cortex. It says of
// every field that has no equivalent why, and never drops one silently.
//
// What it returns is accepted by operator/render. It is pure: content in,
// manifests and notes out; files and standard output are the business of the
// command. The scripts of its tests are in testdata.
package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"gopkg.in/yaml.v3"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// Level says how much a note matters.
type Level int

const (
	// Changed is what has an equivalent that looks different from outside.
	Changed Level = iota
	// Lost is what has none, and what was assumed: to be looked at.
	Lost
	// Failed is an object, or a file, that was not migrated.
	Failed
)

func (l Level) String() string { return [...]string{"changed", "lost", "failed"}[l] }

// Note is one remark about the input.
type Note struct {
	Level Level
	// File and Object say where: "PodMonitor shop/api", empty for a file as a whole.
	File, Object string
	// Field is the path in the object, empty for the object as a whole.
	Field string
	Text  string
}

// String renders as "level: file: object: field: text".
func (n Note) String() string {
	parts := []string{n.Level.String(), n.File}
	for _, p := range []string{n.Object, n.Field} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(append(parts, n.Text), ": ")
}

// File is a file of the input.
type File struct {
	Name    string
	Content []byte
}

// Options say what can't be read from the input.
type Options struct {
	// Kind is what rules become: Rules, ClusterRules or GlobalRules.
	Kind string
	// Namespace is that of Rules which come from files without one.
	Namespace string
	// Interval is that of endpoints that have none.
	Interval string
	// Settings say for which cluster rules are checked. Without names of it,
	// expressions that ask for another cluster are not found.
	Settings render.Settings
}

// Result is what came of the input, in its order.
type Result struct {
	// Manifests are documents of YAML.
	Manifests [][]byte
	Notes     []Note
}

// Worst is the highest level of the notes, Changed if there are none.
func (r Result) Worst() Level {
	worst := Changed
	for _, n := range r.Notes {
		worst = max(worst, n.Level)
	}
	return worst
}

// Migrate migrates files. They are one input: the Services that are in any of
// them say which pods a ServiceMonitor or Probe of any other is about.
func Migrate(files []File, o Options) Result {
	m := &migration{options: o, renderer: render.New(o.Settings, nil), names: map[string]string{}}
	var all []object
	for _, f := range files {
		all = append(all, m.objects(f)...)
	}
	for _, obj := range all {
		if obj.kind == "Service" {
			m.services = append(m.services, obj)
		}
	}
	for _, obj := range all {
		m.migrate(obj)
	}
	return m.result
}

// migration is the work on one input.
type migration struct {
	options  Options
	renderer *render.Renderer
	services []object
	// names are those of the objects that were made, with what they come from.
	names  map[string]string
	result Result
}

// object is one document, or item of a list.
type object struct {
	file string
	// kind is empty for the content of a rule file.
	kind, namespace, name string
	labels                map[string]string
	root                  fields
	// number counts the rule files in one file, from 1.
	number int
}

func (o object) String() string {
	switch {
	case o.kind == "":
		return ""
	case o.namespace == "":
		return o.kind + " " + o.name
	default:
		return o.kind + " " + o.namespace + "/" + o.name
	}
}

// objects reads all documents of a file.
func (m *migration) objects(f File) []object {
	var out []object
	number := 0
	decoder := yaml.NewDecoder(bytes.NewReader(f.Content))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			m.note(object{file: f.Name}, Failed, "", err.Error())
			return out
		}
		if len(doc.Content) == 0 {
			continue
		}
		found := m.document(f.Name, doc.Content[0], 0)
		for i := range found {
			if found[i].kind == "" {
				number++
			}
			found[i].number = number
		}
		out = append(out, found...)
	}
}

// maxNesting bounds lists in lists.
const maxNesting = 10

func (m *migration) document(file string, n *yaml.Node, depth int) []object {
	root, ok := mapping(n)
	if !ok || depth > maxNesting {
		if n.Tag != "!!null" {
			m.note(object{file: file}, Failed, "", "is neither a manifest nor a rule file")
		}
		return nil
	}
	kind := root.text("kind")
	if items := root.take("items"); items != nil && strings.HasSuffix(kind, "List") {
		var out []object
		for _, item := range resolve(items).Content {
			out = append(out, m.document(file, item, depth+1)...)
		}
		return out
	}
	obj := object{file: file, kind: kind, root: root}
	root.take("apiVersion")
	if meta, ok := root.sub("metadata"); ok {
		obj.name, obj.namespace = meta.text("name"), meta.text("namespace")
		meta.into("labels", &obj.labels)
	}
	return []object{obj}
}

func (m *migration) migrate(obj object) {
	switch obj.kind {
	case "":
		m.ruleFile(obj)
	case "PrometheusRule":
		m.prometheusRule(obj)
	case "PodMonitor":
		m.podMonitor(obj)
	case "ServiceMonitor":
		m.serviceMonitor(obj)
	case "Probe":
		m.probe(obj)
	case "Service":
		// Read where it is referred to.
	case "Rules", "ClusterRules", "GlobalRules", "PodMonitoring", "ClusterPodMonitoring", "ClusterNodeMonitoring", "OperatorConfig":
		m.note(obj, Changed, "", "is one of ours already and left out")
	default:
		m.note(obj, Failed, "", "kind "+obj.kind+" has no equivalent")
	}
}

func (m *migration) note(obj object, level Level, field, text string) {
	m.result.Notes = append(m.result.Notes, Note{Level: level, File: obj.file, Object: obj.String(), Field: field, Text: text})
}

// emit adds a manifest that operator/render accepts; what it does not accept is
// a failure.
func (m *migration) emit(from object, key string, made any, err error) {
	if err != nil {
		for fault := range strings.SplitSeq(err.Error(), "\n") {
			m.note(from, Failed, "", fmt.Sprintf("does not become %s: %s", key, fault))
		}
		return
	}
	if other, taken := m.names[key]; taken {
		m.note(from, Failed, "", fmt.Sprintf("becomes %s, as does %s: rename one of them", key, other))
		return
	}
	m.names[key] = strings.TrimSpace(from.file + " " + from.String())
	text, err := manifest(made)
	if err != nil {
		m.note(from, Failed, "", err.Error())
		return
	}
	m.result.Manifests = append(m.result.Manifests, text)
}

// apiVersion is that of everything that is made.
var apiVersion = v1.GroupVersion.String()
