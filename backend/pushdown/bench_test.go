package pushdown_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

const (
	benchSeries   = 10_000
	benchInterval = 15_000
	benchSamples  = 60
)

// benchStorage holds 10 metrics of 1,000 series each, a quarter of an hour of
// them.
func benchStorage(b *testing.B) *teststorage.TestStorage {
	b.Helper()
	db := teststorage.New(b)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	for i := range int64(benchSamples) {
		app := db.Appender(b.Context())
		for s := range benchSeries {
			_, err := app.Append(0, labels.FromStrings(
				"__name__", fmt.Sprintf("metric_%d_total", s%10),
				"cluster", "east",
				"namespace", fmt.Sprintf("ns-%d", s/10%20),
				"pod", fmt.Sprintf("pod-%d", s/200),
				"instance", fmt.Sprintf("10.0.0.%d:9090", s/10%250),
			), i*benchInterval, float64(i*int64(s)))
			require.NoError(b, err)
		}
		require.NoError(b, app.Commit())
	}
	return db
}

// benchFragments returns 200 fragments as rules of typical packs leave them
// for a backend: rates summed up, ratios, thresholds, few that return a lot.
func benchFragments(at int64) []*pushdownv1.Fragment {
	var fragments []*pushdownv1.Fragment
	add := func(format string, args ...any) {
		fragments = append(fragments, instant(fmt.Sprintf(format, args...), at))
	}
	for i := range 20 {
		m, n := i%10, i
		add(`sum by (namespace) (rate(metric_%d_total{namespace="ns-%d"}[5m]))`, m, n)
		add(`sum(rate(metric_%d_total{namespace="ns-%d"}[5m])) / sum(rate(metric_%d_total{namespace="ns-%d"}[5m]))`, m, n, (m+1)%10, n)
		add(`sum by (namespace, pod) (increase(metric_%d_total[10m]))`, m)
		add(`max by (instance) (metric_%d_total{namespace=~"ns-%d|ns-1"})`, m, n)
		add(`metric_%d_total{namespace="ns-%d"} > 1e9`, m, n)
		add(`count by (namespace) (metric_%d_total)`, m)
		add(`avg by (namespace) (metric_%d_total{pod=~"pod-1.*"})`, m)
		add(`topk(5, rate(metric_%d_total{namespace="ns-%d"}[5m]))`, m, n)
		add(`rate(metric_%d_total{namespace="ns-%d"}[1m]) > on (pod) group_left () (0.5 * avg by (pod) (metric_%d_total{namespace="ns-%d"}))`, m, n, m, n)
		add(`absent(metric_%d_total{namespace="ns-%d"})`, m, n)
	}
	return fragments
}

// BenchmarkBatch runs one batch after the other on one stream, as the slots of
// a rule-evaluator do.
func BenchmarkBatch(b *testing.B) {
	fragments := benchFragments(benchSamples * benchInterval)
	require.Len(b, fragments, 200)
	benchBatches(b, benchStorage(b), fragments)
}

// benchBatches measures batches of the same fragments, client included.
func benchBatches(b *testing.B, db storage.Queryable, fragments []*pushdownv1.Fragment) {
	c := open(b, serve(b, pushdown.Config{}, newEngine(), db))
	for _, r := range c.batch(0, fragments...) {
		require.Nil(b, r.err)
	}
	b.ReportAllocs()
	started := cpuTime(b)
	var rows, samples int
	id := uint64(1)
	for ; b.Loop(); id++ {
		rows, samples = 0, 0
		for _, r := range c.batch(id, fragments...) {
			rows += len(r.rows)
			samples += int(r.samples)
		}
	}
	used := cpuTime(b) - started
	b.ReportMetric(float64(used.Microseconds())/float64(id-1)/float64(len(fragments)), "cpu-us/fragment")
	b.ReportMetric(float64(rows), "rows/op")
	b.ReportMetric(float64(samples), "samples-read/op")
}

// cpuTime is what the process has used so far: wall time says little on a
// machine that does other things as well.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
