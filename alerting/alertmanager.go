package alerting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/version"
)

const (
	// maxBatch is the number of alerts in one request.
	maxBatch = 256
	// maxBatchBytes bounds the labels and annotations in one request.
	maxBatchBytes = 4 << 20
	// A failed request is repeated after minBackoff, and after twice the time
	// before from then on, up to maxBackoff.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 10 * time.Second
	// maxAnswerBytes bounds what is read of an answer; only errors are shown.
	maxAnswerBytes = 4 << 10
	maxShownBytes  = 256
)

// errRefused is an answer that will not change by asking again.
var errRefused = errors.New("alerts refused")

// alertmanager is one Alertmanager, its queue, and how to reach it.
type alertmanager struct {
	url *url.URL
	// label is the URL as metrics and logs show it.
	label   string
	queue   *queue
	route   *atomic.Pointer[route]
	do      func(*http.Client, *http.Request) (*http.Response, error)
	metrics *metrics
	logger  *slog.Logger
	// cancel ends run, with the request it is at.
	cancel context.CancelFunc
}

func (a *alertmanager) put(items []*item) {
	if dropped := a.queue.put(items); dropped > 0 {
		a.drop(dropped, "notification queue is full, the oldest are dropped")
	}
}

func (a *alertmanager) drop(n int, why string) {
	a.metrics.dropped.WithLabelValues(a.label).Add(float64(n))
	a.logger.Warn("notifications dropped", "alertmanager", a.label, "reason", why, "dropped", n, "capacity", a.queue.capacity)
}

// run delivers until ctx ends. From the moment that stopping is closed it only
// empties the queue.
func (a *alertmanager) run(ctx context.Context, stopping <-chan struct{}) {
	var backoff time.Duration
	for ctx.Err() == nil {
		batch := a.next()
		switch {
		case len(batch) == 0:
			if !a.wait(ctx, stopping) {
				return
			}
		case a.try(ctx, batch):
			a.queue.done(batch)
			backoff = 0
		default:
			backoff = min(maxBackoff, max(minBackoff, 2*backoff))
			pause(ctx, stopping, backoff)
		}
	}
}

func (a *alertmanager) next() []*item {
	batch, expired := a.queue.head(maxBatch, maxBatchBytes, time.Now())
	if expired > 0 {
		a.drop(expired, "notifications could not be delivered while they were true")
	}
	return batch
}

// try delivers a batch once; false says that it is worth another try.
func (a *alertmanager) try(ctx context.Context, batch []*item) bool {
	err := a.deliver(ctx, batch)
	if err == nil {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	a.logger.Error("sending alerts failed", "alertmanager", a.label, "count", len(batch), "err", err)
	if errors.Is(err, errRefused) {
		a.drop(len(batch), "alertmanager refused alerts")
		return true
	}
	return false
}

// wait returns when there may be something to deliver, or false when there is
// nothing more to be done.
func (a *alertmanager) wait(ctx context.Context, stopping <-chan struct{}) bool {
	select {
	case <-a.queue.more:
		return true
	default:
	}
	select {
	case <-a.queue.more:
		return true
	case <-stopping:
		return false
	case <-ctx.Done():
		return false
	}
}

// pause waits for d. A stop cuts it short, so that what has been waiting for
// long gets its chance before the end.
func pause(ctx context.Context, stopping <-chan struct{}, d time.Duration) {
	select {
	case <-stopping:
		stopping = nil
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stopping:
	case <-ctx.Done():
	}
}

// deliver relabels, encodes and posts a batch.
func (a *alertmanager) deliver(ctx context.Context, batch []*item) error {
	r := a.route.Load()
	body, n, err := r.payload(batch)
	if err != nil {
		return fmt.Errorf("%w: encode: %w", errRefused, err)
	}
	if n == 0 {
		return nil
	}
	begin := time.Now()
	err = a.post(ctx, r, body)
	if ctx.Err() == nil {
		a.observe(n, time.Since(begin), err)
	}
	return err
}

// observe counts one request. One that was cut short because the Alertmanager
// is gone is not counted, for its series are gone too.
func (a *alertmanager) observe(n int, took time.Duration, err error) {
	a.metrics.latency.WithLabelValues(a.label).Observe(took.Seconds())
	a.metrics.latencyHistogram.WithLabelValues(a.label).Observe(took.Seconds())
	a.metrics.sent.WithLabelValues(a.label).Add(float64(n))
	if err != nil {
		a.metrics.errors.WithLabelValues(a.label).Add(float64(n))
	}
}

func (a *alertmanager) post(ctx context.Context, r *route, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", version.ComponentUserAgent("Tocsin"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.do(r.client, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if resp.StatusCode/100 == 2 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("answer %s: %w", resp.Status, err)
	}
	return statusError(resp, answer)
}

// statusError is what an answer other than success means. Alertmanager takes
// the good alerts of a request that it answers with 400; everything that may be
// a matter of configuration or of time is worth another try.
func statusError(resp *http.Response, answer []byte) error {
	text := strings.ToValidUTF8(string(answer[:min(len(answer), maxShownBytes)]), "")
	err := fmt.Errorf("answer %s: %s", resp.Status, strings.TrimSpace(text))
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}
