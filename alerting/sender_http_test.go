package alerting

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// patience bounds how long these tests wait for what has to come.
const patience = time.Minute

// post is one request as a real server got it.
type post struct {
	header http.Header
	path   string
	alerts models.PostableAlerts
}

// serve starts an Alertmanager that answers with the statuses given, the last
// one for good.
func serve(t *testing.T, statuses ...int) (*httptest.Server, <-chan post) {
	t.Helper()
	posts := make(chan post, 100)
	server := httptest.NewServer(handler(t, posts, statuses...))
	t.Cleanup(server.Close)
	return server, posts
}

func handler(t *testing.T, posts chan<- post, statuses ...int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := post{header: r.Header, path: r.URL.Path}
		if err := json.NewDecoder(r.Body).Decode(&p.alerts); err != nil {
			t.Error(err)
		}
		if err := p.alerts.Validate(strfmt.Default); err != nil {
			t.Error(err)
		}
		w.WriteHeader(statuses[0])
		if len(statuses) > 1 {
			statuses = statuses[1:]
		}
		posts <- p
	}
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

// runReal runs a Sender in real time; the function returned ends it.
func runReal(t *testing.T, cfg config.AlertingConfig) (*Sender, func()) {
	t.Helper()
	s := newSender(t, 1000)
	require.NoError(t, s.ApplyConfig(cfg, labels.EmptyLabels()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := func() {
		cancel()
		require.NoError(t, <-ended)
		ended <- nil
	}
	t.Cleanup(stop)
	return s, stop
}

func next(t *testing.T, posts <-chan post) post {
	t.Helper()
	select {
	case p := <-posts:
		return p
	case <-time.After(patience):
		require.FailNow(t, "no request came")
		return post{}
	}
}

func TestWhatARealServerGets(t *testing.T) {
	t.Parallel()
	server, posts := serve(t, http.StatusOK)
	passwordFile := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(passwordFile, []byte("secret"), 0o600))
	s, _ := runReal(t, alertingConfig(t, fmt.Sprintf(`
alertmanagers:
- static_configs: [{targets: [%q]}]
  path_prefix: /am
  basic_auth: {username: tocsin, password_file: %q}
`, address(server), passwordFile)))
	starts := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	s.Send(`rate(x{a="ü"}[5m]) > 1`, alert.Notification{
		Labels:      labels.FromStrings("alertname", "X", "a", "ü"),
		Annotations: labels.FromStrings("summary", "it's <high>"),
		StartsAt:    starts,
		EndsAt:      time.Now().Add(time.Hour),
	})
	got := next(t, posts)
	require.Equal(t, "/am/api/v2/alerts", got.path)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Contains(t, got.header.Get("User-Agent"), "Tocsin/")
	require.Equal(t, "Basic dG9jc2luOnNlY3JldA==", got.header.Get("Authorization"))
	require.Len(t, got.alerts, 1)
	a := got.alerts[0]
	require.Equal(t, models.LabelSet{"alertname": "X", "a": "ü"}, a.Labels)
	require.Equal(t, models.LabelSet{"summary": "it's <high>"}, a.Annotations)
	require.True(t, starts.Equal(time.Time(a.StartsAt)))
	require.EqualValues(t, "http://tocsin.example/rules/graph?g0.expr=rate%28x%7Ba%3D%22%C3%BC%22%7D%5B5m%5D%29+%3E+1&g0.tab=1", a.GeneratorURL)
}

// Every way to reach an Alertmanager that Prometheus has, over real sockets.
func TestWaysToAnAlertmanager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	posts := make(chan post, 100)
	plain, secure := httptest.NewServer(handler(t, posts, http.StatusOK)), httptest.NewTLSServer(handler(t, posts, http.StatusOK))
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, secret, _ := r.BasicAuth(); user != "tocsin" || secret != "oauth-secret" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"granted","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	// A request that comes by a proxy names the server that it is for.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Via", r.URL.Host)
		handler(t, posts, http.StatusOK)(w, r)
	}))
	t.Cleanup(proxy.Close)
	for _, c := range []struct{ name, target, settings, header, want string }{
		{"TLS", address(secure), fmt.Sprintf("scheme: https\n  tls_config: {ca_file: %q, server_name: example.com}", ca), "Authorization", ""},
		{"bearer token", address(plain), fmt.Sprintf("authorization: {credentials_file: %q}", file("token", "t0ken")), "Authorization", "Bearer t0ken"},
		{"OAuth2", address(plain), fmt.Sprintf("oauth2: {client_id: tocsin, client_secret_file: %q, token_url: %q}", file("secret", "oauth-secret"), tokens.URL), "Authorization", "Bearer granted"},
		{"proxy", "alertmanager.example:9093", fmt.Sprintf("proxy_url: %q", proxy.URL), "Via", "alertmanager.example:9093"},
	} {
		s, stop := runReal(t, alertingConfig(t, fmt.Sprintf("alertmanagers:\n- static_configs: [{targets: [%q]}]\n  %s\n", c.target, c.settings)))
		s.Send("x", firing(c.name))
		got := next(t, posts)
		require.Equal(t, c.name, got.alerts[0].Labels["id"])
		require.Equal(t, c.want, got.header.Get(c.header), c.name)
		stop()
	}
}

func TestLargeNumbersGoInSeveralRequests(t *testing.T) {
	t.Parallel()
	server, posts := serve(t, http.StatusOK)
	s, _ := runReal(t, static(t, address(server)))
	var many []alert.Notification
	for i := range 600 {
		many = append(many, firing(fmt.Sprint(i)))
	}
	s.Send("x", many...)
	require.Len(t, next(t, posts).alerts, 256)
	require.Len(t, next(t, posts).alerts, 256)
	require.Len(t, next(t, posts).alerts, 88)
}

func TestLargeAnnotationsGoInSeveralRequests(t *testing.T) {
	t.Parallel()
	server, posts := serve(t, http.StatusOK)
	s, _ := runReal(t, static(t, address(server)))
	var many []alert.Notification
	for i := range 10 {
		n := firing(fmt.Sprint(i))
		n.Annotations = labels.FromStrings("text", strings.Repeat("x", 1<<20))
		many = append(many, n)
	}
	s.Send("x", many...)
	for _, n := range []int{3, 3, 3, 1} {
		require.Len(t, next(t, posts).alerts, n)
	}
}

func TestAServerThatFailsIsAskedAgain(t *testing.T) {
	t.Parallel()
	server, posts := serve(t, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusOK)
	refusing, refused := serve(t, http.StatusBadRequest, http.StatusOK)
	s, _ := runReal(t, static(t, address(server), address(refusing)))
	s.Send("x", firing("1"))
	for range 3 {
		require.Len(t, next(t, posts).alerts, 1)
	}
	next(t, refused)
	s.Send("x", firing("2"))
	require.Equal(t, "2", next(t, refused).alerts[0].Labels["id"], "what was refused is not sent again")
}

// An Alertmanager that is down when the alert fires gets it when it comes up.
func TestAServerThatIsDownGetsItsAlertsWhenItIsBack(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	down := listener.Addr().String()
	require.NoError(t, listener.Close())
	up, upPosts := serve(t, http.StatusOK)
	s, _ := runReal(t, static(t, down, address(up)))
	s.Send("x", firing("1"))
	next(t, upPosts)

	posts := make(chan post, 1)
	back := httptest.NewUnstartedServer(handler(t, posts, http.StatusOK))
	require.NoError(t, back.Listener.Close())
	back.Listener, err = net.Listen("tcp", down)
	require.NoError(t, err)
	back.Start()
	t.Cleanup(back.Close)
	require.Equal(t, "1", next(t, posts).alerts[0].Labels["id"])
}

func TestAlertmanagersFromFiles(t *testing.T) {
	t.Parallel()
	first, firstPosts := serve(t, http.StatusOK)
	second, secondPosts := serve(t, http.StatusOK)
	file := filepath.Join(t.TempDir(), "alertmanagers.json")
	point := func(target string) {
		content := fmt.Sprintf(`[{"targets": [%q]}]`, target)
		require.NoError(t, os.WriteFile(file+".new", []byte(content), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	point(address(first))
	s, _ := runReal(t, alertingConfig(t, fmt.Sprintf(`alertmanagers: [{file_sd_configs: [{files: [%q]}]}]`, file)))
	s.Send("x", firing("1"))
	next(t, firstPosts)
	point(address(second))
	require.Eventually(t, func() bool {
		active, _ := s.Alertmanagers()
		return len(active) == 1 && active[0].Host == address(second)
	}, patience, 10*time.Millisecond)
	s.Send("x", firing("2"))
	require.Equal(t, "2", next(t, secondPosts).alerts[0].Labels["id"])
	require.Empty(t, firstPosts)
}

func TestStopDeliversToARealServer(t *testing.T) {
	t.Parallel()
	server, posts := serve(t, http.StatusOK)
	s, stop := runReal(t, static(t, address(server)))
	s.Send("x", firing("1"))
	next(t, posts)
	s.Send("x", firing("2"))
	stop()
	require.Equal(t, "2", next(t, posts).alerts[0].Labels["id"])
}

func TestMetricsHaveThePrometheusNames(t *testing.T) {
	t.Parallel()
	server, posts := serve(t, http.StatusInternalServerError, http.StatusOK)
	s, stop := runReal(t, static(t, address(server)))
	s.Send("x", firing("1"))
	next(t, posts)
	next(t, posts)
	stop()
	url := fmt.Sprintf(`alertmanager="http://%s/api/v2/alerts"`, address(server))
	require.Equal(t, strings.ReplaceAll(`prometheus_notifications_alertmanagers_discovered 1
prometheus_notifications_dropped_total{AM} 0
prometheus_notifications_errors_total{AM} 1
prometheus_notifications_queue_capacity 1000
prometheus_notifications_queue_length{AM} 0
prometheus_notifications_sent_total{AM} 2
`, "AM", url), gathered(t, s))
}
