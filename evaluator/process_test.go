package evaluator_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/test/program"
)

// startPrometheus runs a Prometheus server of the version that the product is
// built from, over a storage with the given series, and returns its URL.
func startPrometheus(t testing.TB, series []promql.Series) string {
	t.Helper()
	binary := program.Prometheus().Build(t)
	dir := t.TempDir()
	db, err := tsdb.Open(dir, promslog.NewNopLogger(), nil, tsdb.DefaultOptions(), nil)
	require.NoError(t, err)
	promserver.Append(t, db, series)
	require.NoError(t, db.Close())
	cmd := exec.Command(binary,
		"--config.file="+emptyConfig(t), "--storage.tsdb.path="+dir, "--web.listen-address=127.0.0.1:0",
		"--enable-feature=promql-experimental-functions,promql-extended-range-selectors,promql-duration-expr",
	)
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // It was killed.
	})
	url := "http://" + listening(t, out)
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/-/ready")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 2*time.Minute, 5*time.Millisecond, "prometheus does not get ready")
	return url
}

var listeningAddress = regexp.MustCompile(`msg="Listening on" .*address=(\S+)`)

// listening reads a log up to the address.
func listening(t testing.TB, log io.Reader) string {
	t.Helper()
	lines := bufio.NewScanner(log)
	for text := ""; lines.Scan(); text += lines.Text() + "\n" {
		if m := listeningAddress.FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return m[1]
		}
		require.Less(t, len(text), 1<<20)
	}
	require.FailNow(t, "prometheus does not listen", fmt.Sprint(lines.Err()))
	return ""
}

func emptyConfig(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(path, []byte("global: {}\n"), 0o600))
	return path
}
