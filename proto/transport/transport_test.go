package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	a.key = newKey(t)
	a.write("ca.pem", a.cert, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// issue makes a certificate and a key for a process.
func (a *authority) issue() Config {
	a.t.Helper()
	key := newKey(a.t)
	a.write("cert.pem", &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	a.file("key.pem", "PRIVATE KEY", der)
	return Config{CertFile: a.path("cert.pem"), KeyFile: a.path("key.pem"), CAFile: a.path("ca.pem")}
}

func (a *authority) write(name string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	a.file(name, "CERTIFICATE", der)
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) file(name, kind string, der []byte) {
	a.t.Helper()
	require.NoError(a.t, os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// serve answers health checks and returns the address.
func serve(t *testing.T, cfg Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, cfg.Validate(l.Addr().String()))
	srv := grpc.NewServer(grpc.Creds(cfg.Server()))
	healthv1.RegisterHealthServer(srv, health.NewServer())
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

func call(t *testing.T, address string, cfg Config) error {
	t.Helper()
	creds, err := cfg.Client()
	require.NoError(t, err)
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

func TestBothSidesVerifyEachOther(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t).issue(), newAuthority(t).issue()
	address := serve(t, ours)
	require.NoError(t, call(t, address, ours))
	require.Error(t, call(t, address, theirs), "another authority's server")
	require.Error(t, call(t, address, Config{CertFile: theirs.CertFile, KeyFile: theirs.KeyFile, CAFile: ours.CAFile}), "another authority's client")
	require.Error(t, call(t, address, Config{}), "plaintext")
	require.NoError(t, call(t, serve(t, Config{}), Config{}), "plaintext on loopback")
}

func TestRotatedFilesAreUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfg := a.issue()
	address := serve(t, cfg)
	require.NoError(t, call(t, address, cfg))
	a.key = newKey(t)
	a.write("ca.pem", a.cert, a.key)
	a.issue()
	require.NoError(t, call(t, address, cfg))
}

func TestFaultsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, Config{}.Validate("0.0.0.0:1"), `"0.0.0.0:1" is not a loopback address`)
	require.ErrorContains(t, Config{}.Validate("tocsin.example:1"), "is not a loopback address")
	require.NoError(t, Config{}.Validate("localhost:1"))
	require.NoError(t, Config{}.Validate("[::1]:1"))
	err := Config{CAFile: "x"}.Validate("127.0.0.1:1")
	require.ErrorContains(t, err, "needs a certificate file")
	require.ErrorContains(t, err, "needs a key file")
	cfg := newAuthority(t).issue()
	cfg.CAFile = cfg.KeyFile
	require.ErrorContains(t, cfg.Validate("127.0.0.1:1"), "no certificate in it")
}
