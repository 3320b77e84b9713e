package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/compression"
)

// receiver takes remote writes of both versions. The first part of a path is
// the agent's name.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	from map[string]received
}

// received is what an agent has sent.
type received struct {
	first                    time.Time
	requests, bytes, samples int
}

func newReceiver() *receiver {
	r := &receiver{from: map[string]received{}}
	r.Server = httptest.NewServer(r)
	return r
}

func (r *receiver) get(agent string) received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from[agent]
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	samples, err := count(body, strings.Contains(req.Header.Get("Content-Type"), "v2"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.note(strings.Trim(req.URL.Path, "/"), len(body), samples)
	remote.WriteResponseStats{Samples: samples}.SetHeaders(w)
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) note(agent string, bytes, samples int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.from[agent]
	if got.first.IsZero() {
		got.first = time.Now()
	}
	got.requests++
	got.bytes += bytes
	got.samples += samples
	r.from[agent] = got
}

func count(body []byte, v2 bool) (samples int, err error) {
	plain, err := compression.Decode(compression.Snappy, body, nil)
	if err != nil {
		return 0, err
	}
	if v2 {
		var req writev2.Request
		err = req.Unmarshal(plain)
		for _, ts := range req.Timeseries {
			samples += len(ts.Samples)
		}
		return samples, err
	}
	var req prompb.WriteRequest
	err = req.Unmarshal(plain)
	for _, ts := range req.Timeseries {
		samples += len(ts.Samples)
	}
	return samples, err
}
