package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clientCertificate writes a certificate that signs itself, and its key.
func clientCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	writePEM(t, filepath.Join(dir, "client.crt"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, "client.key"), "EC PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func TestExportersThatAskForCredentials(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	s := newSetup(t, header)
	file := func(name string) string { return filepath.Join(s.dir, name) }
	mount := func(name, content string) {
		require.NoError(t, os.WriteFile(file(name)+".next", []byte(content), 0o600))
		require.NoError(t, os.Rename(file(name)+".next", file(name)))
	}
	mount("password", "first")
	mount("token", "first")
	mount("client-secret", "first")
	var current atomic.Value // the secret that exporters want now
	current.Store("first")
	has := func(secret string) bool { return secret == current.Load() }

	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "collector" || !has(secret) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token": "access-%s", "token_type": "Bearer", "expires_in": 1}`, secret)
	}))
	t.Cleanup(tokens.Close)
	exporters := map[string]struct {
		check  func(*http.Request) bool
		config string
	}{
		"basic": {func(r *http.Request) bool {
			user, password, _ := r.BasicAuth()
			return user == "collector" && has(password)
		}, "basic_auth: {username: collector, password_file: password}"},
		"bearer": {func(r *http.Request) bool {
			return has(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}, "authorization: {credentials_file: token}"},
		"oauth2": {func(r *http.Request) bool {
			return has(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer access-"))
		}, "oauth2: {client_id: collector, client_secret_file: client-secret, token_url: '" + tokens.URL + "'}"},
		"tls":    {nil, "scheme: https\n  tls_config: {ca_file: tls.crt, server_name: example.com}"},
		"mutual": {nil, "scheme: https\n  tls_config: {ca_file: mutual.crt, server_name: example.com, cert_file: client.crt, key_file: client.key}"},
	}
	clients := clientCertificate(t, s.dir)
	config := header + remoteWrite(rc) + "\nscrape_configs:"
	for name, e := range exporters {
		srv := httptest.NewUnstartedServer(&scripted{pages: texts(textType, "exported 1\n"), check: e.check})
		if name == "mutual" {
			srv.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
		}
		if e.check == nil {
			srv.StartTLS()
			writePEM(t, file(name+".crt"), "CERTIFICATE", srv.Certificate().Raw)
		} else {
			srv.Start()
		}
		t.Cleanup(srv.Close)
		_, address, _ := strings.Cut(srv.URL, "://")
		config += strings.TrimSuffix(job(name, address), "\n") + "\n  " + e.config + "\n"
	}
	s.write(t, config)
	in := s.start(t)
	upAfter := func(name string, since time.Time) func() bool {
		return func() bool {
			_, up := rc.series(t, "up", "job", name)
			return len(up) > 0 && up[len(up)-1].v == 1 && up[len(up)-1].t > since.UnixMilli()
		}
	}
	for name := range exporters {
		waitFor(t, name+" is up", upAfter(name, time.Time{}))
	}

	// A mounted secret changes, and the configuration does not.
	for _, name := range []string{"password", "token", "client-secret"} {
		mount(name, "second")
	}
	current.Store("second")
	rotated := time.Now()
	for name := range exporters {
		waitFor(t, name+" is up with the second secret", upAfter(name, rotated))
	}
	for _, path := range []string{"/api/v1/targets", "/api/v1/status/config", "/metrics"} {
		_, text := in.get(path)
		require.NotContains(t, text, "access-", path)
	}
}

// TestNodeExporter scrapes the exporter that most clusters have.
func TestNodeExporter(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; run without -short")
	}
	binary, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		t.Skip("prometheus-node-exporter is not installed; .ci/install installs it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	cmd := exec.Command(binary, "--web.listen-address="+address, "--collector.disable-defaults", "--collector.loadavg", "--collector.meminfo", "--collector.uname")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	rc := newReceiver(t)
	newSetup(t, header+remoteWrite(rc)+scrapes(job("node", address))).start(t)
	waitFor(t, "samples arrive", func() bool {
		_, memory := rc.series(t, "node_memory_MemTotal_bytes")
		return len(memory) > 2 && memory[0].v > 1<<20
	})
	lset, _ := rc.series(t, "node_uname_info")
	require.Equal(t, "Linux", lset.Get("sysname"))
	_, scraped := rc.series(t, "scrape_samples_scraped")
	require.Greater(t, scraped[len(scraped)-1].v, 50.0)
}
