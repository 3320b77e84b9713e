package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Partition says which series belong into a store.
type Partition struct {
	// Labels are external labels: a series that lacks one gets it, a series
	// with another value does not belong here.
	Labels labels.Labels
	// Absent are names of labels that no series here may carry, because they
	// mark the partitions of other stores.
	Absent []string
}

// Validate reports every fault of the partition.
func (p Partition) Validate() error {
	var errs []error
	p.Labels.Range(func(l labels.Label) {
		errs = append(errs, validateName(l.Name))
		if l.Value == "" {
			errs = append(errs, fmt.Errorf("external label %q has no value", l.Name))
		}
		if slices.Contains(p.Absent, l.Name) {
			errs = append(errs, fmt.Errorf("label %q can't be both an external label and absent", l.Name))
		}
	})
	for _, name := range p.Absent {
		errs = append(errs, validateName(name))
	}
	return errors.Join(errs...)
}

func validateName(name string) error {
	if name == model.MetricNameLabel || !model.LegacyValidation.IsValidLabelName(name) {
		return fmt.Errorf("%q is not a name for an external label", name)
	}
	return nil
}

// String is the partition as matchers, with "" for an absent label.
func (p Partition) String() string {
	var parts []string
	p.Labels.Range(func(l labels.Label) {
		parts = append(parts, fmt.Sprintf("%s=%q", l.Name, l.Value))
	})
	for _, name := range p.Absent {
		parts = append(parts, fmt.Sprintf("%s=%q", name, ""))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// foreign returns one matcher per label; what any of them matches does not
// belong into the partition.
func (p Partition) foreign() []*labels.Matcher {
	var ms []*labels.Matcher
	p.Labels.Range(func(l labels.Label) {
		ms = append(ms, labels.MustNewMatcher(labels.MatchNotEqual, l.Name, l.Value))
	})
	for _, name := range p.Absent {
		ms = append(ms, labels.MustNewMatcher(labels.MatchNotEqual, name, ""))
	}
	return ms
}

// enforce returns the labels under which a series is stored.
func (p Partition) enforce(series labels.Labels) (labels.Labels, error) {
	for _, name := range p.Absent {
		if got := series.Get(name); got != "" {
			return labels.EmptyLabels(), &PartitionError{Series: series, Label: name, Got: got}
		}
	}
	var (
		missing bool
		err     error
	)
	p.Labels.Range(func(l labels.Label) {
		switch got := series.Get(l.Name); got {
		case l.Value:
		case "":
			missing = true
		default:
			err = &PartitionError{Series: series, Label: l.Name, Got: got, Want: l.Value}
		}
	})
	if err != nil || !missing {
		return series, err
	}
	b := labels.NewBuilder(series)
	p.Labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels(), nil
}

// PartitionError says that a series belongs into another store.
type PartitionError struct {
	Series labels.Labels
	Label  string
	// Got is the value of the label, Want the store's, "" if the label must
	// be absent.
	Got, Want string
}

// Error implements error.
func (e *PartitionError) Error() string {
	if e.Want == "" {
		return fmt.Sprintf("series %s must not carry the label %q in this store", e.Series, e.Label)
	}
	return fmt.Sprintf("series %s has %s=%q, but this store holds %s=%q only", e.Series, e.Label, e.Got, e.Label, e.Want)
}

// Is makes the error one of those that Prometheus' remote-write handler
// answers with status 400, so that senders do not try again.
func (e *PartitionError) Is(target error) bool { return target == storage.ErrOutOfBounds }

// reason is the value of the metric's label for this error.
func (e *PartitionError) reason() string {
	if e.Want == "" {
		return reasonForbiddenLabel
	}
	return reasonOtherPartition
}
