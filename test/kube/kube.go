// Package kube starts a real Kubernetes control plane for tests: etcd and
// kube-apiserver, with RBAC, on free ports of the loopback interface. Nothing
// runs pods, and no controller but those of the API server acts.
//
// The programs are built by test/program, once; that takes 13 minutes of CPU
// time. Methods fail the test that started the
// cluster; they must be called from its goroutine.
package kube

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tocsin-rules/tocsin/test/program"
)

// patience bounds waiting for a server on a loaded machine.
const patience = 3 * time.Minute

// Cluster is a running control plane. Make one with Start.
type Cluster struct {
	t          testing.TB
	dir        string
	binary     string // of the API server
	pki        pki
	adminToken string
	etcdPort   int
	apiPort    int
	apiserver  *process
}

// Start starts a cluster that ends with the test. With -short the test is
// skipped.
func Start(t testing.TB) *Cluster {
	t.Helper()
	etcd := program.Etcd().Build(t)
	c := &Cluster{t: t, dir: t.TempDir(), binary: program.KubeAPIServer().Build(t), adminToken: rand.Text()}
	var err error
	c.pki, err = newPKI(c.dir)
	require.NoError(t, err)
	ports := freePorts(t, 3)
	c.etcdPort, c.apiPort = ports[0], ports[1]
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	client := fmt.Sprintf("http://127.0.0.1:%d", c.etcdPort)
	c.spawn(etcd, "etcd.log", "--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	require.NoError(t, os.WriteFile(c.path("tokens.csv"), []byte(c.adminToken+",admin,admin,system:masters\n"), 0o600))
	require.NoError(t, os.WriteFile(c.path("audit-policy.yaml"), []byte(auditPolicy), 0o600))
	c.StartAPIServer()
	return c
}

// freePorts are ports that nobody listens on.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { _ = l.Close() }() // when all are found, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// StartAPIServer starts the API server, again after StopAPIServer: at the same
// address, with the same objects.
func (c *Cluster) StartAPIServer() {
	c.t.Helper()
	c.apiserver = c.spawn(c.binary, "kube-apiserver.log",
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.etcdPort),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.apiPort),
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=Node,RBAC", "--token-auth-file="+c.path("tokens.csv"),
		"--client-ca-file="+c.pki.ca, "--tls-cert-file="+c.pki.cert, "--tls-private-key-file="+c.pki.key,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file="+c.pki.accounts, "--service-account-key-file="+c.pki.accounts,
		"--audit-policy-file="+c.path("audit-policy.yaml"), "--audit-log-path="+c.path("audit.log"),
		"--cert-dir="+c.dir)
	c.awaitReady()
}

// StopAPIServer ends the API server, as if its machine had failed.
func (c *Cluster) StopAPIServer() { c.apiserver.kill() }

func (c *Cluster) awaitReady() {
	c.t.Helper()
	client := c.Admin()
	deadline := time.After(patience)
	ticks := time.NewTicker(100 * time.Millisecond)
	defer ticks.Stop()
	var err error
	for {
		select {
		case <-ticks.C:
			if _, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background()); err == nil {
				return
			}
		case <-c.apiserver.ended:
			c.t.Fatalf("the API server ended:\n%s", c.apiserver.log())
		case <-deadline:
			c.t.Fatalf("the API server is not ready: %v\n%s", err, c.apiserver.log())
		}
	}
}

// AdminConfig is how to reach the API server with all rights.
func (c *Cluster) AdminConfig() *rest.Config {
	return &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", c.apiPort),
		BearerToken:     c.adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAFile: c.pki.ca},
		QPS:             1000,
		Burst:           1000,
	}
}

// Admin is a client with all rights.
func (c *Cluster) Admin() kubernetes.Interface {
	client, err := kubernetes.NewForConfig(c.AdminConfig())
	require.NoError(c.t, err)
	return client
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// process is a server of the cluster.
type process struct {
	cmd     *exec.Cmd
	logFile string
	ended   chan struct{}
}

// spawn starts a program that ends with the test.
func (c *Cluster) spawn(binary, log string, args ...string) *process {
	c.t.Helper()
	p := &process{cmd: exec.Command(binary, args...), logFile: c.path(log), ended: make(chan struct{})}
	out, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	require.NoError(c.t, p.cmd.Start())
	go func() {
		// However it ends, those who wait look at its log.
		_ = p.cmd.Wait()
		_ = out.Close()
		close(p.ended)
	}()
	c.t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// log is the end of what the process has printed.
func (p *process) log() string {
	const most = 8 << 10
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
