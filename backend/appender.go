package backend

import (
	"errors"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// appender puts series into the partition before they reach the TSDB. It is
// used by one goroutine, as all appenders are.
type appender struct {
	storage.Appender
	partition Partition
	metrics   *storeMetrics
	// seen and stored are the labels of the last series, as they came and as
	// they are stored: the samples of a series follow each other.
	seen, stored labels.Labels
}

func (a *appender) enforce(series labels.Labels) (labels.Labels, error) {
	if !a.seen.IsEmpty() && labels.Equal(a.seen, series) {
		return a.stored, nil
	}
	stored, err := a.partition.enforce(series)
	var wrong *PartitionError
	if errors.As(err, &wrong) {
		a.metrics.refusedSamples.WithLabelValues(wrong.reason()).Inc()
	}
	if err != nil {
		return labels.EmptyLabels(), err
	}
	a.seen, a.stored = series, stored
	return stored, nil
}

// Append implements storage.Appender.
func (a *appender) Append(ref storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	l, err := a.enforce(l)
	if err != nil {
		return 0, err
	}
	return a.Appender.Append(ref, l, t, v)
}

// AppendHistogram implements storage.Appender.
func (a *appender) AppendHistogram(ref storage.SeriesRef, l labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	l, err := a.enforce(l)
	if err != nil {
		return 0, err
	}
	return a.Appender.AppendHistogram(ref, l, t, h, fh)
}

// AppendExemplar implements storage.Appender.
func (a *appender) AppendExemplar(ref storage.SeriesRef, l labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	l, err := a.enforce(l)
	if err != nil {
		return 0, err
	}
	return a.Appender.AppendExemplar(ref, l, e)
}

// AppendSTZeroSample implements storage.Appender.
func (a *appender) AppendSTZeroSample(ref storage.SeriesRef, l labels.Labels, t, st int64) (storage.SeriesRef, error) {
	l, err := a.enforce(l)
	if err != nil {
		return 0, err
	}
	return a.Appender.AppendSTZeroSample(ref, l, t, st)
}

// AppendHistogramSTZeroSample implements storage.Appender.
func (a *appender) AppendHistogramSTZeroSample(ref storage.SeriesRef, l labels.Labels, t, st int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	l, err := a.enforce(l)
	if err != nil {
		return 0, err
	}
	return a.Appender.AppendHistogramSTZeroSample(ref, l, t, st, h, fh)
}

// UpdateMetadata implements storage.Appender.
func (a *appender) UpdateMetadata(ref storage.SeriesRef, l labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	l, err := a.enforce(l)
	if err != nil {
		return 0, err
	}
	return a.Appender.UpdateMetadata(ref, l, m)
}

// refusingAppender answers every call with the reason why the store can't
// append.
type refusingAppender struct{ err error }

func (a refusingAppender) Append(storage.SeriesRef, labels.Labels, int64, float64) (storage.SeriesRef, error) {
	return 0, a.err
}

func (a refusingAppender) AppendHistogram(storage.SeriesRef, labels.Labels, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, a.err
}

func (a refusingAppender) AppendExemplar(storage.SeriesRef, labels.Labels, exemplar.Exemplar) (storage.SeriesRef, error) {
	return 0, a.err
}

func (a refusingAppender) AppendSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64) (storage.SeriesRef, error) {
	return 0, a.err
}

func (a refusingAppender) AppendHistogramSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, a.err
}

func (a refusingAppender) UpdateMetadata(storage.SeriesRef, labels.Labels, metadata.Metadata) (storage.SeriesRef, error) {
	return 0, a.err
}

func (a refusingAppender) SetOptions(*storage.AppendOptions) {}
func (a refusingAppender) Commit() error                     { return a.err }
func (a refusingAppender) Rollback() error                   { return nil }
