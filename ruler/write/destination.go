package write

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

// maxAnswerBytes is how much of an error answer is read.
const maxAnswerBytes = 1024

// Destination is a backend that samples can be written to.
type Destination struct {
	Name string
	// Partition are the labels, empty values included, that a series must
	// carry to belong here.
	Partition labels.Labels
	// Virtual backends do not store their partition labels: they are taken
	// off before the write.
	Virtual bool
	// URLs are the remote-write endpoints of the backend's replicas, at least
	// one. Each gets every sample; one that takes it suffices.
	URLs []string
	// Timeout bounds one request.
	Timeout          time.Duration
	HTTPClientConfig config.HTTPClientConfig
}

type destination struct {
	Destination
	client *http.Client
	v1     atomic.Bool // the backend refused 2.0
	gate   gate
}

func (w *Writer) post(ctx context.Context, dst *destination, series []outgoing) (answer, error) {
	protocol := protocolV2
	if dst.v1.Load() {
		protocol = protocolV1
	}
	samples := make([]remotewrite.Sample, len(series))
	for i, s := range series {
		samples[i] = remotewrite.Sample{Labels: s.Metric, T: s.T, F: s.F, FH: s.H}
	}
	body, err := remotewrite.Encode(samples, protocol.message)
	if err != nil {
		return answer{}, err
	}
	if dst.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dst.Timeout)
		defer cancel()
	}
	start := time.Now()
	trial, reason, err := dst.gate.enter(start)
	if err != nil {
		w.metrics.held.WithLabelValues(dst.Name, reason).Inc()
		return answer{}, err
	}
	a, err := w.best(dst, dst.postAll(ctx, protocol, body))
	end := time.Now()
	w.metrics.duration.WithLabelValues(dst.Name).Observe(end.Sub(start).Seconds())
	dst.gate.leave(trial, failure(a, err), end.Add(a.retryAfter))
	return a, err
}

// failure is why a backend is not to be bothered by many requests: it does not
// answer, or is in trouble.
func failure(a answer, err error) error {
	if err != nil {
		return err
	}
	if a.status == http.StatusTooManyRequests || a.status/100 == 5 {
		return a.error()
	}
	return nil
}

// reply is what one replica said to a request.
type reply struct {
	answer answer
	err    error
}

// rank is less for a reply that says more about the samples.
func (r reply) rank() int {
	switch {
	case r.err != nil:
		return 3
	case r.answer.retryable() != nil:
		return 2
	case r.answer.status/100 != 2:
		return 1
	}
	return 0
}

func (d *destination) postAll(ctx context.Context, p protocol, body []byte) []reply {
	replies := make([]reply, len(d.URLs))
	var posts sync.WaitGroup
	for i, u := range d.URLs {
		posts.Go(func() { replies[i].answer, replies[i].err = d.post(ctx, u, p, body) })
	}
	posts.Wait()
	return replies
}

// best is the reply that counts. A replica that is away lacks the samples, as it
// lacks those that it would have scraped.
func (w *Writer) best(dst *destination, replies []reply) (answer, error) {
	best := slices.MinFunc(replies, func(a, b reply) int { return a.rank() - b.rank() })
	for i, r := range replies {
		if best.rank() == 0 && r.rank() > 1 {
			w.metrics.lacking.WithLabelValues(dst.Name).Inc()
			w.logger.Warn("a replica did not take samples", "backend", dst.Name, "replica", i, "err", errors.Join(r.err, r.answer.retryable()))
		}
	}
	return best.answer, best.err
}

func (d *destination) post(ctx context.Context, target string, p protocol, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", p.contentType)
	req.Header.Set("X-Prometheus-Remote-Write-Version", p.version)
	req.Header.Set("User-Agent", "Tocsin/"+version.Version)
	resp, err := d.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	a := answer{status: resp.StatusCode, text: string(bytes.TrimSpace(text)), stored: -1, retryAfter: retryAfter(resp.Header, time.Now())}
	if stats, err := remote.ParseWriteResponseStats(resp); err == nil && stats.Confirmed {
		a.stored = stats.Samples + stats.Histograms
	}
	return a, nil
}
