package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/test/program"
)

// counter is a target whose series seq tells how often it was scraped.
type counter struct {
	*httptest.Server
	n atomic.Int64
}

func newCounter(t *testing.T) *counter {
	c := &counter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# TYPE seq counter\nseq %d\n", c.n.Add(1))
	}))
	t.Cleanup(c.Close)
	return c
}

// wait waits for n further scrapes.
func (c *counter) wait(t *testing.T, n int64) {
	t.Helper()
	until := c.n.Load() + n
	eventually(t, func() error {
		if have := c.n.Load(); have < until {
			return fmt.Errorf("scraped %d times of %d", have, until)
		}
		return nil
	})
}

// TestCollectorLosesNothing takes all receivers away, kills the collector
// meanwhile, and lets all come back: Debian's Prometheus, which knows only
// remote write 1.0, the one of our version, which knows 2.0, and our own store.
func TestCollectorLosesNothing(t *testing.T) {
	t.Parallel()
	ports := freePorts(t)
	receivers := startWriteReceivers(t, ports)
	target := newCounter(t)
	dir := t.TempDir()
	config := "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nremote_write:\n"
	for _, r := range receivers {
		config += fmt.Sprintf("- {url: 'http://%s/api/v1/write', queue_config: {batch_send_deadline: 200ms, max_backoff: 500ms}}\n", r.address)
	}
	config += fmt.Sprintf("scrape_configs: [{job_name: c, static_configs: [{targets: ['%s']}]}]\n", strings.TrimPrefix(target.URL, "http://"))
	file := filepath.Join(dir, "collector.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	tocsin, err := binary()
	require.NoError(t, err)
	address := local(ports + 5)
	collector := startServer(t, tocsin, address, "collector", "--config.file="+file, "--storage.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)

	waitSeq(t, receivers, func(values []int64) bool { return len(values) > 3 })
	for _, r := range receivers {
		r.stop(syscall.SIGKILL)
	}
	target.wait(t, 6)
	// What is answered, and so counted, may not be in the log yet.
	before := target.n.Load()
	collector.stop(syscall.SIGKILL)
	after := target.n.Load()
	collector.start()
	collector.waitReady()
	target.wait(t, 6)
	last := target.n.Load()
	for _, r := range receivers {
		r.start()
	}
	for _, values := range waitSeq(t, receivers, func(values []int64) bool { return len(values) > 0 && values[len(values)-1] > last }) {
		for i := 1; i < len(values); i++ {
			require.Greater(t, values[i], values[i-1], "in order")
			for n := values[i-1] + 1; n < values[i]; n++ {
				require.True(t, before <= n && n <= after, "scrape %d is missing in %v, the kill was between %d and %d", n, values, before, after)
			}
		}
	}
}

func startWriteReceivers(t *testing.T, ports int) []*server {
	t.Helper()
	tocsin, err := binary()
	require.NoError(t, err)
	prometheus := func(binary string, port int) *server {
		dir := t.TempDir()
		file := filepath.Join(dir, "prometheus.yml")
		require.NoError(t, os.WriteFile(file, []byte("global: {scrape_interval: 5s}\n"), 0o600))
		return startServer(t, binary, local(port), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
			"--web.listen-address="+local(port), "--web.enable-remote-write-receiver")
	}
	return []*server{
		prometheus("prometheus", ports),
		prometheus(program.Prometheus().Build(t), ports+1),
		startServer(t, tocsin, local(ports+2), "backend", "--storage.path="+t.TempDir(),
			"--web.listen-address="+local(ports+2), "--grpc.listen-address="+local(ports+3)),
	}
}

// waitSeq waits until every receiver has what it should of the counter and
// returns it.
func waitSeq(t *testing.T, receivers []*server, enough func(values []int64) bool) (all [][]int64) {
	t.Helper()
	for _, r := range receivers {
		api := prometheusAPI(t, "http://"+r.address)
		var values []int64
		eventually(t, func() error {
			v, _, _, err := api.Query(t.Context(), "seq[1h]", time.Now())
			if err != nil {
				return err
			}
			values = nil
			for _, series := range matrixOf(v) {
				for _, p := range series.Values {
					if !math.IsNaN(float64(p.Value)) {
						values = append(values, int64(p.Value))
					}
				}
			}
			if !enough(values) {
				return fmt.Errorf("%s has %v", r.path, values)
			}
			return nil
		})
		all = append(all, values)
	}
	return all
}
