package up

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	remotewrite "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/up/screen"
	"github.com/tocsin-rules/tocsin/web"
)

func TestTakenPortsAreAllNamed(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tcp.Close()) })
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, udp.Close()) })
	err = checkPorts([]portUse{
		{"tcp", tcp.Addr().String(), "HTTP of member-0"},
		{"tcp", freeAddress(t), "HTTP of member-1"},
		{"udp", udp.LocalAddr().String(), "gossip of member-0"},
	})
	require.EqualError(t, err,
		"tcp port "+tcp.Addr().String()+", for HTTP of member-0, can't be used: bind: address already in use\n"+
			"udp port "+udp.LocalAddr().String()+", for gossip of member-0, can't be used: bind: address already in use\n"+
			"end what uses the port, or choose other ports with --port-base")
}

// prometheusLike serves a query API, and remote write as Prometheus does.
func prometheusLike(t *testing.T, write http.Handler) *url.URL {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /base/api/v1/query", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("POST /base/api/v1/write", write)
	return serve(t, mux)
}

func serve(t *testing.T, h http.Handler) *url.URL {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	return u
}

func TestABackendThatTakesRemoteWriteIsAccepted(t *testing.T) {
	t.Parallel()
	store := teststorage.New(t)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	write := remotewrite.NewWriteHandler(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), store,
		remote.MessageTypes{remote.WriteV1MessageType}, false, false, false)
	u := prometheusLike(t, write).JoinPath("base")
	require.NoError(t, newProber().existing(t.Context(), request{single: u}))
}

func TestServersThatCannotBeUsedAreNamed(t *testing.T) {
	t.Parallel()
	disabled := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "remote write receiver needs to be enabled", http.StatusNotFound)
	})
	noWrite := prometheusLike(t, disabled).JoinPath("base")
	gone := &url.URL{Scheme: "http", Host: freeAddress(t), User: url.UserPassword("me", "secret")}
	r := request{
		clusters:      []string{"a", "b"},
		named:         map[string]*url.URL{"a": noWrite, "b": gone},
		alertmanagers: []*url.URL{serve(t, http.NotFoundHandler())},
	}
	err := newProber().existing(t.Context(), r)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 3)
	require.Equal(t, "backend "+noWrite.String()+" does not take remote write: 404 Not Found: remote write receiver "+
		"needs to be enabled; start Prometheus with --web.enable-remote-write-receiver", lines[0])
	require.Contains(t, lines[1], "backend "+gone.Redacted()+" does not answer queries: ")
	require.Contains(t, lines[1], "connection refused")
	require.Contains(t, lines[2], "alertmanager "+r.alertmanagers[0].String()+" does not answer: 404 Not Found")
	require.NotContains(t, err.Error(), "secret")
}

func TestNotificationsAreReceivedAsAlertmanagerSendsThem(t *testing.T) {
	t.Parallel()
	body, err := json.Marshal(webhook.Message{Version: "4", Data: &template.Data{Alerts: template.Alerts{
		{Status: "firing", Labels: template.KV{"alertname": "TocsinMemberDown", "severity": "critical", "instance": "member-1"}},
		{Status: "resolved", Labels: template.KV{"alertname": "TargetDown"}},
	}}})
	require.NoError(t, err)
	var in inbox
	w := httptest.NewRecorder()
	in.ServeHTTP(w, httptest.NewRequest(http.MethodPost, notificationsPath, bytes.NewReader(body)))
	require.Equal(t, http.StatusOK, w.Code)
	latest, count := in.snapshot()
	require.Equal(t, 2, count)
	require.Equal(t, "FIRING TocsinMemberDown instance=member-1 severity=critical", latest[0].String())
	require.Equal(t, "RESOLVED TargetDown", latest[1].String())
}

func TestNotificationsAreBounded(t *testing.T) {
	t.Parallel()
	var in inbox
	in.add(template.Data{Alerts: make(template.Alerts, 3*keptNotifications)}, time.Now())
	latest, count := in.snapshot()
	require.Len(t, latest, keptNotifications)
	require.Equal(t, 3*keptNotifications, count)

	w := httptest.NewRecorder()
	huge := strings.NewReader(`{"receiver":"` + strings.Repeat("x", maxWebhookBytes) + `"}`)
	in.ServeHTTP(w, httptest.NewRequest(http.MethodPost, notificationsPath, huge))
	require.Equal(t, http.StatusBadRequest, w.Code)
}

func TestMembersThatDoNotAnswerHaveNoStatus(t *testing.T) {
	t.Parallel()
	good := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"status":"success","data":{"member":"member-0","ready":true,"groups":12,"lagSeconds":0.4,
			"ruleErrors":[{"group":"g","rule":"r","error":"e"}],"fileErrors":[{"file":"f","error":"e"}]}}`))
	}))
	bad := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"status":"error"}`, http.StatusInternalServerError)
	}))
	answers := newPoller().all(t.Context(), []string{"http://" + freeAddress(t), good.String(), bad.String()})
	require.Nil(t, answers[0])
	require.Nil(t, answers[2])
	require.Equal(t, &web.MemberStatus{
		Member: "member-0", Ready: true, Groups: 12, LagSeconds: 0.4,
		RuleErrors: []web.RuleError{{Group: "g", Rule: "r", Error: "e"}},
		FileErrors: []web.FileError{{File: "f", Error: "e"}},
	}, answers[1])
}

func TestTheBlockIsDrawnOverItself(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &block{out: &out, color: true, size: func() (int, int, error) { return 60, 24, nil }}
	s := screen.State{Phase: screen.Running, Others: []screen.Process{{Name: "backend-east", State: "ready"}}}
	b.show(s, time.Time{})
	require.NotContains(t, out.String(), "A\r", "the first block is below what is there")
	require.Contains(t, out.String(), "\r\x1b[32mbackend-east")
	drawn := strings.Count(out.String(), "\n")
	out.Reset()
	b.show(s, time.Time{})
	require.True(t, strings.HasPrefix(out.String(), "\x1b["+string(rune('0'+drawn))+"A\r"), "%q", out.String())
	require.True(t, strings.HasSuffix(out.String(), eraseScreen))
}

func TestTheBlockKeepsWithinTheTerminalAndWithoutColor(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	size := func() (int, int, error) { return 40, 4, nil }
	b := &block{out: &out, size: size}
	b.show(screen.State{Others: make([]screen.Process, 30)}, time.Time{})
	require.Equal(t, 3, strings.Count(out.String(), "\n"))
	require.NotContains(t, out.String(), "\x1b[1m")
	b.size = func() (int, int, error) { return 0, 0, errors.New("not a terminal any more") }
	b.show(screen.State{}, time.Time{})
}

func TestLinesTellChangesAtOnceAndSummariesNowAndThen(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := newDisplay(&out)
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	s := screen.State{Phase: screen.Running, Home: "http://h"}
	d.show(s, at)
	d.show(s, at.Add(29*time.Second))
	s.Notified, s.Notifications = 1, []screen.Notification{{Name: "A"}}
	d.show(s, at.Add(29*time.Second))
	d.show(s, at.Add(30*time.Second))
	const summary = "0 of 0 members ready: 0 groups, 0 rules, 0 slots evaluated, 0 missed, lag 0.0s, 0 alerts firing\n"
	require.Equal(t, "10:00:00 Tocsin is running at http://h; Ctrl-C stops it\n"+
		"10:00:00 "+summary+"10:00:29 FIRING A\n10:00:30 "+summary, out.String())
}
