package remote

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/util/annotations"
)

// Missing is the warning of a result that lacks the data of a backend.
type Missing struct {
	Backend string
	Err     error
}

// Error implements error.
func (m *Missing) Error() string {
	return fmt.Sprintf("backend %q does not answer, its data is missing: %s", m.Backend, m.Err)
}

// Unwrap says of what kind the warning is; it does not make it the error that
// is the reason.
func (m *Missing) Unwrap() error { return annotations.PromQLWarning }

// Absent tells errors that mean that a backend is not there: what it holds may
// be left out by who is content with that. A backend that refuses an
// expression or keeps a limit is there.
func Absent(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Kind == KindBackend || e.Kind == KindTimeout) && !errors.Is(err, ErrHistogram)
}
