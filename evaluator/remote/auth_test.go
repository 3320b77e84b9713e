package remote

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	thanosv1 "github.com/tocsin-rules/tocsin/proto/thanos/v1"
	"github.com/tocsin-rules/tocsin/proto/transport"
)

// guardedAPI is Prometheus' API behind a check of each request.
func guardedAPI(t *testing.T, allowed func(*http.Request) bool) http.Handler {
	t.Helper()
	api := promserver.Handler(testData(t), promserver.Engine(), labels.EmptyLabels())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allowed(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// access tries everything that is asked over HTTP.
func access(t *testing.T, base string, cfg config.HTTPClientConfig) (errs []error) {
	t.Helper()
	require.NoError(t, cfg.Validate())
	u, err := url.Parse(base)
	require.NoError(t, err)
	httpCfg := HTTPConfig{Name: "b", URL: u, Client: cfg, MaxConcurrent: 2, MaxResponseBytes: 1 << 20}
	h, err := NewHTTP(httpCfg)
	require.NoError(t, err)
	read, err := NewChunkedRead(httpCfg, time.Minute)
	require.NoError(t, err)
	r := execute(h, at("x", 1000))
	list, readErr := read.Series(t.Context(), storage.SelectHints{Start: 0, End: 5000}, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "x")})
	names, namesErr := h.LabelNames(t.Context(), Span{End: 5000})
	if r.Err == nil {
		require.Len(t, r.Value, 2)
		require.Len(t, list, 2)
		require.Contains(t, names, "a")
	}
	return []error{r.Err, readErr, namesErr}
}

func requireAll(t *testing.T, errs []error, check func(error)) {
	t.Helper()
	for _, err := range errs {
		check(err)
	}
}

func TestHTTPAuthentication(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("from-file\n"), 0o600))
	header := func(name, want string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Header.Get(name) == want }
	}
	tokens := tokenServer(t)
	for name, tc := range map[string]struct {
		cfg     config.HTTPClientConfig
		allowed func(*http.Request) bool
	}{
		"basic":         {config.HTTPClientConfig{BasicAuth: &config.BasicAuth{Username: "u", Password: "hunter2"}}, header("Authorization", "Basic dTpodW50ZXIy")},
		"bearer":        {config.HTTPClientConfig{Authorization: &config.Authorization{Credentials: "t"}}, header("Authorization", "Bearer t")},
		"bearer, file":  {config.HTTPClientConfig{Authorization: &config.Authorization{CredentialsFile: token}}, header("Authorization", "Bearer from-file")},
		"OAuth2":        {config.HTTPClientConfig{OAuth2: &config.OAuth2{ClientID: "id", ClientSecret: "hunter2", TokenURL: tokens}}, header("Authorization", "Bearer fetched")},
		"tenant header": {config.HTTPClientConfig{HTTPHeaders: &config.Headers{Headers: map[string]config.Header{"X-Scope-OrgID": {Values: []string{"a"}}}}}, header("X-Scope-OrgID", "a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(guardedAPI(t, tc.allowed))
			t.Cleanup(s.Close)
			requireAll(t, access(t, s.URL, tc.cfg), func(err error) { require.NoError(t, err) })
			requireAll(t, access(t, s.URL, config.DefaultHTTPClientConfig), func(err error) {
				require.ErrorContains(t, err, "401")
				require.Equal(t, KindBackend, kindOf(t, err))
			})
		})
	}
}

// tokenServer gives tokens to the client "id" with the secret "hunter2".
func tokenServer(t *testing.T) (tokenURL string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if user, password, _ := r.BasicAuth(); user != "id" || password != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"fetched","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// mutualTLS is a server's side of TLS that demands certificates of a CA.
func mutualTLS(t *testing.T, files transport.Config) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	require.NoError(t, err)
	pem, err := os.ReadFile(files.CAFile)
	require.NoError(t, err)
	ca := x509.NewCertPool()
	require.True(t, ca.AppendCertsFromPEM(pem))
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert}
}

func TestHTTPOverMutualTLS(t *testing.T) {
	t.Parallel()
	files := certificates(t)
	s := httptest.NewUnstartedServer(guardedAPI(t, func(*http.Request) bool { return true }))
	s.TLS = mutualTLS(t, files)
	s.StartTLS()
	t.Cleanup(s.Close)
	known := config.TLSConfig{CAFile: files.CAFile, CertFile: files.CertFile, KeyFile: files.KeyFile}
	requireAll(t, access(t, s.URL, config.HTTPClientConfig{TLSConfig: known}), func(err error) { require.NoError(t, err) })
	for name, cfg := range map[string]config.TLSConfig{"no certificate": {CAFile: files.CAFile}, "an unknown CA": {}} {
		requireAll(t, access(t, s.URL, config.HTTPClientConfig{TLSConfig: cfg}), func(err error) {
			require.Error(t, err, name)
			require.Equal(t, KindBackend, kindOf(t, err))
		})
	}
}

func TestHTTPThroughAProxy(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(guardedAPI(t, func(*http.Request) bool { return true }))
	t.Cleanup(s.Close)
	var proxied http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The name is known to the proxy alone.
		if r.URL.Host != "prometheus.invalid" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, s.URL+r.URL.RequestURI(), r.Body)
		if err != nil {
			panic(err)
		}
		req.Header = r.Header
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
	p := httptest.NewServer(proxied)
	t.Cleanup(p.Close)
	u, err := url.Parse(p.URL)
	require.NoError(t, err)
	cfg := config.HTTPClientConfig{ProxyConfig: config.ProxyConfig{ProxyURL: config.URL{URL: u}}}
	requireAll(t, access(t, "http://prometheus.invalid", cfg), func(err error) { require.NoError(t, err) })
}

func TestThanosOverMutualTLS(t *testing.T) {
	t.Parallel()
	files := certificates(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(mutualTLS(t, files))))
	q := querier{messages: one(&thanosv1.TimeSeries{Samples: sampleAt(5000)})}
	thanosv1.RegisterQueryServer(s, q)
	thanosv1.RegisterStoreServer(s, q)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	for name, tc := range map[string]struct {
		tls *config.TLSConfig
		ok  bool
	}{
		"a certificate":  {&config.TLSConfig{CAFile: files.CAFile, CertFile: files.CertFile, KeyFile: files.KeyFile}, true},
		"no certificate": {&config.TLSConfig{CAFile: files.CAFile}, false},
		"an unknown CA":  {&config.TLSConfig{}, false},
		"plaintext":      {nil, false},
	} {
		c := newThanos(t, ThanosConfig{Address: l.Addr().String(), TLS: tc.tls}, serve(t, http.StatusTeapot, ""))
		r := execute(c, at("x", 5000))
		require.Equal(t, tc.ok, r.Err == nil, "%s: %v", name, r.Err)
	}
}

// TestAConnectionThatWasClosedIsNoFault: servers close connections that are kept
// for long, and the client learns of it when it uses them.
func TestAConnectionThatWasClosedIsNoFault(t *testing.T) {
	t.Parallel()
	conns := make(chan net.Conn, 10)
	s := httptest.NewUnstartedServer(guardedAPI(t, func(*http.Request) bool { return true }))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns <- c
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	h, err := NewHTTP(HTTPConfig{Name: "b", URL: u, Client: config.DefaultHTTPClientConfig, MaxConcurrent: 2, MaxResponseBytes: 1 << 20})
	require.NoError(t, err)
	for range 5 {
		require.NoError(t, execute(h, at("x", 1000)).Err)
		require.NoError(t, (<-conns).Close())
	}
}

func TestClosingEndsConnections(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 1)
	s := httptest.NewUnstartedServer(guardedAPI(t, func(*http.Request) bool { return true }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	h, err := NewHTTP(HTTPConfig{Name: "b", URL: u, Client: config.DefaultHTTPClientConfig, MaxConcurrent: 1, MaxResponseBytes: 1 << 20})
	require.NoError(t, err)
	require.NoError(t, execute(h, at("x", 1000)).Err)
	require.NoError(t, h.Close())
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Fatal("the connection is still open")
	}
}
