package rule

import (
	"errors"
	"fmt"

	"gopkg.in/yaml.v3"
)

const (
	// maxAliasBytes bounds what aliases may add to a document; a node costs
	// about nodeBytes beside its text.
	maxAliasBytes = 32 << 20
	nodeBytes     = 200
	// maxDepth bounds nesting; an alias of its own ancestor runs into it.
	maxDepth = 200

	mergeTag = "!!merge"
	nullTag  = "!!null"
)

// expander copies a YAML tree with aliases and merge keys resolved, so that
// what comes after sees plain mappings, sequences and scalars.
type expander struct {
	// aliased is how many aliases the present node is reached through.
	aliased int
	left    int
}

func expand(n *yaml.Node) (*yaml.Node, error) {
	e := expander{left: maxAliasBytes}
	return e.node(n, 0)
}

func (e *expander) node(n *yaml.Node, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than max-depth (%d), maybe by an alias that contains itself", maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		e.aliased++
		defer func() { e.aliased-- }()
		return e.node(n.Alias, depth+1)
	}
	if e.aliased > 0 {
		e.left -= nodeBytes + len(n.Value)
	}
	if e.left < 0 {
		return nil, fmt.Errorf("aliases add more than max-alias-bytes (%d) to the document", maxAliasBytes)
	}
	out := *n
	out.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		var err error
		if out.Content[i], err = e.node(child, depth+1); err != nil {
			return nil, err
		}
	}
	if n.Kind == yaml.MappingNode {
		return merged(&out)
	}
	return &out, nil
}

// merged resolves the merge keys of a mapping: its own keys win, then those of
// earlier merged mappings.
func merged(n *yaml.Node) (*yaml.Node, error) {
	var own, sources []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.ShortTag() != mergeTag:
			own = append(own, key, value)
		case value.Kind == yaml.SequenceNode:
			sources = append(sources, value.Content...)
		default:
			sources = append(sources, value)
		}
	}
	if len(sources) == 0 {
		return n, nil
	}
	seen := map[string]bool{}
	for i := 0; i < len(own); i += 2 {
		seen[own[i].Value] = true
	}
	for _, s := range sources {
		if s.Kind != yaml.MappingNode {
			return nil, errors.New("a merge key (<<) needs a mapping or a list of mappings")
		}
		for i := 0; i+1 < len(s.Content); i += 2 {
			if name := s.Content[i].Value; !seen[name] {
				seen[name] = true
				own = append(own, s.Content[i], s.Content[i+1])
			}
		}
	}
	n.Content = own
	return n, nil
}

// child returns the value of a key of a mapping, nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool {
	return n.IsZero() || n.Kind == yaml.ScalarNode && n.ShortTag() == nullTag
}

// kindText names what n is, for messages.
func kindText(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "null"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("the scalar %.40q", n.Value)
	}
}
