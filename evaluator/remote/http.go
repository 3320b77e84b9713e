package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/config"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// defaultLookback is what every implementation of the Prometheus API assumes;
// some refuse the parameter, so it is sent only where it says something else.
const defaultLookback = 5 * time.Minute

// HTTPConfig describes a backend that speaks the Prometheus HTTP API.
type HTTPConfig struct {
	// Name appears in connection metrics of the HTTP client.
	Name string
	// URL is the base of the API, without /api/v1. Its query parameters are
	// sent with every request.
	URL    *url.URL
	Client config.HTTPClientConfig
	// MaxConcurrent is the number of requests in progress at a time, over all
	// batches.
	MaxConcurrent int
	// MaxResponseBytes bounds the body of one answer.
	MaxResponseBytes int64
}

// HTTP asks a backend over the Prometheus HTTP API, one request a fragment.
type HTTP struct {
	cfg      HTTPConfig
	client   *http.Client
	requests pool
}

var _ Client = (*HTTP)(nil)

// NewHTTP returns a client; secrets in files are read when they are needed.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	client, err := config.NewClientFromConfig(cfg.Client, cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("make HTTP client of backend %q: %w", cfg.Name, err)
	}
	client.Transport = repeatable{client.Transport}
	return &HTTP{cfg: cfg, client: client, requests: make(pool, cfg.MaxConcurrent)}, nil
}

// repeatable lets the client send a request once more if a connection that was
// kept turns out to be closed: queries only read, though they are POSTed.
type repeatable struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper. A key without a value is not sent.
func (r repeatable) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header["Idempotency-Key"] = []string{}
	return r.RoundTripper.RoundTrip(req)
}

// CloseIdleConnections is what closing the client relies on.
func (r repeatable) CloseIdleConnections() {
	if c, ok := r.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Execute implements Client.
func (h *HTTP) Execute(ctx context.Context, fragments []plan.Fragment, opts Options) []Result {
	return h.requests.each(ctx, len(fragments), func(i int) Result {
		f := fragments[i]
		return within(ctx, f.Limits, func(ctx context.Context) Result { return h.query(ctx, f, opts) })
	})
}

func (h *HTTP) query(ctx context.Context, f plan.Fragment, opts Options) Result {
	path, form := request(f, opts)
	body, err := h.call(ctx, http.MethodPost, path, form)
	if err != nil {
		return Result{Err: err}
	}
	r := decodeAnswer(body, f.Window)
	r.Bytes = len(body)
	return r
}

// request is the API call that runs a fragment. A server that cuts the answer
// off at limit returns one series too many, so that this is not mistaken for
// the whole.
func request(f plan.Fragment, opts Options) (path string, form url.Values) {
	form = url.Values{"query": {f.Expr}}
	if f.Limits.Series != 0 {
		form.Set("limit", strconv.FormatInt(f.Limits.Series+1, 10))
	}
	if f.Limits.Time != 0 {
		form.Set("timeout", seconds(f.Limits.Time.Milliseconds()))
	}
	if opts.Lookback != 0 && opts.Lookback != defaultLookback {
		form.Set("lookback_delta", seconds(opts.Lookback.Milliseconds()))
	}
	if f.Window.Step == 0 {
		form.Set("time", seconds(f.Window.Start))
		return "/api/v1/query", form
	}
	form.Set("start", seconds(f.Window.Start))
	form.Set("end", seconds(f.Window.End))
	form.Set("step", seconds(f.Window.Step))
	return "/api/v1/query_range", form
}

// seconds writes milliseconds as decimal seconds, exactly.
func seconds(ms int64) string {
	return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64)
}

// Probe implements Client: the backend has to evaluate a constant. It does not
// wait for requests in progress.
func (h *HTTP) Probe(ctx context.Context) error {
	return h.query(ctx, plan.Fragment{Expr: "1"}, Options{}).Err
}

// Close implements Client.
func (h *HTTP) Close() error {
	h.client.CloseIdleConnections()
	return nil
}

// call returns the body of a successful answer. Parameters of a POST are in
// the body, since expressions may be longer than servers accept in a URL.
func (h *HTTP) call(ctx context.Context, method, path string, form url.Values) ([]byte, error) {
	target := h.cfg.URL.JoinPath(path)
	body := ""
	if method == http.MethodPost {
		body = form.Encode()
	} else {
		target.RawQuery = strings.Trim(target.RawQuery+"&"+form.Encode(), "&")
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), strings.NewReader(body))
	if err != nil {
		return nil, &Error{Kind: KindInternal, Err: err}
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	// No compression bomb gets past the bound on the body.
	req.Header.Set("Accept-Encoding", "identity")
	return h.do(ctx, req)
}

func (h *HTTP) do(ctx context.Context, req *http.Request) ([]byte, error) {
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, transportError(ctx, err)
	}
	defer resp.Body.Close()
	body, err := h.read(ctx, resp)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp, body)
	}
	return body, nil
}

func (h *HTTP) read(ctx context.Context, resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, h.cfg.MaxResponseBytes+1))
	if err != nil {
		return nil, transportError(ctx, fmt.Errorf("read the answer: %w", err))
	}
	if int64(len(body)) > h.cfg.MaxResponseBytes {
		return nil, errorf(KindLimit, "the answer is larger than max_response_bytes (%d): aggregate more or raise the limit", h.cfg.MaxResponseBytes)
	}
	return body, nil
}

// transportError takes the URL, which may hold a secret, out of an error.
func transportError(ctx context.Context, err error) *Error {
	if ended := contextError(ctx); ended != nil {
		return ended
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return &Error{Kind: KindBackend, Err: err}
}
