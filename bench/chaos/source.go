package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"

	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

// ahead is how far the raw series reach into the future, so that a backend
// that was away has them in time again. It is more than any fault lasts.
const ahead = 6 * time.Minute

// prelude is how far they reach while the fleets start: only afterwards do
// units begin to be at fault, so that no alert is older than a fleet.
const prelude = time.Minute

// source keeps raw series of backends filled ahead of time.
type source struct {
	client *http.Client
	// until is how far each backend is filled.
	until map[target]time.Time
	// peace ends here.
	peace time.Time
}

// target is one backend of one cluster.
type target struct{ cluster, url string }

func newSource(start time.Time, targets []target) *source {
	s := &source{client: &http.Client{Timeout: 10 * time.Second}, until: map[target]time.Time{}, peace: time.Unix(1<<40, 0)}
	for _, t := range targets {
		s.until[t] = start.Truncate(signal.Step)
	}
	return s
}

// fill writes what is missing up to a time to all backends. The error names
// those that failed.
func (s *source) fill(ctx context.Context, end time.Time) error {
	var errs []error
	for t := range s.until {
		for s.until[t].Before(end) {
			if err := s.write(ctx, t); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}

// filled is how far all backends are filled.
func (s *source) filled() time.Time {
	var last time.Time
	for _, t := range s.until {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// write writes the next minute.
func (s *source) write(ctx context.Context, t target) error {
	var samples []remotewrite.Sample
	from := s.until[t]
	to := from.Add(prelude / 2)
	for at := from; at.Before(to); at = at.Add(signal.Step) {
		samples = append(samples, signal.Samples(t.cluster, at, at.Before(s.peace))...)
	}
	body, err := remotewrite.Encode(samples, remoteapi.WriteV2MessageType)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("write to %s: %s", t.url, resp.Status)
	}
	s.until[t] = to
	return nil
}

// run fills until ctx ends. Backends that are away are filled when they are
// back.
func (s *source) run(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = s.fill(ctx, time.Now().Add(ahead)) // A backend may be away on purpose.
		case <-ctx.Done():
			return
		}
	}
}
