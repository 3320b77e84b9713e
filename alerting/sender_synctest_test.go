package alerting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v2"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// network is where the Alertmanagers of these tests are: each answers by a
// function, for a network of sockets would hold up virtual time.
type network struct {
	mu       sync.Mutex
	answer   map[string]answer
	requests map[string]int
	got      map[string][]string
}

// answer is the status of an Alertmanager's answer; 0 is no answer at all.
type answer func(ctx context.Context) int

func newNetwork() *network {
	return &network{answer: map[string]answer{}, requests: map[string]int{}, got: map[string][]string{}}
}

func (n *network) set(host string, a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer[host] = a
}

func always(status int) answer { return func(context.Context) int { return status } }

func hang(ctx context.Context) int {
	<-ctx.Done()
	return 0
}

func slow(d time.Duration) answer {
	return func(ctx context.Context) int {
		select {
		case <-time.After(d):
			return http.StatusOK
		case <-ctx.Done():
			return 0
		}
	}
}

func (n *network) do(_ *http.Client, req *http.Request) (*http.Response, error) {
	var alerts models.PostableAlerts
	if err := json.NewDecoder(req.Body).Decode(&alerts); err != nil {
		return nil, err
	}
	host := req.URL.Host
	n.mu.Lock()
	n.requests[host]++
	answer := n.answer[host]
	n.mu.Unlock()
	status := answer(req.Context())
	if status == 0 {
		return nil, errors.New("no answer")
	}
	if status/100 == 2 {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, a := range alerts {
			n.got[host] = append(n.got[host], describe(a))
		}
	}
	return &http.Response{
		StatusCode: status,
		Status:     fmt.Sprintf("%d %s", status, http.StatusText(status)),
		Body:       io.NopCloser(strings.NewReader("because")),
	}, nil
}

// describe is an alert's labels, without alertname, and when it ends.
func describe(a *models.PostableAlert) string {
	var pairs []string
	for name, value := range a.Labels {
		if name != labels.AlertName {
			pairs = append(pairs, name+"="+value)
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",") + " ends " + time.Time(a.EndsAt).UTC().Format(time.TimeOnly)
}

// received is what an Alertmanager took since the last call.
func (n *network) received(host string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.got[host]
	delete(n.got, host)
	return got
}

func (n *network) asked(host string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests[host]
}

func alertingConfig(t *testing.T, text string) config.AlertingConfig {
	t.Helper()
	var cfg config.AlertingConfig
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &cfg))
	return cfg
}

func static(t *testing.T, targets ...string) config.AlertingConfig {
	t.Helper()
	return alertingConfig(t, fmt.Sprintf("alertmanagers: [{static_configs: [{targets: [%s]}]}]", strings.Join(targets, ",")))
}

func newSender(t *testing.T, capacity int) *Sender {
	t.Helper()
	cfg := Config{ExternalURL: &url.URL{Scheme: "http", Host: "tocsin.example", Path: "/rules"}, QueueCapacity: capacity}
	s, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	return s
}

// world is a running Sender in virtual time.
type world struct {
	*Sender
	net  *network
	stop func()
	// ended is closed when Run has returned.
	ended chan struct{}
}

func run(t *testing.T, cfg config.AlertingConfig) *world {
	t.Helper()
	w := &world{Sender: newSender(t, 10), net: newNetwork(), ended: make(chan struct{})}
	w.do = w.net.do
	require.NoError(t, w.ApplyConfig(cfg, labels.EmptyLabels()))
	ctx, cancel := context.WithCancel(t.Context())
	w.stop = cancel
	go func() {
		defer close(w.ended)
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-w.ended
	})
	return w
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func firing(id string) alert.Notification {
	return alert.Notification{
		Labels:   labels.FromStrings(labels.AlertName, "X", "id", id),
		StartsAt: time.Now(),
		EndsAt:   time.Now().Add(4 * time.Minute),
	}
}

func resolved(id string) alert.Notification {
	n := firing(id)
	n.EndsAt, n.Resolved = time.Now(), true
	return n
}

func (w *world) droppedFor(host string) int {
	return int(testutil.ToFloat64(w.metrics.dropped.WithLabelValues("http://" + host + "/api/v2/alerts")))
}

func TestEveryAlertmanagerGetsEveryAlert(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a", "b"))
		w.net.set("a", always(http.StatusOK))
		w.net.set("b", always(http.StatusOK))
		w.Send("up == 0", firing("1"), resolved("2"))
		pass(2 * time.Second)
		want := []string{"id=1 ends 00:04:00", "id=2 ends 00:00:00"}
		require.Equal(t, want, w.net.received("a"))
		require.Equal(t, want, w.net.received("b"))
		active, dropped := w.Alertmanagers()
		require.Equal(t, "[http://a/api/v2/alerts http://b/api/v2/alerts]", fmt.Sprint(active))
		require.Empty(t, dropped)
	})
}

func TestFailedRequestsAreRepeatedWhileTheNotificationIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		w.net.set("a", always(0))
		w.Send("x", firing("old"))
		pass(3 * time.Minute)
		w.Send("x", firing("new"))
		require.Less(t, w.net.asked("a"), 30, "back-off")
		pass(2 * time.Minute)
		require.Equal(t, 1, w.droppedFor("a"), "old is no longer true")
		w.net.set("a", always(http.StatusOK))
		pass(maxBackoff)
		require.Equal(t, []string{"id=new ends 00:07:00"}, w.net.received("a"))
		asked := w.net.asked("a")
		w.Send("x", firing("next"))
		pass(0)
		require.Equal(t, asked+1, w.net.asked("a"), "no back-off after a success")
	})
}

func TestAResolutionIsWorthDeliveringFor15Minutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		w.net.set("a", always(0))
		w.Send("x", resolved("1"))
		pass(14 * time.Minute)
		w.net.set("a", always(http.StatusOK))
		pass(maxBackoff)
		require.Equal(t, []string{"id=1 ends 00:00:00"}, w.net.received("a"))
	})
}

func TestTheNewestNotificationOfAnAlertReplacesOlderOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		w.net.set("a", always(http.StatusServiceUnavailable))
		for range 5 {
			w.Send("x", firing("1"), firing("2"))
			pass(time.Minute)
		}
		w.Send("x", resolved("1"))
		w.net.set("a", always(http.StatusOK))
		pass(maxBackoff)
		require.Equal(t, []string{"id=1 ends 00:05:00", "id=2 ends 00:08:00"}, w.net.received("a"))
	})
}

func TestANotificationThatComesDuringARequestIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		w.net.set("a", slow(5*time.Second))
		w.Send("x", firing("1"))
		pass(3 * time.Second)
		w.Send("x", resolved("1"))
		pass(20 * time.Second)
		require.Equal(t, []string{"id=1 ends 00:04:00", "id=1 ends 00:00:03"}, w.net.received("a"))
	})
}

func TestASlowAlertmanagerDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "slow", "fast"))
		w.net.set("slow", hang)
		w.net.set("fast", always(http.StatusOK))
		pass(2 * time.Second)
		for i := range 20 {
			w.Send("x", firing(fmt.Sprint(i)))
			pass(0)
			require.Len(t, w.net.received("fast"), 1)
		}
		require.Equal(t, 10, w.droppedFor("slow"), "its queue is bounded")
		w.net.set("slow", always(http.StatusOK))
		pass(time.Minute)
		require.Equal(t, []string{
			"id=10 ends 00:04:02", "id=11 ends 00:04:02", "id=12 ends 00:04:02", "id=13 ends 00:04:02", "id=14 ends 00:04:02",
			"id=15 ends 00:04:02", "id=16 ends 00:04:02", "id=17 ends 00:04:02", "id=18 ends 00:04:02", "id=19 ends 00:04:02",
		}, w.net.received("slow"), "the oldest are dropped")
	})
}

func TestAnswersThatMeanAnotherTry(t *testing.T) {
	t.Parallel()
	for status, again := range map[int]bool{
		http.StatusBadRequest:            false,
		http.StatusRequestEntityTooLarge: false,
		http.StatusUnprocessableEntity:   false,
		http.StatusUnauthorized:          true,
		http.StatusNotFound:              true,
		http.StatusRequestTimeout:        true,
		http.StatusTooManyRequests:       true,
		http.StatusInternalServerError:   true,
		http.StatusServiceUnavailable:    true,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := run(t, static(t, "a"))
				w.net.set("a", always(status))
				w.Send("x", firing("1"))
				pass(10 * time.Second)
				w.net.set("a", always(http.StatusAccepted))
				pass(maxBackoff)
				require.Equal(t, again, len(w.net.received("a")) == 1)
				require.Equal(t, again, w.droppedFor("a") == 0)
			})
		})
	}
}

func TestNotificationsWaitForTheFirstAlertmanager(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, alertingConfig(t, `alertmanagers: [{static_configs: [{targets: []}]}]`))
		w.net.set("late", always(http.StatusOK))
		for i := range 12 {
			w.Send("x", firing(fmt.Sprint(i)))
		}
		pass(time.Minute)
		require.NoError(t, w.ApplyConfig(static(t, "late"), labels.EmptyLabels()))
		pass(2 * time.Second)
		got := w.net.received("late")
		require.Len(t, got, 10)
		require.Equal(t, "id=2 ends 00:04:00", got[0])
	})
}

func TestWhatOneAlertmanagerDidNotGetIsLeftToItsSuccessor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "old"))
		w.net.set("old", hang)
		w.net.set("new", always(http.StatusOK))
		w.Send("x", firing("1"))
		pass(2 * time.Second)
		require.NoError(t, w.ApplyConfig(static(t, "new"), labels.EmptyLabels()))
		pass(2 * time.Second)
		require.Equal(t, []string{"id=1 ends 00:04:00"}, w.net.received("new"))
		active, _ := w.Alertmanagers()
		require.Equal(t, "[http://new/api/v2/alerts]", fmt.Sprint(active))
		require.Equal(t, 1, testutil.CollectAndCount(w.metrics.errors), "the series of the old one are gone")
	})
}

func TestAReloadKeepsTheQueuesOfAlertmanagersThatStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		w.net.set("a", always(http.StatusBadGateway))
		w.net.set("b", always(http.StatusOK))
		w.Send("x", firing("1"))
		pass(2 * time.Second)
		both := static(t, "b")
		both.AlertmanagerConfigs = append(both.AlertmanagerConfigs, static(t, "a").AlertmanagerConfigs...)
		require.NoError(t, w.ApplyConfig(both, labels.FromStrings("fleet", "new", "id", "external")))
		pass(2 * time.Second)
		require.Empty(t, w.net.received("b"), "it is another entry")
		w.net.set("a", always(http.StatusOK))
		pass(maxBackoff)
		require.Equal(t, []string{"fleet=new,id=1 ends 00:04:00"}, w.net.received("a"))
	})
}

func TestABadConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		w.net.set("a", always(http.StatusOK))
		pass(2 * time.Second)
		bad := static(t, "b")
		bad.AlertmanagerConfigs[0].HTTPClientConfig.TLSConfig.CAFile = "/nonexistent/ca.pem"
		require.ErrorContains(t, w.ApplyConfig(bad, labels.EmptyLabels()), "alertmanagers entry 1")
		w.Send("x", firing("1"))
		pass(2 * time.Second)
		require.Len(t, w.net.received("a"), 1)
	})
}

func TestRelabelling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, alertingConfig(t, `
alert_relabel_configs:
- {source_labels: [id], regex: noise, action: drop}
- {target_label: global, replacement: "yes"}
alertmanagers:
- static_configs: [{targets: [a], labels: {use: "yes"}}, {targets: [unused, "not/an/address"]}]
  relabel_configs: [{source_labels: [use, __address__], regex: ";unused", action: drop}]
  path_prefix: /prefix
- static_configs: [{targets: [b]}]
  alert_relabel_configs: [{source_labels: [id], regex: "1", action: drop}]
- static_configs: [{targets: [c], labels: {__scheme__: https, __alerts_path__: /own}}]
`))
		for _, host := range []string{"a", "b", "c"} {
			w.net.set(host, always(http.StatusOK))
		}
		w.Send("x", firing("1"), firing("noise"))
		pass(2 * time.Second)
		require.Equal(t, []string{"global=yes,id=1 ends 00:04:00"}, w.net.received("a"))
		require.Zero(t, w.net.asked("b"), "no request without alerts")
		require.Len(t, w.net.received("c"), 1)
		active, dropped := w.Alertmanagers()
		require.Equal(t, "[http://a/prefix/api/v2/alerts http://b/api/v2/alerts https://c/own]", fmt.Sprint(active))
		require.Equal(t, "[http://unused/prefix/api/v2/alerts]", fmt.Sprint(dropped))
	})
}

func TestRelabellingLeavesTheTenancyOfAnAlertAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, alertingConfig(t, `
alert_relabel_configs:
- {target_label: cluster, replacement: west}
- {regex: namespace, action: labeldrop}
- {source_labels: [cluster], regex: nowhere, action: drop}
alertmanagers:
- static_configs: [{targets: [a]}]
  alert_relabel_configs: [{target_label: cluster, replacement: south}]
`))
		w.net.set("a", always(http.StatusOK))
		enforced := labels.FromStrings("cluster", "east", "namespace", "shop")
		n := firing("1")
		n.Labels = labels.FromStrings("alertname", "X", "id", "1", "cluster", "east", "namespace", "shop")
		n.Enforced = enforced
		w.Send("x", n, firing("2"))
		pass(2 * time.Second)
		require.Equal(t, []string{
			"cluster=east,id=1,namespace=shop ends 00:04:00",
			"cluster=south,id=2 ends 00:04:00",
		}, w.net.received("a"))
	})
}

func TestStopDeliversWhatIsQueued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "slow", "down", "hanging"))
		w.net.set("slow", slow(time.Second))
		w.net.set("down", always(0))
		w.net.set("hanging", hang)
		w.Send("x", firing("1"))
		pass(time.Minute)
		w.net.received("slow")
		w.Send("x", firing("2"))
		pass(100 * time.Millisecond)
		// Just back: it gets its alerts though its back-off is not over.
		w.net.set("down", always(http.StatusOK))
		begin := time.Now()
		w.stop()
		<-w.ended
		require.Equal(t, defaultDrainTimeout, time.Since(begin))
		require.Equal(t, []string{"id=2 ends 00:05:00"}, w.net.received("slow"))
		require.Equal(t, []string{"id=1 ends 00:04:00", "id=2 ends 00:05:00"}, w.net.received("down"))
		require.Equal(t, 2, w.droppedFor("hanging"), "what is lost is counted")
	})
}

func TestStopWithNothingToDeliverIsImmediate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := run(t, static(t, "a"))
		pass(2 * time.Second)
		begin := time.Now()
		w.stop()
		<-w.ended
		require.Zero(t, time.Since(begin))
	})
}
