package targets

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// newCollector is a server that answers as a collector with targets named after
// it.
func newCollector(t *testing.T, name string, active, dropped int) (address string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := map[string]any{"activeTargets": named(name+"-up", active), "droppedTargets": named(name+"-dropped", dropped), "droppedTargetCounts": map[string]int{"pool": dropped}}
		if r.URL.Query().Get("state") == "active" {
			a = map[string]any{"activeTargets": named(name+"-up", active), "droppedTargets": []string{}}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": a})
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func named(prefix string, n int) []map[string]string {
	targets := []map[string]string{}
	for i := range n {
		targets = append(targets, map[string]string{"scrapeUrl": fmt.Sprintf("%s-%d", prefix, i)})
	}
	return targets
}

// ask returns what is on a page.
func ask(t *testing.T, addresses []string, query url.Values) (names []string, got answer, warnings []string) {
	t.Helper()
	c, err := New(Config{Addresses: addresses}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	c.maxBytes = 1 << 20
	rec := httptest.NewRecorder()
	c.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/api/v1/targets?"+query.Encode(), http.NoBody))
	require.Equal(t, http.StatusOK, rec.Code)
	var envelope struct {
		Data     answer
		Warnings []string
	}
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &envelope))
	for _, tg := range append(envelope.Data.Active, envelope.Data.Dropped...) {
		var name, from string
		require.NoError(t, json.Unmarshal(tg["scrapeUrl"], &name))
		require.NoError(t, json.Unmarshal(tg["collector"], &from))
		require.Contains(t, addresses, from)
		names = append(names, name)
	}
	return names, envelope.Data, envelope.Warnings
}

func TestTargetsOfAllCollectors(t *testing.T) {
	t.Parallel()
	addresses := []string{newCollector(t, "a", 2, 1), newCollector(t, "b", 0, 0), newCollector(t, "c", 1, 2)}
	names, got, warnings := ask(t, addresses, nil)
	require.ElementsMatch(t, []string{"a-up-0", "a-up-1", "a-dropped-0", "c-up-0", "c-dropped-0", "c-dropped-1"}, names)
	require.Equal(t, map[string]int{"pool": 3}, got.Counts)
	require.Empty(t, warnings)
	require.Empty(t, got.NextToken)
	names, _, _ = ask(t, addresses, url.Values{"state": {"active"}})
	require.ElementsMatch(t, []string{"a-up-0", "a-up-1", "c-up-0"}, names)
}

func TestACollectorThatDoesNotAnswerIsNamed(t *testing.T) {
	t.Parallel()
	serve := func(h http.HandlerFunc) string {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://")
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	bad := map[string]string{
		strings.TrimPrefix(gone.URL, "http://"): "connection refused",
		serve(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}): "it answered 503 Service Unavailable",
		serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }): "its answer is none of a collector's",
		serve(func(w http.ResponseWriter, _ *http.Request) {
			for chunk := strings.Repeat(" ", 1<<12); ; {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		}): "its answer has more than 1048576 bytes",
	}
	addresses := []string{newCollector(t, "a", 1, 0), "no-such-host.invalid:1"}
	for a := range bad {
		addresses = append(addresses, a)
	}
	names, _, warnings := ask(t, addresses, nil)
	require.Equal(t, []string{"a-up-0"}, names)
	require.Len(t, warnings, len(bad)+1)
	all := strings.Join(warnings, "\n")
	require.Contains(t, all, `collectors at "no-such-host.invalid:1" are not found`)
	for a, why := range bad {
		i := slices.IndexFunc(warnings, func(w string) bool { return strings.HasPrefix(w, fmt.Sprintf("collector %q did not answer", a)) })
		require.GreaterOrEqual(t, i, 0, all)
		require.Contains(t, warnings[i], why)
	}
}

func TestPagesHaveEveryTargetOnce(t *testing.T) {
	t.Parallel()
	var addresses []string
	want := 0
	for i := range 11 {
		addresses = append(addresses, newCollector(t, fmt.Sprintf("c%d", i), i%4, i%3))
		want += i%4 + i%3
	}
	all, whole, _ := ask(t, addresses, nil)
	require.Len(t, all, want)
	slices.Sort(all)
	for _, limit := range []int{1, 2, 7, want, want + 1} {
		var names []string
		counted, token := 0, ""
		for pages := 0; ; pages++ {
			require.LessOrEqual(t, pages, want, "pages that never end")
			query := url.Values{"target_limit": {fmt.Sprint(limit)}}
			if token != "" {
				query.Set("target_next_token", token)
			}
			shown, got, _ := ask(t, addresses, query)
			require.LessOrEqual(t, len(shown), limit)
			names = append(names, shown...)
			counted += got.Counts["pool"]
			if token = got.NextToken; token == "" {
				break
			}
		}
		slices.Sort(names)
		require.Equal(t, all, names, "limit %d", limit)
		require.Equal(t, whole.Counts["pool"], counted, "limit %d", limit)
	}
}

func TestWrongParametersAreRefused(t *testing.T) {
	t.Parallel()
	c, err := New(Config{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for query, want := range map[string]string{
		"target_limit=0":         "target_limit must be a number from 1 to 10000",
		"target_limit=many":      "target_limit must be a number from 1 to 10000",
		"target_next_token=x":    "target_next_token is none of this cluster's",
		"target_next_token=YSBi": "target_next_token is none of this cluster's",
	} {
		rec := httptest.NewRecorder()
		c.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/api/v1/targets?"+query, http.NoBody))
		require.Equal(t, http.StatusBadRequest, rec.Code)
		require.Contains(t, rec.Body.String(), want)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	parse := func(text string) (Config, error) {
		var c Config
		dec := yaml.NewDecoder(strings.NewReader(text))
		dec.KnownFields(true)
		return c, errors.Join(dec.Decode(&c), c.Validate())
	}
	for text, want := range map[string]string{
		"addresses: [a]": `address "a" is not HOST:PORT`,
		"scheme: ftp":    `scheme "ftp" is neither http nor https`,
		"adresses: []":   "field adresses not found",
		"http_client_config: {basic_auth: {username: u, password: p, password_file: f}}": "password",
	} {
		_, err := parse(text)
		require.ErrorContains(t, err, want)
	}
	c, err := parse("addresses: ['collector.gmp-system:19090']\nscheme: https\nhttp_client_config: {tls_config: {ca_file: ca.pem}}")
	require.NoError(t, err)
	c.SetDirectory("/etc/x")
	require.Equal(t, "/etc/x/ca.pem", c.HTTPClientConfig.TLSConfig.CAFile)
	require.True(t, c.HTTPClientConfig.FollowRedirects)
}
