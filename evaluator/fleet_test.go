package evaluator_test

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
)

// partitions of every test fleet: the series of the last one lack the label.
var partitions = []struct{ name, cluster string }{{"east", "east"}, {"west", "west"}, {"global", ""}}

// mode is how a fleet is reached.
type mode string

const (
	overHTTP    mode = "http"
	overVirtual mode = "virtual"
	overNative  mode = "native"
)

var modes = []mode{overHTTP, overVirtual, overNative}

// fleet is the same data twice: cut into partitions behind an evaluator, and
// whole in one storage under Prometheus' engine.
type fleet struct {
	evaluator *evaluator.Evaluator
	registry  *prometheus.Registry
	engine    *promql.Engine
	whole     *teststorage.TestStorage
}

// newFleet distributes series by their cluster label.
func newFleet(t testing.TB, m mode, series []promql.Series) *fleet {
	t.Helper()
	f := &fleet{engine: promserver.Engine(), whole: promserver.Storage(t), registry: prometheus.NewRegistry()}
	promserver.Append(t, f.whole, series)
	cfg := evaluator.DefaultConfig()
	for _, p := range partitions {
		own := slices.DeleteFunc(slices.Clone(series), func(s promql.Series) bool { return s.Metric.Get("cluster") != p.cluster })
		cfg.Backends = append(cfg.Backends, startBackend(t, m, p.name, p.cluster, own))
	}
	var err error
	f.evaluator, err = evaluator.New(cfg, promslog.NewNopLogger(), f.registry)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.evaluator.Close()) })
	return f
}

func startBackend(t testing.TB, m mode, name, cluster string, series []promql.Series) evaluator.BackendConfig {
	t.Helper()
	db := promserver.Storage(t)
	external := labels.EmptyLabels()
	if m == overVirtual {
		external = labels.FromStrings("cluster", cluster).WithoutEmpty()
		for i, s := range series {
			series[i].Metric = labels.NewBuilder(s.Metric).Del("cluster").Labels()
		}
	}
	promserver.Append(t, db, series)
	cfg := backendConfig(t, name, cluster, promserver.Start(t, db, external))
	cfg.Virtual = m == overVirtual
	if m == overNative {
		cfg.GRPC = &evaluator.GRPCConfig{Address: startPushdown(t, db)}
	}
	return cfg
}

func backendConfig(t testing.TB, name, cluster, base string) evaluator.BackendConfig {
	t.Helper()
	u, err := url.Parse(base)
	require.NoError(t, err)
	return evaluator.BackendConfig{
		Name:             name,
		PartitionLabels:  map[string]string{"cluster": cluster},
		URL:              config.URL{URL: u},
		HTTPClientConfig: config.DefaultHTTPClientConfig,
	}
}

func startPushdown(t testing.TB, db *teststorage.TestStorage) (address string) {
	t.Helper()
	s, err := pushdown.New(pushdown.Config{ListenAddress: "127.0.0.1:0"}, pushdown.Deps{
		Engine: promserver.Engine(), Queryable: db, Ready: func() error { return nil },
		Registry: prometheus.NewRegistry(), Logger: promslog.NewNopLogger(),
	})
	require.NoError(t, err)
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s.Addr().String()
}

// expected is what Prometheus says about the whole.
func (f *fleet) expected(t testing.TB, expr string, ts time.Time) (promql.Vector, error) {
	t.Helper()
	q, err := f.engine.NewInstantQuery(context.Background(), f.whole, nil, expr, ts)
	require.NoError(t, err)
	defer q.Close()
	res := q.Exec(context.Background())
	if res.Err != nil {
		return nil, res.Err
	}
	if s, ok := res.Value.(promql.Scalar); ok {
		return promql.Vector{{T: s.T, F: s.V}}, nil
	}
	return res.Value.(promql.Vector), nil
}

// compare evaluates all expressions in one batch and returns what differs.
func (f *fleet) compare(t testing.TB, exprs []string, ts time.Time) (differences []string) {
	t.Helper()
	return f.compareQueries(t, parsed(t, exprs), ts)
}

func parsed(t testing.TB, exprs []string) []evaluator.Query {
	t.Helper()
	queries := make([]evaluator.Query, len(exprs))
	for i, e := range exprs {
		queries[i] = evaluator.Query{Name: e, Expr: mustParse(t, e)}
	}
	return queries
}

func (f *fleet) compareQueries(t testing.TB, queries []evaluator.Query, ts time.Time) (differences []string) {
	t.Helper()
	for i, got := range f.evaluator.Evaluate(context.Background(), ts, queries) {
		text := queries[i].Expr.String()
		want, err := f.expected(t, text, ts)
		if d := difference(text, want, err, got); d != "" {
			differences = append(differences, fmt.Sprintf("%s\n%s%s", text, d, f.evaluator.Plan(ts, queries[i:i+1])))
		}
	}
	return differences
}

func difference(expr string, want promql.Vector, wantErr error, got evaluator.Result) string {
	switch {
	case wantErr != nil && got.Err != nil:
		return ""
	case wantErr != nil && isClash(expr, wantErr):
		return ""
	case wantErr != nil:
		return fmt.Sprintf("want error %s, got %d samples\n", wantErr, len(got.Vector))
	case got.Err != nil:
		return fmt.Sprintf("want %d samples, got error %s\n", len(want), got.Err)
	}
	var b strings.Builder
	rest := slices.Clone(got.Vector)
	for _, w := range want {
		i := slices.IndexFunc(rest, func(s promql.Sample) bool { return labels.Equal(s.Metric, w.Metric) })
		switch {
		case i < 0:
			fmt.Fprintf(&b, "missing %s\n", w)
			continue
		case !equalSamples(w, rest[i]):
			fmt.Fprintf(&b, "want %s, got %s\n", w, rest[i])
		}
		rest = slices.Delete(rest, i, i+1)
	}
	for _, r := range rest {
		fmt.Fprintf(&b, "surplus %s\n", r)
	}
	return b.String()
}

// isClash recognises the one known difference, which package plan describes:
// Prometheus reports a clash in one operand of a join that cannot have a
// partner, and a backend that lacks the partners does not.
func isClash(expr string, err error) bool {
	joins := false
	for _, operator := range []string{" + ", " - ", " * ", " / ", " > ", " == ", " < ", " and ", " unless ", " or "} {
		joins = joins || strings.Contains(expr, operator)
	}
	return joins && (strings.Contains(err.Error(), "many-to-many matching not allowed") || strings.Contains(err.Error(), "same labelset"))
}

func equalSamples(a, b promql.Sample) bool {
	if a.T != b.T || (a.H == nil) != (b.H == nil) {
		return false
	}
	if a.H == nil {
		return almostEqual(a.F, b.F)
	}
	return almostEqualHistograms(a.H, b.H)
}

func almostEqualHistograms(a, b *histogram.FloatHistogram) bool {
	if !almostEqual(a.Count, b.Count) || !almostEqual(a.Sum, b.Sum) || !almostEqual(a.ZeroCount, b.ZeroCount) {
		return false
	}
	ai, bi := a.Copy().Compact(0).AllBucketIterator(), b.Copy().Compact(0).AllBucketIterator()
	for ai.Next() {
		if !bi.Next() || ai.At().Lower != bi.At().Lower || !almostEqual(ai.At().Count, bi.At().Count) {
			return false
		}
	}
	return !bi.Next()
}

// almostEqual permits what another order of summation changes.
func almostEqual(a, b float64) bool {
	if math.IsNaN(a) || math.IsNaN(b) {
		return math.IsNaN(a) && math.IsNaN(b)
	}
	if a == b {
		return true
	}
	return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) || math.Abs(a-b) < 1e-12
}
