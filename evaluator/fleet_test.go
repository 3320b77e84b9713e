package evaluator_test

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend"
	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
)

// partition is one backend of a fleet: its name and the labels of its series,
// empty where they lack the label.
type partition struct {
	name   string
	labels map[string]string
}

// holds tells whether a series belongs to the partition.
func (p partition) holds(series labels.Labels) bool {
	for name, value := range p.labels {
		if series.Get(name) != value {
			return false
		}
	}
	return true
}

// partitions of the test fleets: the series of the last one lack the label.
var partitions = []partition{
	{"east", map[string]string{"cluster": "east"}},
	{"west", map[string]string{"cluster": "west"}},
	{"global", map[string]string{"cluster": ""}},
}

// mode is how a fleet is reached.
type mode string

const (
	// overHTTP: Prometheus' API over stored series with their partition labels.
	overHTTP mode = "http"
	// overVirtual: the same, but the stored series lack the partition labels.
	overVirtual mode = "virtual"
	// overProcesses: as overVirtual, but each a real Prometheus server.
	overProcesses mode = "processes"
	// overNative: the embedded backend's protocol.
	overNative mode = "native"
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
	return newFleetOf(t, m, partitions, series)
}

func newFleetOf(t testing.TB, m mode, parts []partition, series []promql.Series) *fleet {
	t.Helper()
	f := &fleet{engine: promserver.Engine(), whole: promserver.Storage(t)}
	promserver.Append(t, f.whole, series)
	var configs []evaluator.BackendConfig
	for _, p := range parts {
		configs = append(configs, startPartition(t, m, p, series))
	}
	f.evaluator, f.registry = evaluatorOf(t, configs)
	return f
}

func evaluatorOf(t testing.TB, backends []evaluator.BackendConfig) (*evaluator.Evaluator, *prometheus.Registry) {
	t.Helper()
	cfg, reg := evaluator.DefaultConfig(), prometheus.NewRegistry()
	cfg.Backends = backends
	e, err := evaluator.New(cfg, promslog.NewNopLogger(), reg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e, reg
}

// startBackend starts the backend of a cluster.
func startBackend(t testing.TB, m mode, name, cluster string, series []promql.Series) evaluator.BackendConfig {
	t.Helper()
	return startPartition(t, m, partition{name, map[string]string{"cluster": cluster}}, series)
}

// startPartition starts the backend of one partition with those of the series
// that belong there.
func startPartition(t testing.TB, m mode, p partition, series []promql.Series) evaluator.BackendConfig {
	t.Helper()
	switch m {
	case overNative:
		return startEmbedded(t, p, own(p, series))
	case overProcesses:
		cfg := backendOf(t, p, startPrometheus(t, bare(p, own(p, series))))
		cfg.Virtual = true
		return cfg
	}
	db := promserver.Storage(t)
	external := labels.EmptyLabels()
	stored := own(p, series)
	if m == overVirtual {
		external = labels.FromMap(p.labels).WithoutEmpty()
		stored = bare(p, stored)
	}
	promserver.Append(t, db, stored)
	cfg := backendOf(t, p, promserver.Start(t, db, external))
	cfg.Virtual = m == overVirtual
	return cfg
}

// own are the series of a partition.
func own(p partition, series []promql.Series) (list []promql.Series) {
	for _, s := range series {
		if p.holds(s.Metric) {
			list = append(list, s)
		}
	}
	return list
}

// bare takes the partition labels off series.
func bare(p partition, series []promql.Series) []promql.Series {
	list := slices.Clone(series)
	for i, s := range list {
		list[i].Metric = labels.NewBuilder(s.Metric).Del(slices.Collect(maps.Keys(p.labels))...).Labels()
	}
	return list
}

// startEmbedded runs the embedded backend: its store, API and pushdown server.
func startEmbedded(t testing.TB, p partition, series []promql.Series) evaluator.BackendConfig {
	t.Helper()
	held := backend.Partition{Labels: labels.FromMap(p.labels).WithoutEmpty()}
	for name, value := range p.labels {
		if value == "" {
			held.Absent = append(held.Absent, name)
		}
	}
	reg, logger := prometheus.NewRegistry(), promslog.NewNopLogger()
	store, err := backend.NewStore(backend.StoreConfig{Path: t.TempDir(), Partition: held, OutOfOrderWindow: outOfOrder}, reg, logger)
	require.NoError(t, err)
	run(t, store.Run)
	require.Eventually(t, func() bool { return store.Ready() == nil }, time.Minute, time.Millisecond)
	promserver.Append(t, store, series)
	api := httptest.NewServer(backend.NewAPI(backend.APIConfig{}, store, engine.New(engine.Config{}, reg, logger), reg, logger))
	t.Cleanup(api.Close)
	cfg := backendOf(t, p, api.URL)
	cfg.GRPC = &evaluator.GRPCConfig{Address: startPushdown(t, store)}
	return cfg
}

// startPushdown serves the pushdown protocol over any storage.
func startPushdown(t testing.TB, data storage.Queryable) (address string) {
	t.Helper()
	reg, logger := prometheus.NewRegistry(), promslog.NewNopLogger()
	e := engine.New(engine.Config{}, reg, logger)
	t.Cleanup(e.Wait)
	s, err := pushdown.New(pushdown.Config{ListenAddress: "127.0.0.1:0"}, pushdown.Deps{
		Engine: e, Queryable: data, Ready: func() error { return nil }, Registry: reg, Logger: logger,
	})
	require.NoError(t, err)
	require.NoError(t, s.Listen())
	run(t, s.Run)
	return s.Addr().String()
}

// outOfOrder lets tests write series one after the other.
const outOfOrder = 100 * 365 * 24 * time.Hour

// run runs a component until the test ends.
func run(t testing.TB, component func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- component(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func backendConfig(t testing.TB, name, cluster, base string) evaluator.BackendConfig {
	t.Helper()
	return backendOf(t, partition{name, map[string]string{"cluster": cluster}}, base)
}

func backendOf(t testing.TB, p partition, base string) evaluator.BackendConfig {
	t.Helper()
	u, err := url.Parse(base)
	require.NoError(t, err)
	return evaluator.BackendConfig{
		Name:             p.name,
		PartitionLabels:  p.labels,
		URL:              config.URL{URL: u},
		HTTPClientConfig: config.DefaultHTTPClientConfig,
	}
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
