package write

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds how long a backend may ask to be left alone.
const maxRetryAfter = 5 * time.Minute

// answer is what a backend said to a request.
type answer struct {
	status int
	text   string
	// stored is the number of samples stored if the backend says so
	// (protocol 2.0), else negative.
	stored int
	// retryAfter is for how long the backend asks to be left alone.
	retryAfter time.Duration
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	var d time.Duration
	if seconds, err := strconv.Atoi(text); err == nil {
		d = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(text); err == nil {
		d = date.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// tooNew tells an answer to protocol 2.0 of a backend that knows only 1.0. It
// may say so, or take the message for an empty one and be content: then it
// does not tell how much it has stored, as 2.0 demands.
func (a answer) tooNew() bool {
	return a.status == http.StatusUnsupportedMediaType || a.status/100 == 2 && a.stored < 0
}

// retryable is an error if the same request may succeed later: the backend is
// in trouble, or it does not let us in, which an operator will mend.
func (a answer) retryable() error {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusUnsupportedMediaType:
		return a.error()
	}
	if a.status/100 != 2 && a.status/100 != 4 {
		return a.error()
	}
	return nil
}

func (a answer) error() error {
	return errors.New(http.StatusText(a.status) + ": " + a.text)
}

// reason sorts a refusal into one of few classes, by the words that
// Prometheus' storage uses.
func (a answer) reason() string {
	text := strings.ToLower(a.text)
	for _, r := range []struct{ word, reason string }{
		{"out of order", "out_of_order"},
		{"out of bounds", "out_of_bounds"},
		{"too old", "out_of_bounds"},
		{"duplicate sample", "duplicate_value"},
		{"label", "labels"},
	} {
		if strings.Contains(text, r.word) {
			return r.reason
		}
	}
	return "other"
}
