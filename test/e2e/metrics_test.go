package e2e_test

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tocsin-rules/tocsin/deploy"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// Metrics that no program of ours has at /metrics: the scrape loop, rules and
// the node exporter make them, or there is nothing to count yet.
var elsewhere = []string{
	"up", "scrape_samples_post_metric_relabeling", "scrape_duration_seconds", "ALERTS",
	"node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
	"tocsin_ruler_rejected_samples_total",
}

// requireMetricsExist compares what dashboards and rules about Tocsin read with
// what the running pods, and the server that stores their samples, export.
func (in *installation) requireMetricsExist() {
	in.t.Helper()
	exported := map[string]bool{}
	readMetrics(in.t, in.backend+"/metrics", exported)
	pods, err := in.cluster.Admin().CoreV1().Pods("gmp-system").List(in.t.Context(), metav1.ListOptions{})
	require.NoError(in.t, err)
	for _, p := range pods.Items {
		for _, port := range p.Spec.Containers[0].Ports {
			if port.Name == "metrics" {
				readMetrics(in.t, "http://"+podAddress(p.Status.PodIP, port.ContainerPort)+"/metrics", exported)
			}
		}
	}
	for expr, where := range shippedExpressions(in.t) {
		parsed, err := parser.ParseExpr(expr)
		require.NoError(in.t, err)
		parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
			if s, ok := node.(*parser.VectorSelector); ok && !slices.Contains(elsewhere, s.Name) && !strings.Contains(s.Name, ":") {
				require.True(in.t, exported[s.Name], "%s reads %s, which nothing exports", where, s.Name)
			}
			return nil
		})
	}
}

// readMetrics adds the names of all series that a process exports.
func readMetrics(t *testing.T, url string, names map[string]bool) {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode, url)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := lines.Text(); !strings.HasPrefix(line, "#") {
			names[line[:strings.IndexAny(line+" ", "{ ")]] = true
		}
	}
	require.NoError(t, lines.Err())
}

// shippedExpressions are those of all dashboards and rules, with where they
// are.
func shippedExpressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	eachFile(t, deploy.Dashboards, "dashboards", func(name string, content []byte) {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		require.NoError(t, json.Unmarshal(content, &d))
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				all[strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")] = name + ": " + p.Title
			}
		}
	})
	eachFile(t, deploy.Rules, "rules", func(name string, content []byte) {
		groups, errs := rule.Parse(name, content, rule.Options{})
		require.Empty(t, errs)
		for _, g := range groups {
			for _, r := range g.Rules {
				all[r.Expr.String()] = name + ": " + r.String()
			}
		}
	})
	require.NotEmpty(t, all)
	return all
}

func eachFile(t *testing.T, files fs.FS, root string, visit func(name string, content []byte)) {
	t.Helper()
	require.NoError(t, fs.WalkDir(files, root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		require.NoError(t, err)
		visit(path.Base(name), content)
		return nil
	}))
}
