package forward

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

// slow is a destination of which every request takes a while and some fail. It
// checks that of no series two requests are under way.
type slow struct {
	*httptest.Server

	t       *testing.T
	latency time.Duration
	// failing is the share of requests that it does not take.
	failing float64

	mu              sync.Mutex
	random          *rand.Rand
	requests        int
	underWay, most  int
	busy            map[string]bool
	times           map[string][]int64
	largest, failed int
}

func newSlow(t *testing.T, latency time.Duration, failing float64) *slow {
	t.Helper()
	s := &slow{t: t, latency: latency, failing: failing, random: rand.New(rand.NewPCG(1, 0)), busy: map[string]bool{}, times: map[string][]int64{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	plain, err := compression.Decode(compression.Snappy, body, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	var req writev2.Request
	if err := req.Unmarshal(plain); err != nil {
		s.t.Error(err)
		return
	}
	fails := s.begin(&req)
	select {
	case <-time.After(s.latency):
	case <-r.Context().Done():
	}
	s.end(&req, !fails)
	if fails {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	remote.WriteResponseStats{Samples: len(req.Timeseries)}.SetHeaders(w)
	w.WriteHeader(http.StatusNoContent)
}

// seriesName is the value of the last label.
func seriesName(req *writev2.Request, i int) string {
	refs := req.Timeseries[i].LabelsRefs
	return req.Symbols[refs[len(refs)-1]]
}

// begin tells whether the request is going to fail.
func (s *slow) begin(req *writev2.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.underWay++
	s.most = max(s.most, s.underWay)
	s.largest = max(s.largest, len(req.Timeseries))
	for i := range req.Timeseries {
		name := seriesName(req, i)
		if s.busy[name] && (i == 0 || seriesName(req, i-1) != name) {
			s.t.Errorf("two requests with series %s are under way", name)
		}
		s.busy[name] = true
	}
	return s.random.Float64() < s.failing
}

func (s *slow) end(req *writev2.Request, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay--
	if !taken {
		s.failed++
	}
	for i := range req.Timeseries {
		name := seriesName(req, i)
		s.busy[name] = false
		if taken {
			s.times[name] = append(s.times[name], req.Timeseries[i].Samples[0].Timestamp)
		}
	}
}

// idle waits until nothing is under way, also what a killed sender began.
func (s *slow) idle() {
	eventually(s.t, "no request is under way", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.underWay == 0
	})
}

// heal ends the failures.
func (s *slow) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = 0
}

func (s *slow) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// kill ends all as kill -9 does: what is not noted by then never is.
func (s *setup) kill() {
	for key := range s.set.destinations {
		s.set.stop(key)
	}
	require.NoError(s.t, s.log.Close())
}

// many commits scrapes of so many series.
func (s *setup) many(series, from, n int) {
	s.t.Helper()
	for at := from; at < from+n; at++ {
		s.commit(func(a storage.Appender) {
			for i := range series {
				_, err := a.Append(0, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), int64(at), float64(at))
				require.NoError(s.t, err)
			}
		})
	}
}

// TestSlowDestinationIsKeptUpWith sends what one request at a time would take
// six seconds for, to a destination that fails now and then, over kills.
func TestSlowDestinationIsKeptUpWith(t *testing.T) {
	t.Parallel()
	const series, scrapes, shards, most = 300, 80, 8, 100
	r := newSlow(t, 25*time.Millisecond, 0.03)
	write := fmt.Sprintf("url: %s\nqueue_config: {batch_send_deadline: 10ms, min_backoff: 5ms, max_backoff: 20ms, max_samples_per_send: %d, max_shards: %d}", r.URL, most, shards)
	s := newSetup(t)
	s.apply(write)
	s.many(series, 1, scrapes/2)
	for i, requests := range []int{20, 60} {
		eventually(t, "it is sent", func() bool { return r.answered() > requests })
		s.kill()
		r.idle()
		s.open()
		s.apply(write)
		s.many(series, 1+scrapes/2+i*scrapes/4, scrapes/4)
	}
	s.delivered()
	requireAllInOrder(t, r.times, series, scrapes)
	require.LessOrEqual(t, r.most, shards)
	require.Greater(t, r.most, shards/2)
	require.LessOrEqual(t, r.largest, most)
	require.Positive(t, r.failed)
	r.heal() // A failure would not show that one request was enough.
	s.many(1, 1+scrapes, 1)
	eventually(t, "what is not needed is given up", func() bool { return s.metric("prometheus_remote_storage_shards") == 1 })
}

// requireAllInOrder checks that of each series all times have arrived, that none came
// before one that precedes it had come.
func requireAllInOrder(t *testing.T, times map[string][]int64, series, scrapes int) {
	t.Helper()
	require.Equal(t, series, len(times)) //nolint:testifylint // They are many to print.
	for name, at := range times {
		next := int64(1)
		for _, at := range at {
			require.LessOrEqual(t, at, next, "series %s: one was left out", name)
			next = max(next, at+1)
		}
		require.EqualValues(t, scrapes+1, next, "series %s", name)
	}
}
