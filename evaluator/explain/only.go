package explain

import "slices"

// Only returns the part of a report that is about one group. Rules of other
// groups that share its fragments remain as names.
func (r *Report) Only(group string) *Report {
	o := &Report{Slot: r.Slot, Backends: r.Backends, Rules: []RuleReport{}, Fragments: []Fragment{}}
	kept := map[int]int{}
	for i, rule := range r.Rules {
		if rule.Group == group {
			kept[i] = len(o.Rules)
			o.Rules = append(o.Rules, rule)
		}
	}
	moved := map[int]int{}
	for i, f := range r.Fragments {
		if own := r.only(f, kept); len(own.Rules) > 0 {
			moved[i] = len(o.Fragments)
			o.Fragments = append(o.Fragments, own)
		}
	}
	for i := range o.Rules {
		r := &o.Rules[i]
		r.Tree = r.Tree.renumbered(moved)
		r.Scalars = slices.Clone(r.Scalars)
		for n, s := range r.Scalars {
			r.Scalars[n].Tree = s.Tree.renumbered(moved)
		}
	}
	return o
}

// only is a fragment as seen from the rules that are kept.
func (r *Report) only(f Fragment, kept map[int]int) Fragment {
	rules := f.Rules
	f.Rules = nil
	for _, i := range rules {
		if n, ok := kept[i]; ok {
			f.Rules = append(f.Rules, n)
		} else {
			f.Others = append(f.Others, r.Rules[i].Group+"/"+r.Rules[i].Name)
		}
	}
	return f
}

// renumbered is a copy of the tree that refers to moved fragments.
func (n *Node) renumbered(moved map[int]int) *Node {
	if n == nil {
		return nil
	}
	c := *n
	if n.Fragment != nil {
		i := moved[*n.Fragment]
		c.Fragment = &i
	}
	c.Children = nil
	for _, child := range n.Children {
		c.Children = append(c.Children, child.renumbered(moved))
	}
	return &c
}
