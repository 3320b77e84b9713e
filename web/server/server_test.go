package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/stretchr/testify/require"
)

// start runs a server on any port until the test ends.
func start(t *testing.T, cfg Config, ready ReadyFunc) *Server {
	t.Helper()
	cfg.ListenAddress = "127.0.0.1:0"
	s := New(cfg, prometheus.NewRegistry(), ready, promslog.NewNopLogger())
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return s
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + s.Addr().String() + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestCommonEndpoints(t *testing.T) {
	t.Parallel()
	s := start(t, Config{}, func() error { return nil })
	s.Handle("GET /hello", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	for path, want := range map[string]int{
		"/metrics":      http.StatusOK,
		"/-/healthy":    http.StatusOK,
		"/-/ready":      http.StatusOK,
		"/hello":        http.StatusOK,
		"/debug/pprof/": http.StatusNotFound,
		"/nowhere":      http.StatusNotFound,
	} {
		status, _ := get(t, s, path)
		require.Equal(t, want, status, path)
	}
}

func TestNotReadySaysWhy(t *testing.T) {
	t.Parallel()
	s := start(t, Config{}, func() error { return errors.New("backend east does not answer") })
	status, body := get(t, s, "/-/ready")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "Not ready: backend east does not answer\n", body)
}

func TestRequestsThatChangeTheProcessHaveToBeEnabled(t *testing.T) {
	t.Parallel()
	for enabled, want := range map[bool]int{true: http.StatusOK, false: http.StatusForbidden} {
		s := start(t, Config{EnableLifecycle: enabled}, func() error { return nil })
		s.HandleLifecycle("/-/reload", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		resp, err := http.Post("http://"+s.Addr().String()+"/-/reload", "", nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.StatusCode)
	}
}

func TestProfilesAreServedOnRequest(t *testing.T) {
	t.Parallel()
	status, _ := get(t, start(t, Config{EnablePprof: true}, func() error { return nil }), "/debug/pprof/cmdline")
	require.Equal(t, http.StatusOK, status)
}

// The web configuration file is that of the Prometheus family.
func TestAuthenticationFromTheWebConfigurationFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "web.yml")
	// The password is "secret".
	require.NoError(t, os.WriteFile(file, []byte("basic_auth_users:\n  admin: $2y$10$9mKwAVr2TGbHJMNBpTfLZ.4l8zfaOu6bYVpn0JaQUTFzXB9MdTpPu\n"), 0o600))
	status, _ := get(t, start(t, Config{WebConfigFile: file}, func() error { return nil }), "/metrics")
	require.Equal(t, http.StatusUnauthorized, status)
}

func TestFaultsAreNamedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	s := start(t, Config{}, func() error { return nil })
	for want, cfg := range map[string]Config{
		s.Addr().String():  {ListenAddress: s.Addr().String()},
		"missing-web.yml":  {ListenAddress: "127.0.0.1:0", WebConfigFile: "missing-web.yml"},
		"no-port-in-there": {ListenAddress: "no-port-in-there"},
	} {
		err := New(cfg, prometheus.NewRegistry(), nil, promslog.NewNopLogger()).Listen()
		require.ErrorContains(t, err, want)
	}
}
