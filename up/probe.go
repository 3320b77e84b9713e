package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// nodeExporter is where one is looked for.
	nodeExporter = "127.0.0.1:9100"
	probeTimeout = 5 * time.Second
	// maxProbeAnswer bounds what is read of an answer.
	maxProbeAnswer = 4 << 10
	// emptySnappy is a remote-write request without series: the compressed
	// form of no bytes.
	emptySnappy = "\x00"
)

// prober asks servers of the user whether they can do what is needed.
type prober struct{ client *http.Client }

func newProber() prober { return prober{&http.Client{Timeout: probeTimeout}} }

// existing checks every server that the user named and reports all that
// can't be used.
func (p prober) existing(ctx context.Context, r request) error {
	var errs []error
	if r.single != nil {
		errs = append(errs, p.backend(ctx, r.single))
	}
	for _, c := range r.clusters {
		if u, ok := r.named[c]; ok {
			errs = append(errs, p.backend(ctx, u))
		}
	}
	for _, u := range r.alertmanagers {
		errs = append(errs, p.alertmanager(ctx, u))
	}
	return errors.Join(errs...)
}

// backend checks that a server answers queries and takes remote write.
func (p prober) backend(ctx context.Context, u *url.URL) error {
	query := u.JoinPath("api/v1/query")
	query.RawQuery = "query=1"
	if err := p.ask(ctx, http.MethodGet, query, nil); err != nil {
		return fmt.Errorf("backend %s does not answer queries: %w; it must be a running server with Prometheus' query API",
			u.Redacted(), err)
	}
	if err := p.ask(ctx, http.MethodPost, u.JoinPath("api/v1/write"), []byte(emptySnappy)); err != nil {
		return fmt.Errorf("backend %s does not take remote write: %w; start Prometheus with --web.enable-remote-write-receiver",
			u.Redacted(), err)
	}
	return nil
}

func (p prober) alertmanager(ctx context.Context, u *url.URL) error {
	if err := p.ask(ctx, http.MethodGet, u.JoinPath("api/v2/status"), nil); err != nil {
		return fmt.Errorf("alertmanager %s does not answer: %w; it must be running and speak API v2", u.Redacted(), err)
	}
	return nil
}

// nodeExporter tells whether one runs on this machine.
func (p prober) nodeExporter(ctx context.Context) bool {
	return p.ask(ctx, http.MethodGet, &url.URL{Scheme: "http", Host: nodeExporter, Path: "/"}, nil) == nil
}

// ask returns nil if the answer's status is 2xx. Errors don't contain the
// URL, which may hold a password.
func (p prober) ask(ctx context.Context, method string, u *url.URL, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("not a valid URL")
	}
	if body != nil {
		req.Header.Set("Content-Encoding", "snappy")
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		return err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxProbeAnswer))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	return nil
}
