package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
)

// recorder is a backend that writes down what it is sent, as text.
type recorder struct {
	*httptest.Server

	mu sync.Mutex
	// samples are by series and timestamp, exemplars and metadata by series.
	samples   map[string]map[int64]string
	exemplars map[string][]string
	metadata  map[string]string
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{samples: map[string]map[int64]string{}, exemplars: map[string][]string{}, metadata: map[string]string{}}
	r.Server = httptest.NewServer(remote.NewWriteHandler(slog.New(slog.DiscardHandler), nil, r,
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}, false, false, false))
	t.Cleanup(r.Close)
	return r
}

// Appender is part of storage.Appendable.
func (r *recorder) Appender(context.Context) storage.Appender { return recording{recorder: r} }

// recording keeps what is appended at once; the write handler rolls nothing
// back here.
type recording struct {
	storage.Appender
	*recorder
}

func (r recording) note(l labels.Labels, t int64, text string) (storage.SeriesRef, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	series := l.String()
	if r.samples[series] == nil {
		r.samples[series] = map[int64]string{}
	}
	r.samples[series][t] = text
	return 1, nil
}

func (r recording) Append(_ storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	text := fmt.Sprint(v)
	switch {
	case value.IsStaleNaN(v):
		text = "stale"
	case math.IsNaN(v):
		text = fmt.Sprintf("NaN %x", math.Float64bits(v))
	}
	return r.note(l, t, text)
}

func (r recording) AppendHistogram(_ storage.SeriesRef, l labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	switch {
	case h != nil && value.IsStaleNaN(h.Sum) || fh != nil && value.IsStaleNaN(fh.Sum):
		return r.note(l, t, "stale")
	case h != nil:
		return r.note(l, t, fmt.Sprintf("%s schema %d reset %d", h, h.Schema, h.CounterResetHint))
	default:
		return r.note(l, t, fmt.Sprintf("float %s schema %d", fh, fh.Schema))
	}
}

func (r recording) AppendExemplar(_ storage.SeriesRef, l labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf("%s %v", e.Labels, e.Value)
	if e.HasTs {
		text = fmt.Sprintf("%s @%d", text, e.Ts)
	}
	if !slices.Contains(r.exemplars[l.String()], text) {
		r.exemplars[l.String()] = append(r.exemplars[l.String()], text)
	}
	return 1, nil
}

func (r recording) UpdateMetadata(_ storage.SeriesRef, l labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m != (metadata.Metadata{}) {
		r.metadata[l.String()] = fmt.Sprintf("%s %q %q", m.Type, m.Unit, m.Help)
	}
	return 1, nil
}

func (recording) SetOptions(*storage.AppendOptions) {}
func (recording) Commit() error                     { return nil }
func (recording) Rollback() error                   { return nil }

// scrapes are the timestamps of a job's scrapes, in order.
func (r *recorder) scrapes(job string) []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at []int64
	for series, samples := range r.samples {
		if strings.HasPrefix(series, `{__name__="up"`) && strings.Contains(series, `job="`+job+`"`) {
			for t := range samples {
				at = append(at, t)
			}
		}
	}
	slices.Sort(at)
	return at
}

// script is what the first n scrapes of a job have brought, a line for each
// sample and exemplar, with the number of the scrape in place of its time.
func (r *recorder) script(job string, n int) string {
	scrapes := r.scrapes(job)
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for series, samples := range r.samples {
		if !strings.Contains(series, `job="`+job+`"`) {
			continue
		}
		for t, text := range samples {
			if strings.HasPrefix(series, `{__name__="scrape_duration_seconds"`) {
				text = "some time"
			}
			i, isScrape := slices.BinarySearch(scrapes, t)
			switch {
			case isScrape && i < n:
				lines = append(lines, fmt.Sprintf("%s scrape %d: %s", series, i, text))
			case !isScrape:
				lines = append(lines, fmt.Sprintf("%s @%d: %s", series, t, text))
			}
		}
		for _, e := range r.exemplars[series] {
			lines = append(lines, fmt.Sprintf("%s exemplar %s", series, e))
		}
		lines = append(lines, fmt.Sprintf("%s metadata %s", series, r.metadata[series]))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
