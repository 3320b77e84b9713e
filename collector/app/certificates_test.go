package app_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// poolSummary is what the summary says of a pool.
type poolSummary struct {
	Name              string
	Active, Unhealthy int
	Groups            []struct {
		LastError string
		Count     int
	}
}

// summary fails the test if a scrape config is refused.
func (in *instance) summary() map[string]poolSummary {
	_, body := in.get("/api/v1/targets/summary")
	var answer struct {
		Data struct {
			Pools        []poolSummary
			ConfigErrors []struct{ Pool, Error string }
		}
	}
	require.NoError(in.t, json.Unmarshal([]byte(body), &answer), body)
	require.Empty(in.t, answer.Data.ConfigErrors)
	pools := map[string]poolSummary{}
	for _, p := range answer.Data.Pools {
		pools[p.Name] = p
	}
	return pools
}

// awaitTarget waits until a job's only target has an error with this text, or
// is up if there is none.
func (in *instance) awaitTarget(t *testing.T, job, errorText string) {
	t.Helper()
	var last poolSummary
	defer func() {
		if t.Failed() {
			t.Logf("last: %+v", last)
		}
	}()
	waitFor(t, fmt.Sprintf("job %s, error %q", job, errorText), func() bool {
		last = in.summary()[job]
		up := last.Active == 1 && last.Unhealthy == 0
		return len(last.Groups) == 1 && up == (errorText == "") && strings.Contains(last.Groups[0].LastError, errorText)
	})
}

// TestCertificatesThatAreMountedLater has what a kubelet does with a secret:
// the configuration that names its files arrives before them.
func TestCertificatesThatAreMountedLater(t *testing.T) {
	t.Parallel()
	rc, tg := newReceiver(t), newTarget(t)
	s := newSetup(t, header)
	prepared := t.TempDir()
	clients := clientCertificate(t, prepared)
	srv := httptest.NewUnstartedServer(&scripted{pages: texts(textType, "exported 1\n")})
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	writePEM(t, filepath.Join(prepared, "ca.crt"), "CERTIFICATE", srv.Certificate().Raw)
	mounted := func(name string) string { return filepath.Join(s.dir, "secrets", name) }
	require.NoError(t, os.Mkdir(mounted(""), 0o700))
	mount := func(name string) { require.NoError(t, os.Rename(filepath.Join(prepared, name), mounted(name))) }

	address := strings.TrimPrefix(srv.URL, "https://")
	secured := job("secured", address) + "  scheme: https\n" +
		"  tls_config: {ca_file: secrets/ca.crt, server_name: example.com, cert_file: secrets/client.crt, key_file: secrets/client.key}\n"
	require.NoError(t, os.WriteFile(mounted("empty.crt"), nil, 0o600))
	careless := job("careless", address) + "  scheme: https\n  tls_config: {ca_file: secrets/empty.crt, server_name: example.com}\n"
	s.write(t, header+remoteWrite(rc)+scrapes(job("plain", tg.addr()), careless, secured))
	in := s.start(t)
	in.awaitTarget(t, "plain", "")
	in.awaitTarget(t, "careless", "certificate signed by unknown authority") // An empty file is no leave to trust anybody.
	in.awaitTarget(t, "secured", "unable to read CA cert: unable to read file "+mounted("ca.crt"))
	waitFor(t, "the target arrives as down", func() bool {
		_, up := rc.series(t, "up", "job", "secured")
		return len(up) > 0 && up[0].v == 0
	})
	mount("ca.crt")
	in.awaitTarget(t, "secured", "unable to read client cert: unable to read file "+mounted("client.crt"))
	mount("client.crt")
	in.awaitTarget(t, "secured", "unable to read client key: unable to read file "+mounted("client.key"))
	mount("client.key")
	in.awaitTarget(t, "secured", "")
	waitFor(t, "samples arrive", func() bool {
		_, exported := rc.series(t, "exported", "job", "secured")
		return len(exported) > 0
	})

	// A job that runs does not need the files that its next settings name.
	s.write(t, header+remoteWrite(rc)+scrapes(job("plain", tg.addr()), strings.Replace(secured, "ca.crt", "next.crt", 1)))
	code, body := in.do(http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusOK, code, body)
	in.awaitTarget(t, "secured", mounted("next.crt"))
	require.NoError(t, os.WriteFile(mounted("next.crt"), []byte("no certificate"), 0o600))
	in.awaitTarget(t, "secured", "unable to use specified CA cert ref "+mounted("next.crt"))
	require.NoError(t, os.Rename(mounted("ca.crt"), mounted("next.crt")))
	in.awaitTarget(t, "secured", "")
	require.NoError(t, os.WriteFile(mounted("client.key"), []byte("no key"), 0o600))
	in.awaitTarget(t, "secured", fmt.Sprintf("client certificate %s with key %s: tls: failed to find any PEM data in key input", mounted("client.crt"), mounted("client.key")))
	in.awaitTarget(t, "plain", "")
}
