// Package remote asks backends: fragments of a batch over the native pushdown
// protocol, Thanos' Query API or the Prometheus HTTP API, raw series over
// Prometheus' remote read or Thanos' Store API. A backend may answer at several
// endpoints, of which one is asked, and another one if that fails or is slow.
//
// It never decides what to ask, never merges answers of fragments or of
// endpoints, and never returns part of an answer: what is not complete and
// well-formed is an Error with a Kind. Clients are safe for concurrent use; constructors do no I/O and
// start no goroutine.
package remote

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// Client asks one backend.
type Client interface {
	// Execute runs fragments, which are all for this backend, and returns one
	// result for each, in their order. It ends with ctx at the latest.
	Execute(ctx context.Context, fragments []plan.Fragment, opts Options) []Result
	// Probe finds out cheaply whether the backend answers.
	Probe(ctx context.Context) error
	// Close ends connections. No Execute may be in progress or follow.
	Close() error
}

// Options apply to a whole batch.
type Options struct {
	// Lookback is how far instant selectors look for a sample; 0 asks for the
	// backend's default.
	Lookback time.Duration
}

// Result is the answer to one fragment.
type Result struct {
	// Value is a promql.Scalar, Vector, Matrix or String; nil if Err is set.
	Value    parser.Value
	Warnings annotations.Annotations
	// Bytes is the size of the answer on the wire, SamplesRead what the
	// backend says it read for it; 0 if unknown.
	Bytes       int
	SamplesRead uint64
	// Took is how long the backend was at work on it; 0 if unknown.
	Took time.Duration
	// Err is an *Error.
	Err error
}

// Kind says who or what is to blame for an error.
type Kind string

const (
	// KindUser: the expression is at fault.
	KindUser Kind = "user"
	// KindBackend: the backend is away, refuses us, or answers nonsense.
	KindBackend Kind = "backend"
	// KindLimit: a bound was hit; the message names it.
	KindLimit Kind = "limit"
	// KindTimeout and KindCanceled: the time was up, the caller gave up.
	KindTimeout  Kind = "timeout"
	KindCanceled Kind = "canceled"
	// KindInternal: a fault of this program or inside the backend.
	KindInternal Kind = "internal"
)

// Kinds are all kinds, for metrics.
func Kinds() []Kind {
	return []Kind{KindUser, KindBackend, KindLimit, KindTimeout, KindCanceled, KindInternal}
}

// Error is what a client reports.
type Error struct {
	Kind Kind
	Err  error
	// Backend is the name of the backend, where the call involves several.
	Backend string
	// Limit is the limit of the fragment that was exceeded, empty if there is
	// none or if it is not the fragment's.
	Limit Limit
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

func errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// ErrHistogram says that an answer in JSON holds a native histogram, which
// that format does not carry exactly.
var ErrHistogram = errors.New("the answer holds a native histogram, which the JSON of the Prometheus API does not carry exactly: give the backend a gRPC address or use raw series")

// failAll answers every fragment with one error.
func failAll(n int, err error) []Result {
	results := make([]Result, n)
	for i := range results {
		results[i].Err = err
	}
	return results
}

// contextError is the error of a call whose context has ended, nil if it has
// not.
func contextError(ctx context.Context) *Error {
	switch {
	case ctx.Err() == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errorf(KindTimeout, "no answer in time: %w", ctx.Err())
	}
	return &Error{Kind: KindCanceled, Err: ctx.Err()}
}

// passed is a warning or an info of a backend, passed on.
type passed struct {
	text string
	kind error
}

func (p passed) Error() string { return p.text }

func (p passed) Unwrap() error { return p.kind }

// remarkPrefix is how remarks of an engine about a query begin.
const remarkPrefix = "PromQL "

// omitted says that there are more remarks than are shown.
var omitted = regexp.MustCompile(`^\d+ more (warning|info) annotations omitted$`)

// Omitted tells whether a remark is that there are more of them.
func Omitted(remark string) bool { return omitted.MatchString(remark) }

// addRemarks passes on what an engine remarks about a query. Any other warning
// says that something was left out.
func addRemarks(to *annotations.Annotations, texts []string) error {
	for _, text := range texts {
		if !strings.HasPrefix(text, remarkPrefix) && !Omitted(text) {
			return partial(text)
		}
	}
	addAnnotations(to, texts)
	return nil
}

func partial(warning string) error {
	if strings.Contains(warning, "truncated due to limit") {
		return &Error{Kind: KindLimit, Err: errTruncated}
	}
	return errorf(KindBackend, "the answer may be partial: %s", excerpt([]byte(warning)))
}

// position is where in the fragment a remark points to, which is no place in
// the query that the fragment was cut out of.
var position = regexp.MustCompile(` \(\d+:\d+\)$`)

// addAnnotations passes texts on with the kind that they begin with.
func addAnnotations(to *annotations.Annotations, texts []string) {
	for _, text := range texts {
		p := passed{text: position.ReplaceAllString(text, "")}
		for _, kind := range []error{
			annotations.MixedFloatsHistogramsWarning, annotations.MixedExponentialCustomHistogramsWarning,
			annotations.PromQLWarning, annotations.PromQLInfo,
		} {
			if strings.HasPrefix(text, kind.Error()) {
				p.kind = kind
				break
			}
		}
		to.Add(p)
	}
}
