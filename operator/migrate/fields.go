package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// fields are the entries of a mapping that nobody has taken yet. What is left in
// the end has no equivalent.
type fields struct {
	path    string
	entries map[string]*yaml.Node
}

// mapping reads a node that is one, with aliases and merge keys resolved.
func mapping(n *yaml.Node) (fields, bool) {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return fields{}, false
	}
	f := fields{entries: map[string]*yaml.Node{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			f.entries[n.Content[i].Value] = resolve(n.Content[i+1])
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			f.merge(resolve(n.Content[i+1]))
		}
	}
	return f, true
}

// merge adds what is not there yet. It does not look for merge keys in what is
// merged, and so it ends.
func (f fields) merge(n *yaml.Node) {
	sources := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		sources = n.Content
	}
	for _, s := range sources {
		s = resolve(s)
		for i := 0; i+1 < len(s.Content); i += 2 {
			if _, ok := f.entries[s.Content[i].Value]; !ok {
				f.entries[s.Content[i].Value] = resolve(s.Content[i+1])
			}
		}
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// take returns an entry, nil if there is none or null, and removes it.
func (f fields) take(key string) *yaml.Node {
	n := f.entries[key]
	delete(f.entries, key)
	if n != nil && n.Tag == "!!null" {
		return nil
	}
	return n
}

// text takes a scalar, as it is written.
func (f fields) text(key string) string {
	n := f.entries[key]
	if n == nil || n.Kind != yaml.ScalarNode || f.take(key) == nil {
		return ""
	}
	return n.Value
}

// flag takes a boolean; nil if there is none.
func (f fields) flag(key string) *bool {
	text := f.text(key)
	if text == "" {
		return nil
	}
	on := text == "true"
	return &on
}

// is takes a boolean and says whether it is true.
func (f fields) is(key string) bool {
	on := f.flag(key)
	return on != nil && *on
}

// into takes an entry of any kind; what does not fit stays.
func (f fields) into(key string, target any) {
	if n := f.entries[key]; n != nil && n.Decode(target) == nil {
		f.take(key)
	}
}

// sub takes a mapping.
func (f fields) sub(key string) (fields, bool) {
	inner, ok := mapping(f.entries[key])
	if ok {
		f.take(key)
	}
	inner.path = f.at(key)
	return inner, ok
}

// subs takes a list of mappings.
func (f fields) subs(key string) []fields {
	n := f.entries[key]
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	f.take(key)
	var out []fields
	for i, item := range n.Content {
		inner, _ := mapping(item)
		inner.path = fmt.Sprintf("%s[%d]", f.at(key), i)
		out = append(out, inner)
	}
	return out
}

// at is the path of an entry.
func (f fields) at(key string) string { return strings.TrimPrefix(f.path+"."+key, ".") }

// reasons say why fields have no equivalent.
type reasons map[string]reason

type reason struct {
	level Level
	text  string
}

func lost(text string) reason    { return reason{Lost, text} }
func changed(text string) reason { return reason{Changed, text} }

func sorted[V any](entries map[string]V) []string { return slices.Sorted(maps.Keys(entries)) }

// left reports what nobody took, with the reasons that are known. An entry that
// is null, false, 0 or empty asks for nothing.
func (m *migration) left(obj object, f fields, known reasons) {
	for _, key := range sorted(f.entries) {
		if n := f.entries[key]; n == nil || asksForNothing(n) {
			continue
		}
		why, ok := known[key]
		if !ok {
			why = lost("has no equivalent")
		}
		m.note(obj, why.level, f.at(key), why.text)
	}
}

func asksForNothing(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Tag == "!!null" || slices.Contains([]string{"", "false", "0"}, n.Value)
	default:
		return len(n.Content) == 0
	}
}

// manifest writes an object without what a user does not write.
func manifest(made any) ([]byte, error) {
	if text, ok := made.([]byte); ok {
		return text, nil
	}
	encoded, err := json.Marshal(made)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(encoded, &tree); err != nil {
		return nil, err
	}
	delete(tree, "status")
	if meta, ok := tree["metadata"].(map[string]any); ok {
		delete(meta, "creationTimestamp")
	}
	var out strings.Builder
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	err = encoder.Encode(tree)
	return []byte(out.String()), err
}

// notInNames is what names of objects can't have.
var notInNames = regexp.MustCompile(`[^a-z0-9.-]+`)

// objectName makes the name of an object.
func objectName(parts ...string) string {
	var used []string
	for _, p := range parts {
		if p != "" {
			used = append(used, p)
		}
	}
	name := notInNames.ReplaceAllString(strings.ToLower(strings.Join(used, "-")), "-")
	return strings.Trim(name, "-.")
}
