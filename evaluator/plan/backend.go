package plan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
)

// Backend is one place that holds a slice of the data.
type Backend struct {
	// Name identifies the backend in plans, errors and metrics.
	Name string
	// Partition tells which slice: every series of this backend carries
	// exactly these labels, and no series of another backend does. A label
	// with an empty value means that the series here lack the label. Every
	// backend names the same labels.
	Partition labels.Labels
	// Virtual means that the stored series do not carry the partition labels
	// and that the query API does not add them, as with the external labels
	// of a plain Prometheus server. The plan then strips and adds them.
	Virtual bool
	// Shares means that the backend evaluates what the fragments of a batch have
	// in common once, so that nothing is saved by making an answer of others.
	Shares bool
	// ReadDelay is the longest time after which a sample that was acknowledged
	// is visible to queries. Plans do not depend on it.
	ReadDelay time.Duration
}

// Holds tells whether the backend can have series that all matchers accept,
// judging by the partition labels alone.
func (b Backend) Holds(matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if b.Partition.Has(m.Name) && !m.Matches(b.Partition.Get(m.Name)) {
			return false
		}
	}
	return true
}

// Selectors returns the matchers of all that an expression reads. The function
// info reads series that no selector names, so it counts as reading anything.
func Selectors(expr parser.Expr) [][]*labels.Matcher {
	selectors := parser.ExtractSelectors(expr)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if call, ok := n.(*parser.Call); ok && call.Func.Name == "info" {
			selectors = append(selectors, nil)
		}
		return nil
	})
	return selectors
}

// Validate reports every fault of a set of backends that would make answers
// wrong: names that are not unique, partition labels that differ in name,
// slices that are not disjoint.
func Validate(backends []Backend) error {
	if len(backends) == 0 {
		return errors.New("no backend is configured: at least one is needed")
	}
	var errs []error
	for i, b := range backends {
		errs = append(errs, validateBackend(b))
		for _, other := range backends[:i] {
			errs = append(errs, validatePair(other, b))
		}
	}
	return errors.Join(errs...)
}

func validateBackend(b Backend) error {
	var errs []error
	if b.Name == "" {
		errs = append(errs, errors.New("a backend has no name"))
	}
	b.Partition.Range(func(l labels.Label) {
		// PromQL's functions drop the labels that describe a metric.
		if schema.IsMetadataLabel(l.Name) || l.Name == labels.BucketLabel || l.Name == SiteLabel || l.Name == ScalarLabel {
			errs = append(errs, fmt.Errorf("backend %q: %q cannot be a partition label", b.Name, l.Name))
		}
	})
	return errors.Join(errs...)
}

func validatePair(a, b Backend) error {
	if a.Name == b.Name {
		return fmt.Errorf("two backends are named %q", a.Name)
	}
	an, bn := labelNames(a.Partition), labelNames(b.Partition)
	if !slices.Equal(an, bn) {
		return fmt.Errorf("backends %q and %q have different partition labels, %q and %q: give both the same names, with an empty value for a label that the series lack", a.Name, b.Name, an, bn)
	}
	if labels.Equal(a.Partition, b.Partition) {
		return fmt.Errorf("backends %q and %q have the same partition labels %s: the data of each must be its own", a.Name, b.Name, a.Partition)
	}
	return nil
}

func labelNames(ls labels.Labels) []string {
	names := make([]string, 0, ls.Len())
	ls.Range(func(l labels.Label) { names = append(names, l.Name) })
	return names
}

// holders returns the indexes of the backends that can hold series for a
// selector, in ascending order.
func holders(backends []Backend, vs *parser.VectorSelector) []int {
	var found []int
	for i, b := range backends {
		if b.Holds(vs.LabelMatchers) {
			found = append(found, i)
		}
	}
	return found
}

// union and intersect work on ascending index lists.
func union(a, b []int) []int {
	if len(a) == 0 || slices.Equal(a, b) {
		return b
	}
	u := slices.Concat(a, b)
	slices.Sort(u)
	return slices.Compact(u)
}

func intersect(a, b []int) []int {
	if slices.Equal(a, b) {
		return a
	}
	var both []int
	for _, i := range a {
		if slices.Contains(b, i) {
			both = append(both, i)
		}
	}
	return both
}
