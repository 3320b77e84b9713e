package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheProxyCountsBothDirections(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = w.Write([]byte(strings.Repeat(string(body), 10)))
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	p, err := startProxy(server.Listener.Addr().String())
	require.NoError(t, err)
	resp, err := http.Post("http://"+p.addr(), "text/plain", strings.NewReader(strings.Repeat("x", 1000)))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Len(t, body, 10_000)
	for what, c := range map[string]struct{ got, payload int64 }{"up": {p.up.Load(), 1000}, "down": {p.down.Load(), 10_000}} {
		require.Greater(t, c.got, c.payload, what)
		require.Less(t, c.got, c.payload+500, what)
	}
	require.NoError(t, p.stop())
	_, err = http.Get("http://" + p.addr())
	require.Error(t, err)
}
