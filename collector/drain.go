package collector

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// drainTimeout bounds how long a collector that stops waits until its
	// backends have what was scraped.
	drainTimeout = 3 * time.Second
	drainPoll    = 50 * time.Millisecond
)

// The queues can't be asked what they still have to do; their metrics tell.
const (
	recordsRead       = "prometheus_wal_watcher_records_read_total"
	samplesPending    = "prometheus_remote_storage_samples_pending"
	histogramsPending = "prometheus_remote_storage_histograms_pending"
	exemplarsPending  = "prometheus_remote_storage_exemplars_pending"
	highestSent       = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
	currentSegment    = "prometheus_wal_watcher_current_segment"
)

// drain waits until the queues have read the log to its end and have sent all
// of it, at most drainTimeout, and tells whether they have. Nothing is scraped
// any more when it is called.
func (s *sending) drain() bool {
	deadline := time.NewTimer(drainTimeout)
	defer deadline.Stop()
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	read := -1.0
	for {
		s.storage.Notify()
		sums := s.metrics.sums(recordsRead, samplesPending, histogramsPending, exemplarsPending)
		pending := sums[samplesPending] + sums[histogramsPending] + sums[exemplarsPending]
		if pending == 0 && sums[recordsRead] == read {
			return true
		}
		read = sums[recordsRead]
		select {
		case <-deadline.C:
			s.deps.Logger.Warn("stopped before the backends had everything that was scraped", "pending", pending)
			return false
		case <-poll.C:
		}
	}
}

// metricReader reads what the parts say about themselves.
type metricReader struct{ gatherer prometheus.Gatherer }

// each calls f with every series of the named gauges and counters. A part that
// can't be gathered has none.
func (r metricReader) each(f func(name string, m *dto.Metric), names ...string) {
	// What could be gathered comes with the error.
	families, _ := r.gatherer.Gather()
	for _, family := range families {
		if slices.Contains(names, family.GetName()) {
			for _, m := range family.GetMetric() {
				f(family.GetName(), m)
			}
		}
	}
}

// sums adds up the series of each named gauge or counter.
func (r metricReader) sums(names ...string) map[string]float64 {
	sums := make(map[string]float64, len(names))
	r.each(func(name string, m *dto.Metric) {
		sums[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}, names...)
	return sums
}

// watchers is the number of queues that have begun to read the log. The gauge
// of the segment is there, at zero, before a queue begins.
func (r metricReader) watchers() int {
	reading := map[string]bool{}
	r.each(func(_ string, m *dto.Metric) {
		kind := label(m, "type")
		if (kind == "" || kind == "series") && m.GetGauge().GetValue()+m.GetCounter().GetValue() > 0 {
			reading[label(m, "consumer")] = true
		}
	}, currentSegment, recordsRead)
	return len(reading)
}

// sentUntil is, by URL, the timestamp in milliseconds of the latest sample
// that a queue has sent; with several queues to one URL, that of the queue
// that is behind the others. Queues that have sent nothing are absent.
func (r metricReader) sentUntil() map[string]int64 {
	until := map[string]int64{}
	r.each(func(_ string, m *dto.Metric) {
		ms := int64(m.GetGauge().GetValue()) * 1000
		url := label(m, "url")
		if other, known := until[url]; ms > 0 && (!known || ms < other) {
			until[url] = ms
		}
	}, highestSent)
	return until
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
