package forward

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote"
)

// longestRetryAfter bounds what a destination may ask for.
const longestRetryAfter = 5 * time.Minute

// outcome is what follows from an answer.
type outcome int

const (
	// delivered: the destination has what it is going to take.
	delivered outcome = iota
	// away: try again later.
	away
	// refused: the samples will not be taken.
	refused
	// unknownVersion: the destination doesn't know remote write 2.0.
	unknownVersion
)

// answer is what came of a request.
type answer struct {
	outcome outcome
	// written is what a destination of version 2.0 says that it took.
	written remote.WriteResponseStats
	// retryAfter is zero if the destination asks for nothing.
	retryAfter time.Duration
	err        error
}

// client sends requests to one destination. It is safe for concurrent use.
type client struct {
	v1, v2 remote.WriteClient
}

// Validate tells whether a client can be built, which reads the certificates
// that the configuration names.
func Validate(w *config.RemoteWriteConfig) error {
	_, err := newClient(w)
	return err
}

// newClient builds the client of Prometheus, with its authentication, for
// either version.
func newClient(w *config.RemoteWriteConfig) (*client, error) {
	c := &client{}
	var err error
	if c.v1, err = newVersionClient(w, remoteapi.WriteV1MessageType); err == nil {
		c.v2, err = newVersionClient(w, remoteapi.WriteV2MessageType)
	}
	if err != nil {
		return nil, fmt.Errorf("remote write to %q: %w", w.URL.Redacted(), err)
	}
	return c, nil
}

func newVersionClient(w *config.RemoteWriteConfig, version remoteapi.WriteMessageType) (remote.WriteClient, error) {
	c, err := remote.NewWriteClient(w.Name, &remote.ClientConfig{
		URL:              w.URL,
		WriteProtoMsg:    version,
		Timeout:          w.RemoteTimeout,
		HTTPClientConfig: w.HTTPClientConfig,
		SigV4Config:      w.SigV4Config,
		AzureADConfig:    w.AzureADConfig,
		GoogleIAMConfig:  w.GoogleIAMConfig,
		Headers:          w.Headers,
		RoundRobinDNS:    w.RoundRobinDNS,
	})
	if err != nil {
		return nil, err
	}
	if c, ok := c.(*remote.Client); ok {
		c.Client.Transport = &observed{next: c.Client.Transport}
	}
	return c, nil
}

// seen is what Prometheus' client gives away in its error's text alone.
type seen struct {
	status     int
	retryAfter string
}

// seenKey is where the context of a request has a *seen.
type seenKey struct{}

type observed struct{ next http.RoundTripper }

// RoundTrip is part of http.RoundTripper.
func (o *observed) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(req)
	if s, ok := req.Context().Value(seenKey{}).(*seen); ok && err == nil {
		s.status, s.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	}
	return resp, err
}

// send sends one request of the version and judges the answer.
func (c *client) send(ctx context.Context, body []byte, version2 bool, attempt int) answer {
	by := c.v1
	if version2 {
		by = c.v2
	}
	var last seen
	stats, err := by.Store(context.WithValue(ctx, seenKey{}, &last), body, attempt)
	a := answer{written: stats, err: err, retryAfter: retryAfter(last.retryAfter, time.Now())}
	a.outcome = judge(last.status, version2, stats.Confirmed)
	if a.outcome == delivered && err != nil {
		// The connection broke within the answer.
		a.outcome = away
	}
	return a
}

// judge tells what follows from a status; zero is no answer. A destination of
// 2.0 says how much it wrote. One that doesn't is one of 1.0, which finds
// nothing in such a request that it knows, and may say so or not.
func judge(status int, version2, confirmed bool) outcome {
	switch {
	case version2 && status == http.StatusUnsupportedMediaType:
		return unknownVersion
	case status/100 == 2, blamesSamples(status):
		if version2 && !confirmed {
			return unknownVersion
		}
		if status/100 == 2 {
			return delivered
		}
		return refused
	default:
		return away
	}
}

// blamesSamples tells statuses for what is in a request from those for its
// credentials or address, which may be mended while the samples wait.
func blamesSamples(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	var d time.Duration
	if seconds, err := strconv.Atoi(header); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), longestRetryAfter)
}
