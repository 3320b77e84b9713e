package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
	"github.com/tocsin-rules/tocsin/test/thanos"
)

// startTocsin runs one of tocsin's own processes until the test ends and waits
// until it is ready.
func startTocsin(t *testing.T, address string, args ...string) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	startServer(t, path, address, append(args, "--web.listen-address="+address)...)
}

// startMember runs one rule-evaluator. The configuration lacks the rule files,
// which have the given content.
func startMember(t *testing.T, ports int, rules, config string) (base string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "evaluator.yml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules), 0o600))
	require.NoError(t, os.WriteFile(file, []byte("rule_files: ["+filepath.Join(dir, "rules.yml")+"]\n"+config), 0o600))
	address := local(ports)
	startTocsin(t, address, "rule-evaluator", "--config.file="+file, "--cluster.name=member-0",
		"--cluster.listen-address="+local(ports+1), "--grpc.listen-address="+local(ports+2))
	return "http://" + address
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// writeTo stores series by remote write.
func writeTo(t *testing.T, target string, series []promql.Series) {
	t.Helper()
	if len(series) == 0 {
		return
	}
	var samples []remotewrite.Sample
	for _, s := range series {
		for _, p := range s.Floats {
			samples = append(samples, remotewrite.Sample{Labels: s.Metric, T: p.T, F: p.F})
		}
	}
	body, err := remotewrite.Encode(samples, remoteapi.WriteV1MessageType)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 2, resp.StatusCode/100, "%s", text)
}

// fleetData are counters and gauges of two clusters, for the ten minutes
// before end. No sample is at the edge of a range, which Prometheus 2 includes
// and Prometheus 3 does not, and no counter is reset, after which Thanos
// extrapolates in another way.
func fleetData(end time.Time) []promql.Series {
	var all []promql.Series
	for c, cluster := range []string{"east", "west"} {
		for pod := range 5 {
			ls := labels.FromStrings("cluster", cluster, "job", fmt.Sprint("job-", pod%2), "pod", fmt.Sprint("pod-", pod))
			requests := promql.Series{Metric: labels.NewBuilder(ls).Set(labels.MetricName, "requests_total").Labels()}
			memory := promql.Series{Metric: labels.NewBuilder(ls).Set(labels.MetricName, "memory_bytes").Labels()}
			for i := range 40 {
				ts := end.Add(time.Duration(i-39)*15*time.Second - 1500*time.Millisecond).UnixMilli()
				requests.Floats = append(requests.Floats, promql.FPoint{T: ts, F: float64(i * (pod + 1) * (c + 2) * 7)})
				memory.Floats = append(memory.Floats, promql.FPoint{T: ts, F: float64(1000 + (i*31+pod*17+c*5)%97)})
			}
			all = append(all, requests, memory)
		}
	}
	return all
}

// of are the series of one cluster, without the label unless it is kept.
func of(cluster string, series []promql.Series, kept bool) []promql.Series {
	var own []promql.Series
	for _, s := range series {
		if s.Metric.Get("cluster") != cluster {
			continue
		}
		if !kept {
			s.Metric = labels.NewBuilder(s.Metric).Del("cluster").Labels()
		}
		own = append(own, s)
	}
	return own
}

// kinds start backends of one kind, with the series that they hold, and return
// their configuration. Recorded series without a cluster go to a backend of
// their own, except where one holds everything.
var kinds = map[string]func(t *testing.T, ports int, series []promql.Series) (config string){
	"prometheus": func(t *testing.T, ports int, series []promql.Series) string {
		var config strings.Builder
		for i, cluster := range []string{"east", "west", ""} {
			base := startPrometheus(t, ports+i)
			writeTo(t, base+"/api/v1/write", of(cluster, series, false))
			fmt.Fprintf(&config, "- {name: %q, partition_labels: {cluster: %q}, virtual: true, url: %q}\n", "b"+cluster, cluster, base)
		}
		return config.String()
	},
	"embedded": func(t *testing.T, ports int, series []promql.Series) string {
		var config strings.Builder
		for i, cluster := range []string{"east", "west", ""} {
			address, grpc := local(ports+2*i), local(ports+2*i+1)
			partition := "--storage.external-label=cluster=" + cluster
			if cluster == "" {
				partition = "--storage.absent-label=cluster"
			}
			startTocsin(t, address, "backend", "--storage.path="+t.TempDir(), "--grpc.listen-address="+grpc, partition)
			writeTo(t, "http://"+address+"/api/v1/write", of(cluster, series, true))
			fmt.Fprintf(&config, "- {name: %q, partition_labels: {cluster: %q}, url: %q, grpc: {address: %q}}\n", "b"+cluster, cluster, "http://"+address, grpc)
		}
		return config.String()
	},
	"thanos": func(t *testing.T, ports int, series []promql.Series) string {
		var config strings.Builder
		for _, cluster := range []string{"east", "west"} {
			store := thanos.StartReceiver(t, labels.Label{Name: "cluster", Value: cluster}, "")
			store.Write(t, of(cluster, series, false))
			querier := thanos.StartQuerier(t, []string{store.GRPC})
			fmt.Fprintf(&config, "- {name: %s, partition_labels: {cluster: %s}, url: %q, thanos: {address: %q}, remote_write: {url: %q}}\n",
				cluster, cluster, "http://"+querier.HTTP, querier.GRPC, store.WriteURL)
		}
		fmt.Fprintf(&config, "- {name: global, partition_labels: {cluster: ''}, url: %q}\n", startPrometheus(t, ports))
		return config.String()
	},
	"victoria-metrics": func(t *testing.T, ports int, series []promql.Series) string {
		address := local(ports)
		startServer(t, "victoria-metrics", address, "-httpListenAddr="+address, "-storageDataPath="+t.TempDir(), "-search.latencyOffset=0s", "-loggerLevel=WARN")
		writeTo(t, "http://"+address+"/api/v1/write", series)
		eventually(t, func() error { // It shows samples a moment later.
			v, _, _, err := prometheusAPI(t, "http://"+address).Query(t.Context(), "memory_bytes", time.Unix(series[0].Floats[39].T/1000+1, 0))
			if err == nil && len(v.(model.Vector)) != len(series)/2 {
				err = fmt.Errorf("series are not there yet: %s", v)
			}
			return err
		})
		return fmt.Sprintf("- {name: all, url: %q, no_remote_read: true}\n", "http://"+address+"?nocache=1")
	},
}

const backendRules = `
groups:
- name: fleet
  interval: 5s
  rules:
  - record: cluster:memory_bytes:sum
    expr: sum by (cluster) (memory_bytes)
  - record: fleet:memory_bytes:sum
    expr: sum(cluster:memory_bytes:sum)
`

var backendQueries = []string{
	`memory_bytes`, `sum(memory_bytes)`, `avg by (job) (memory_bytes)`, `max without (pod) (memory_bytes)`,
	`sum by (cluster) (memory_bytes) / on (cluster) count by (cluster) (memory_bytes)`,
	`memory_bytes{cluster="east"} > on (pod) group_left () memory_bytes{cluster="west"}`,
	`topk(3, memory_bytes)`, `quantile(0.9, memory_bytes)`, `count_values("v", memory_bytes)`, `stddev(memory_bytes)`,
	`sum(memory_bytes{cluster=~"e.*"}) or vector(0)`, `absent(nothing)`, `scalar(sum(memory_bytes))`,
}

// overTime are functions of ranges, which MetricsQL neither extrapolates nor
// names in the same way; the last one is answered from raw series.
var overTime = []string{
	`max_over_time(memory_bytes[5m])`, `sum(rate(requests_total[5m]))`, `sum by (job, cluster) (increase(requests_total[2m]))`, `max_over_time(sum(rate(requests_total[1m]))[5m:1m])`,
	`quantile_over_time(scalar(sum(memory_bytes)) * 0 + 0.5, memory_bytes[5m])`,
	`max_over_time(quantile_over_time(scalar(sum(memory_bytes)) * 0 + 0.5, memory_bytes[5m])[1s:1s])`,
}

// TestEveryKindOfBackend asks a rule-evaluator what it asks one Prometheus that
// holds everything, at instants and over ranges, and has rules recorded.
func TestEveryKindOfBackend(t *testing.T) {
	t.Parallel()
	for kind, start := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ports := freePorts(t)
			end := time.Now().Truncate(time.Second)
			series := fleetData(end)
			whole := startPrometheus(t, ports)
			writeTo(t, whole+"/api/v1/write", series)
			member := startMember(t, ports+1, backendRules, "global: {evaluation_interval: 5s}\nbackends:\n"+start(t, ports+10, series))
			queries := slices.Clone(backendQueries)
			if kind != "victoria-metrics" {
				queries = append(queries, overTime...)
			}
			for _, query := range queries {
				requireSameInstant(t, prometheusAPI(t, whole), prometheusAPI(t, member), query, end)
				requireSameRange(t, prometheusAPI(t, whole), prometheusAPI(t, member), query, end)
			}
			eventually(t, func() error {
				v, _, _, err := prometheusAPI(t, member).Query(t.Context(), `fleet:memory_bytes:sum == sum(cluster:memory_bytes:sum)`, time.Now())
				if err == nil && len(v.(model.Vector)) != 1 {
					err = fmt.Errorf("recorded series: %s", v)
				}
				return err
			})
		})
	}
}

func requireSameInstant(t *testing.T, whole, parts promv1.API, query string, at time.Time) {
	t.Helper()
	want, _, _, err := whole.Query(t.Context(), query, at)
	require.NoError(t, err, query)
	got, warnings, _, err := parts.Query(t.Context(), query, at)
	require.NoError(t, err, query)
	require.Empty(t, warnings, query)
	requireSame(t, matrixOf(want), matrixOf(got), query)
}

func requireSameRange(t *testing.T, whole, parts promv1.API, query string, end time.Time) {
	t.Helper()
	r := promv1.Range{Start: end.Add(-5 * time.Minute), End: end, Step: 30 * time.Second}
	want, _, _, err := whole.QueryRange(t.Context(), query, r)
	require.NoError(t, err, query)
	got, warnings, _, err := parts.QueryRange(t.Context(), query, r)
	require.NoError(t, err, query)
	require.Empty(t, warnings, query)
	requireSame(t, matrixOf(want), matrixOf(got), query)
}

// matrixOf is a value as a matrix.
func matrixOf(v model.Value) model.Matrix {
	var m model.Matrix
	switch v := v.(type) {
	case model.Matrix:
		m = v
	case model.Vector:
		for _, s := range v {
			m = append(m, &model.SampleStream{Metric: s.Metric, Values: []model.SamplePair{{Timestamp: s.Timestamp, Value: s.Value}}})
		}
	case *model.Scalar:
		m = model.Matrix{{Values: []model.SamplePair{{Timestamp: v.Timestamp, Value: v.Value}}}}
	}
	slices.SortFunc(m, func(a, b *model.SampleStream) int { return strings.Compare(a.Metric.String(), b.Metric.String()) })
	return m
}

// requireSame permits what another order of summation changes.
func requireSame(t *testing.T, want, got model.Matrix, query string) {
	t.Helper()
	require.Len(t, got, len(want), "%s:\n%s\ninstead of\n%s", query, got, want)
	for i := range want {
		require.True(t, want[i].Metric.Equal(got[i].Metric), "%s: %s instead of %s", query, got[i].Metric, want[i].Metric)
		require.Len(t, got[i].Values, len(want[i].Values), "%s: %s instead of %s", query, got[i], want[i])
		for j, w := range want[i].Values {
			g := got[i].Values[j]
			require.Equal(t, w.Timestamp, g.Timestamp, query)
			require.InDelta(t, float64(w.Value), float64(g.Value), 1e-9*math.Max(1, math.Abs(float64(w.Value))), "%s: %s", query, want[i].Metric)
		}
	}
}
