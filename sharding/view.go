package sharding

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// costsVersion is the first version of the protocol whose members know Costs. As
// long as there is an older one the costs change nothing, so that all agree.
const costsVersion = 2

// View is an immutable snapshot of the members and their states, with the costs
// of groups as they are agreed on. The zero value is a view without members.
type View struct {
	members     []Member
	costs       Costs
	candidates  []candidate
	uniform     bool
	heavy       map[uint64]place
	fingerprint string
}

// NewView returns the view of the given members, in which all groups cost the
// same; the slice is not kept. Of several members of one name only one stays,
// the same one in any order.
func NewView(members []Member) View { return newView(members, Costs{}) }

func newView(members []Member, costs Costs) View {
	sorted := make([]Member, 0, len(members))
	for _, m := range members {
		sorted = append(sorted, m.normalised())
	}
	slices.SortFunc(sorted, compare)
	v := View{uniform: true, costs: costs, members: slices.CompactFunc(sorted, func(a, b Member) bool { return a.Name == b.Name })}
	for _, m := range v.members {
		if m.State != Ready {
			continue
		}
		v.candidates = append(v.candidates, newCandidate(m))
		v.uniform = v.uniform && m.Weight == v.candidates[0].weight
	}
	if !slices.ContainsFunc(v.members, func(m Member) bool { return m.Version < costsVersion }) {
		v.placeHeavy()
	}
	if len(v.members) > 0 {
		v.fingerprint = fmt.Sprintf("%016x", xxhash.Sum64String(v.String()))
	}
	return v
}

// WithCosts returns the view with other costs.
func (v View) WithCosts(c Costs) View { return newView(v.members, c) }

// Costs are those that the view was made with.
func (v View) Costs() Costs { return v.costs }

// Fingerprint tells views apart: two views with the same members in the same
// states and the same costs have the same one. It is empty for a view without
// members.
func (v View) Fingerprint() string { return v.fingerprint }

// Members returns all members, sorted by name. The slice is a copy.
func (v View) Members() []Member { return slices.Clone(v.members) }

// Ready returns the members that may own groups, sorted by name.
func (v View) Ready() []Member {
	var ready []Member
	for _, m := range v.members {
		if m.State == Ready {
			ready = append(ready, m)
		}
	}
	return ready
}

// Member returns the member of the given name.
func (v View) Member(name string) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.members, name, func(m Member, n string) int {
		return strings.Compare(m.Name, n)
	})
	if !ok {
		return Member{}, false
	}
	return v.members[i], true
}

// WithState returns the view as it would be with one member in another state.
// A member that the view doesn't hold changes nothing.
func (v View) WithState(name string, s State) View {
	if m, ok := v.Member(name); !ok || m.State == s {
		return v
	}
	changed := v.Members()
	for i := range changed {
		if changed[i].Name == name {
			changed[i].State = s
		}
	}
	return newView(changed, v.costs)
}

// String returns the members, one a line, sorted by name, and the costs, if
// there are any.
func (v View) String() string {
	var b strings.Builder
	for _, m := range v.members {
		b.WriteString(m.String())
		b.WriteByte('\n')
	}
	if v.costs.version > 0 {
		b.WriteString(v.costs.String())
	}
	return b.String()
}
