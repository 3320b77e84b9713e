package up

import (
	"encoding/base64"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/proto/transport"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/up/pki"
)

func openTestDir(t *testing.T) *dataDir {
	t.Helper()
	d, err := openDataDir(Options{DataDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func prepare(t *testing.T, d *dataDir) {
	t.Helper()
	r, err := defaults().parse()
	require.NoError(t, err)
	require.NoError(t, d.prepare(layout{request: r}))
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func TestPreparingKeepsSecretsAndReplacesRules(t *testing.T) {
	t.Parallel()
	d := openTestDir(t)
	prepare(t, d)
	certificate, key := read(t, d.cert()), read(t, d.gossipKey())
	stray := filepath.Join(d.rules(), "stray.yml")
	require.NoError(t, os.WriteFile(stray, nil, 0o600))
	prepare(t, d)
	require.Equal(t, certificate, read(t, d.cert()))
	require.Equal(t, key, read(t, d.gossipKey()))
	require.NoFileExists(t, stray)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	require.NoError(t, err)
	require.Len(t, raw, gossipKeyBytes)
}

func TestRuleEvaluatorsAcceptTheirConfiguration(t *testing.T) {
	t.Parallel()
	for name, backends := range map[string][]string{
		"embedded stores":           nil,
		"one server for everything": {"http://127.0.0.1:9090"},
		"a server for each cluster": {"eu=http://127.0.0.1:9090", "us=http://me:pass@127.0.0.1:9091/prom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openTestDir(t)
			o := defaults()
			o.Backends = backends
			r, err := o.parse()
			require.NoError(t, err)
			require.NoError(t, d.prepare(layout{request: r}))
			_, err = ruler.LoadConfig(d.config("evaluator.yml"))
			require.NoError(t, err)
		})
	}
}

func TestEverythingPreparedIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	d := openTestDir(t)
	prepare(t, d)
	for _, dir := range []string{"pki", "config"} {
		err := filepath.WalkDir(d.path(dir), func(path string, e fs.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := e.Info()
			require.NoError(t, err)
			require.Zero(t, info.Mode().Perm()&0o077, path)
			require.False(t, strings.HasPrefix(e.Name(), ".new-"), path)
			return nil
		})
		require.NoError(t, err)
	}
	info, err := os.Stat(d.gossipKey())
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestADamagedGossipKeyIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gossip.key")
	require.NoError(t, os.WriteFile(path, []byte("c2hvcnQ=\n"), 0o600))
	require.NoError(t, ensureGossipKey(path))
	require.NotEqual(t, "c2hvcnQ=\n", read(t, path))
}

func TestTheCertificateServesOurTransport(t *testing.T) {
	t.Parallel()
	d := openTestDir(t)
	require.NoError(t, ensureCertificate(d.dirs))
	c := transport.Config{CertFile: d.cert(), KeyFile: d.key(), CAFile: d.ca()}
	require.NoError(t, c.Validate("127.0.0.1:1"))
	require.NoError(t, checkCertificate(d.dirs, time.Now().Add(pki.Life-time.Hour)))
	require.Error(t, checkCertificate(d.dirs, time.Now().Add(pki.Life+time.Hour)), "it expires")
}

func TestACertificateIsRenewedWhenItMustBe(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, d *dataDir){
		"a key that is not its own": func(t *testing.T, d *dataDir) {
			other, err := pki.New(time.Now())
			require.NoError(t, err)
			require.NoError(t, writeFile(d.key(), other.Key))
		},
		"another authority": func(t *testing.T, d *dataDir) {
			other, err := pki.New(time.Now())
			require.NoError(t, err)
			require.NoError(t, writeFile(d.ca(), other.CA))
		},
		"a missing file": func(t *testing.T, d *dataDir) { require.NoError(t, os.Remove(d.ca())) },
		"it expires soon": func(t *testing.T, d *dataDir) {
			old, err := pki.New(time.Now().Add(renewBefore/2-pki.Life), net.IPv4(127, 0, 0, 1))
			require.NoError(t, err)
			require.NoError(t, writeFile(d.ca(), old.CA))
			require.NoError(t, writeFile(d.cert(), old.Cert))
			require.NoError(t, writeFile(d.key(), old.Key))
			require.NoError(t, checkCertificate(d.dirs, time.Now()), "it is still valid")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openTestDir(t)
			require.NoError(t, ensureCertificate(d.dirs))
			damage(t, d)
			require.Error(t, checkCertificate(d.dirs, time.Now().Add(renewBefore)))
			require.NoError(t, ensureCertificate(d.dirs))
			require.NoError(t, checkCertificate(d.dirs, time.Now().Add(renewBefore)))
		})
	}
}

func TestAnEphemeralDirectoryIsRemoved(t *testing.T) {
	t.Parallel()
	d, err := openDataDir(Options{Ephemeral: true})
	require.NoError(t, err)
	prepare(t, d)
	require.NoError(t, d.Close())
	require.NoDirExists(t, string(d.dirs))
}
