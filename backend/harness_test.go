package backend_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend"
	"github.com/tocsin-rules/tocsin/backend/engine"
)

// fixture is a store with its API on a loopback port.
type fixture struct {
	t      *testing.T
	store  *backend.Store
	reg    *prometheus.Registry
	url    string
	cancel context.CancelFunc
	done   chan error
}

func newFixture(t *testing.T, cfg backend.StoreConfig, api backend.APIConfig) *fixture {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = t.TempDir()
	}
	logger := promslog.NewNopLogger()
	reg := prometheus.NewRegistry()
	store, err := backend.NewStore(cfg, reg, logger)
	require.NoError(t, err)
	e := engine.New(engine.Config{}, reg, logger)
	srv := httptest.NewServer(backend.NewAPI(api, store, e, reg, logger))
	t.Cleanup(srv.Close)
	return &fixture{t: t, store: store, reg: reg, url: srv.URL}
}

// start opens the store and waits until it is ready.
func (f *fixture) start() *fixture {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan error, 1)
	go func() { f.done <- f.store.Run(ctx) }()
	require.Eventually(f.t, func() bool { return f.store.Ready() == nil }, 10*time.Second, time.Millisecond)
	f.t.Cleanup(f.stop)
	return f
}

// stop closes the store; it may be called again.
func (f *fixture) stop() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	f.cancel = nil
	require.NoError(f.t, <-f.done)
}

// sample is one sample to be written.
type sample struct {
	series labels.Labels
	t      int64
	f      float64
	h      *histogram.FloatHistogram
}

func at(series string, t int64, f float64) sample {
	return sample{series: mustLabels(series), t: t, f: f}
}

func (s sample) v1() prompb.TimeSeries {
	ts := prompb.TimeSeries{Labels: prompb.FromLabels(s.series, nil)}
	if s.h != nil {
		ts.Histograms = []prompb.Histogram{prompb.FromFloatHistogram(s.t, s.h)}
	} else {
		ts.Samples = []prompb.Sample{{Timestamp: s.t, Value: s.f}}
	}
	return ts
}

func (s sample) v2(symbols *writev2.SymbolsTable) writev2.TimeSeries {
	ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.series, nil)}
	if s.h != nil {
		ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(s.t, s.h)}
	} else {
		ts.Samples = []writev2.Sample{{Timestamp: s.t, Value: s.f}}
	}
	return ts
}

// write sends samples with Prometheus' own client.
func (f *fixture) write(msg remoteapi.WriteMessageType, samples ...sample) (remote.WriteResponseStats, error) {
	f.t.Helper()
	if msg == remoteapi.WriteV1MessageType {
		req := &prompb.WriteRequest{}
		for _, s := range samples {
			req.Timeseries = append(req.Timeseries, s.v1())
		}
		return f.send(msg, req)
	}
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for _, s := range samples {
		req.Timeseries = append(req.Timeseries, s.v2(&symbols))
	}
	req.Symbols = symbols.Symbols()
	return f.send(msg, req)
}

func (f *fixture) send(msg remoteapi.WriteMessageType, req proto.Message) (remote.WriteResponseStats, error) {
	f.t.Helper()
	body, err := proto.Marshal(req)
	require.NoError(f.t, err)
	client, err := remote.NewWriteClient("test", &remote.ClientConfig{
		URL:              f.configURL("/api/v1/write"),
		Timeout:          model.Duration(10 * time.Second),
		HTTPClientConfig: commonconfig.DefaultHTTPClientConfig,
		WriteProtoMsg:    msg,
	})
	require.NoError(f.t, err)
	return client.Store(f.t.Context(), snappy.Encode(nil, body), 0)
}

func (f *fixture) configURL(path string) *commonconfig.URL {
	u, err := url.Parse(f.url + path)
	require.NoError(f.t, err)
	return &commonconfig.URL{URL: u}
}

// post sends a raw body to a path and returns the status.
func (f *fixture) post(path string, header http.Header, body []byte) (int, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+path, bytes.NewReader(body))
	require.NoError(f.t, err)
	req.Header = header
	return f.do(req)
}

// get returns status and body of a GET request.
func (f *fixture) get(path string) (int, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.url+path, nil)
	require.NoError(f.t, err)
	return f.do(req)
}

func (f *fixture) do(req *http.Request) (int, string) {
	resp, err := http.DefaultClient.Do(req)
	require.NoError(f.t, err)
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	require.NoError(f.t, err)
	return resp.StatusCode, body.String()
}

// series returns everything that is stored, as text.
func (f *fixture) series() []string {
	f.t.Helper()
	q, err := f.store.Querier(0, 1<<62)
	require.NoError(f.t, err)
	defer q.Close()
	set := q.Select(f.t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	return describe(f.t, set)
}
