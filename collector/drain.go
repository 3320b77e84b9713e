package collector

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
)

// drain waits until the queues have read the log to its end and have sent all
// of it, at most drainTimeout. Nothing is scraped any more when it is called.
func (p *pipeline) drain() {
	deadline := time.NewTimer(drainTimeout)
	defer deadline.Stop()
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	read := -1.0
	for {
		p.remote.Notify()
		sums := p.metrics.sums(recordsRead, samplesPending, histogramsPending, exemplarsPending)
		pending := sums[samplesPending] + sums[histogramsPending] + sums[exemplarsPending]
		if pending == 0 && sums[recordsRead] == read {
			return
		}
		read = sums[recordsRead]
		select {
		case <-deadline.C:
			p.logger.Warn("stopped before the backends had everything that was scraped", "pending", pending)
			return
		case <-poll.C:
		}
	}
}

// metricReader reads what the parts say about themselves.
type metricReader struct{ gatherer prometheus.Gatherer }

// sums adds up the series of each named gauge or counter. A part that can't
// be gathered counts as zero.
func (r metricReader) sums(names ...string) map[string]float64 {
	sums := make(map[string]float64, len(names))
	for _, name := range names {
		sums[name] = 0
	}
	// What could be gathered comes with the error.
	families, _ := r.gatherer.Gather()
	for _, f := range families {
		if _, wanted := sums[f.GetName()]; !wanted {
			continue
		}
		for _, m := range f.GetMetric() {
			sums[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sums
}
