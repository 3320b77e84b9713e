package app_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// endless writes what next returns until the scraper has had enough, in
// blocks, so that it has that long before the scrape's timeout.
func endless(next func(i int) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", textType)
		out := bufio.NewWriterSize(w, 64<<10)
		for i := 0; r.Context().Err() == nil; i++ {
			if _, err := out.WriteString(next(i)); err != nil {
				return
			}
		}
	}
}

func body(contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, text)
	}
}

// bomb answers with 64 MiB of zeros that are 64 KiB compressed.
func bomb(t *testing.T) http.HandlerFunc {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(make([]byte, 64<<20))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", textType)
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes())
	}
}

// slowly sends a byte at a time.
func slowly(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", textType)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		if _, err := io.WriteString(w, "#"); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

func manySeries(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "m{i=\"%d\"} 1\n", i)
	}
	return b.String()
}

// Not parallel, because it looks at the memory of the process.
func TestHostileTargetsHarmOnlyThemselves(t *testing.T) {
	hostile := map[string]struct {
		serve http.HandlerFunc
		err   string // of the scrape
	}{
		"endless-body":    {endless(func(int) string { return strings.Repeat("# nothing\n", 400) }), "body size limit exceeded"},
		"endless-line":    {endless(func(int) string { return strings.Repeat("a", 4096) }), "body size limit exceeded"},
		"endless-series":  {endless(func(i int) string { return fmt.Sprintf("m{i=\"%d\"} 1\n", i) }), "body size limit exceeded"},
		"bomb":            {bomb(t), "body size limit exceeded"},
		"many-series":     {body(textType, manySeries(20_000)), "sample limit exceeded"},
		"slowloris":       {slowly, "context deadline exceeded"},
		"silent":          {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "context deadline exceeded"},
		"invalid-utf8":    {body(textType, "m{a=\"\xff\xfe\"} 1\n"), "invalid UTF-8 label value"},
		"gigantic-label":  {body(textType, "m{a=\""+strings.Repeat("x", 100<<10)+"\"} 1\n"), "label_value_length_limit exceeded"},
		"gigantic-name":   {body(textType, "m{"+strings.Repeat("x", 10<<10)+"=\"1\"} 1\n"), "label_name_length_limit exceeded"},
		"many-labels":     {body(textType, "m{"+labelList(2000)+"} 1\n"), "label_limit exceeded"},
		"a-web-page":      {body("text/html", "<html>no metrics</html>"), "unsupported Content-Type"},
		"broken-protobuf": {body("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), ""},
		"redirect-loop":   {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }, "stopped after 10 redirects"},
	}
	good, rc := newTarget(t), newReceiver(t)
	config := strings.ReplaceAll(header, "500ms", "1s") + remoteWrite(rc) + scrapes(job("good", good.addr()))
	for name, h := range hostile {
		srv := httptest.NewServer(h.serve)
		t.Cleanup(srv.Close)
		t.Cleanup(srv.CloseClientConnections) // before the server waits for its handlers
		config += job(name, strings.TrimPrefix(srv.URL, "http://"))
	}
	s := newSetup(t, config)
	s.terms.BodySizeLimit, s.terms.SampleLimit = 512<<10, 10_000
	in := s.start(t)
	errorOf := func(pool string) (health, err string) {
		_, text := in.get("/api/v1/targets/summary")
		var answer struct {
			Data struct {
				Pools []struct {
					Name   string
					Groups []struct {
						LastError string
						Targets   []struct{ Health string }
					}
				}
			}
		}
		require.NoError(t, json.Unmarshal([]byte(text), &answer))
		for _, p := range answer.Data.Pools {
			if p.Name == pool && len(p.Groups) == 1 {
				return p.Groups[0].Targets[0].Health, p.Groups[0].LastError
			}
		}
		return "", ""
	}
	for name, h := range hostile {
		waitFor(t, name+" is down: "+h.err, func() bool {
			health, err := errorOf(name)
			return health == "down" && strings.Contains(err, h.err)
		})
	}

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	scrapesOnce(t, good, 10)
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, after.HeapAlloc, before.HeapAlloc+32<<20, "the heap grows")
	_, up := rc.series(t, "up", "job", "good")
	for _, p := range up {
		require.Equal(t, 1.0, p.v, "the good target was always up")
	}
	rc.requireNothingLost(t, good, "job", "good")
}

func labelList(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("l%d=\"1\"", i))
	}
	return strings.Join(names, ",")
}

// thief writes down the headers of whoever comes.
type thief struct {
	*httptest.Server

	mu   sync.Mutex
	seen []string
}

func newThief(t *testing.T) *thief {
	th := &thief{}
	th.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		th.mu.Lock()
		defer th.mu.Unlock()
		th.seen = append(th.seen, fmt.Sprintf("%s %v", r.URL, r.Header))
		w.Header().Set("Content-Type", textType)
		fmt.Fprintln(w, "stolen 1")
	}))
	t.Cleanup(th.Close)
	return th
}

func (th *thief) visits() []string {
	th.mu.Lock()
	defer th.mu.Unlock()
	return append([]string(nil), th.seen...)
}

func TestCredentialsDoNotFollowRedirectsToOthers(t *testing.T) {
	t.Parallel()
	th, rc := newThief(t), newReceiver(t)
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token": "hunter2", "token_type": "Bearer"}`)
	}))
	t.Cleanup(tokens.Close)
	// As elsewhere counts another host: who listens on another port of the same
	// one can be the target itself.
	elsewhere := strings.Replace(th.URL, "127.0.0.1", "localhost", 1)
	redirect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusFound)
	}))
	t.Cleanup(redirect.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("hunter2"), 0o600))
	credentials := map[string]string{
		"basic":  "basic_auth: {username: u, password_file: " + secret + "}",
		"bearer": "authorization: {credentials_file: " + secret + "}",
		"oauth2": "oauth2: {client_id: c, client_secret_file: " + secret + ", token_url: '" + tokens.URL + "'}",
		"header": "http_headers: {X-Api-Key: {files: [" + secret + "]}}",
	}
	config := header + remoteWrite(rc) + "\nscrape_configs:"
	for name, c := range credentials {
		config += strings.TrimSuffix(job(name, strings.TrimPrefix(redirect.URL, "http://")), "\n") + "\n  metrics_path: /" + name + "\n  " + c
	}
	in := newSetup(t, config).start(t)
	for name := range credentials {
		if name != "header" {
			waitFor(t, name+" is redirected", func() bool { return strings.Contains(strings.Join(th.visits(), "\n"), "/"+name+" ") })
		}
	}
	waitFor(t, "a redirect is not followed where there are secret headers", func() bool {
		_, text := in.get("/api/v1/targets/summary")
		return strings.Contains(text, "server returned HTTP status 302 Found")
	})
	for _, seen := range th.visits() {
		require.NotContains(t, seen, "hunter2")
		require.NotContains(t, seen, "Authorization")
	}
	for _, path := range []string{"/api/v1/targets", "/api/v1/targets/summary", "/targets", "/api/v1/status/config", "/metrics"} {
		_, text := in.get(path)
		require.NotContains(t, text, "hunter2", path)
	}
	require.NotContains(t, in.logs.String(), "hunter2")
}
