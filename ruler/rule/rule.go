// Package rule holds rule groups and rules as values: parsed from files,
// validated, identified, ordered by what reads what.
//
// It is pure: bytes in, values or errors out. Reading files and watching them
// is the business of ruler/source, running rules that of ruler. All values are
// immutable once made and safe for concurrent use. The scripts of its tests are
// in testdata: what files parse to, and which stages rules are in.
package rule

import (
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Group is the unit of ownership and of scheduling.
type Group struct {
	// Key identifies the group in the whole cluster. It is stable over edits
	// of the group's rules and opaque to sharding. What Parse returns has the
	// file in its key; see Set.Groups.
	Key string
	// Name and File are what the user wrote and where, as Prometheus' API
	// shows them. File is relative to the rule source's root.
	Name string
	File string
	// Interval is the time between two slots, at least a second.
	Interval time.Duration
	// QueryOffset is subtracted from the slot to get the time that queries
	// look at.
	QueryOffset time.Duration
	// Limit is the greatest number of series or alerts that one rule may
	// produce; 0 means none.
	Limit int
	// Scope is the tenancy of the group: the labels that every selector of
	// its rules is restricted to and that every result carries. Empty for
	// groups that see everything.
	Scope labels.Labels
	// Partial permits results that lack the data of backends which do not
	// answer, as long as one of several does.
	Partial bool
	Rules   []Rule
}

// Phase is what the offset of the group's slots is computed from: the names of
// its object and its own. The same pack that is installed for many tenants has
// one phase, so that its groups share slots and their rules are evaluated as
// one. A group of a rule file has the phase of its name, wherever it moves.
func (g Group) Phase() string {
	parts := strings.Split(g.Key, "/")
	names := 2
	if g.ofFile() {
		names = 1
	}
	return strings.Join(parts[max(0, len(parts)-names):], "/")
}

// ofFile tells groups of rule files from those of custom resources.
func (g Group) ofFile() bool { return strings.HasPrefix(g.Key, fileKind+"/") }

// withoutFile is the key without the file that the group is defined in.
func (g Group) withoutFile() string {
	if !g.ofFile() {
		return g.Key
	}
	return fileKind + "/" + escape(g.Name)
}

// Rule is a recording rule if Record is set, an alerting rule if Alert is.
type Rule struct {
	Record string
	Alert  string
	// Expr is the expression with the group's scope enforced.
	Expr parser.Expr
	// For and KeepFiringFor apply to alerting rules.
	For           time.Duration
	KeepFiringFor time.Duration
	// Labels are the rule's and its group's labels; the scope is not in them.
	Labels      labels.Labels
	Annotations labels.Labels
}

// Name is the name of the recorded series or of the alert.
func (r Rule) Name() string {
	if r.Alert != "" {
		return r.Alert
	}
	return r.Record
}
