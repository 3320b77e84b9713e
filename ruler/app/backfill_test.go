package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/backend"
	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/backend/pushdown"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/backfill"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// The range of the comparison. A member that starts at liveStart begins with
// the slots of the half minute before, whatever their offsets. There are two
// borders of chunks in it.
var (
	epoch      = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of a synctest bubble
	liveStart  = epoch.Add(100*time.Minute + 29*time.Second + 100*time.Millisecond)
	liveEnd    = liveStart.Add(150 * time.Minute)
	jobStart   = liveStart.Truncate(30 * time.Second)
	jobEnd     = liveEnd.Add(-200 * time.Millisecond)
	partitions = []string{"east", "west", ""}
)

// backfilledRules have what backfilling may get wrong: chains, alerts that are
// pending and kept firing, series that end, groups that read their own past,
// each other's results and one another, offsets, and errors in between.
var backfilledRules = map[string]string{
	"pods.yml": `
apiVersion: monitoring.googleapis.com/v1
kind: ClusterRules
metadata: {name: pods}
spec:
  groups:
  - name: chain
    interval: 30s
    rules:
    - {record: "job:requests:rate", expr: "sum by (job) (rate(requests_total[2m]))"}
    - {record: "job:busy", expr: "job:requests:rate > 12", labels: {level: job}}
    - alert: Busy
      expr: job:busy
      for: 4m
      keep_firing_for: 3m
      labels: {severity: '{{ if gt $value 20.0 }}page{{ else }}ticket{{ end }}'}
      annotations: {summary: '{{ $labels.job }} at {{ $value }}'}
    - {record: alerts, expr: 'count by (alertname) (ALERTS{alertname="Busy"})'}
    - {record: "pod:requests:rate", expr: "rate(requests_total[1m])"}
    - {record: histogram, expr: "sum by (job) (rate(latency[2m]))"}
  - name: labelled
    interval: 30s
    rules:
    - {record: "pods", expr: "count by (job) (requests_total)"}
    - alert: Pods
      expr: pods > 1
      labels: {others: '{{ with query "sum(pods)" }}{{ . | first | value }}{{ end }}', before: '{{ with query "count(ALERTS{alertname=\"Pods\"} offset 30s)" }}{{ . | first | value }}{{ end }}'}
  - name: late
    interval: 30s
    query_offset: 45s
    rules:
    - {record: late, expr: "sum(requests_total)"}
    - {record: later, expr: "late - late offset 2m"}
  - name: collides
    interval: 30s
    rules:
    - {record: collides, expr: 'label_replace(sum by (pod) (requests_total{job="a"}), "pod", "", "", "") > 400'}
    - {record: window, expr: "sum(requests_total) - sum(requests_total @ start())"}
`,
	"global.yml": `
groups:
- name: everything
  interval: 30s
  rules:
  - {record: "all:requests:rate", expr: "sum(rate(requests_total[2m]))"}
  - {record: "clusters", expr: "count(count by (cluster) (requests_total))"}
  - {record: "before", expr: "sum(job:requests:rate offset 1m)"}
- name: counting
  interval: 30s
  rules:
  - {record: slots, expr: "(slots offset 30s or vector(0)) + 1"}
- name: ping
  interval: 30s
  rules:
  - {record: ping, expr: "(pong offset 1m or vector(0)) + 1"}
- name: pong
  interval: 30s
  rules:
  - {record: pong, expr: "(ping offset 1m or vector(0)) + 2"}
`,
}

// samples are what a storage holds, by series and time in milliseconds.
type samples map[string]map[int64]promql.Sample

func (s samples) add(p promql.Sample) {
	key := p.Metric.String()
	if s[key] == nil {
		s[key] = map[int64]promql.Sample{}
	}
	s[key][p.T] = p
}

// inputs is the data that rules read: counters that start, pause and end, and
// native histograms.
func inputs() []promql.Sample {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []promql.Sample
	for _, cluster := range partitions {
		for pod := range 6 {
			job := string(rune('a' + pod/2))
			from, to := 0, 270*4
			if pod%2 == 1 {
				from = rng.IntN(600)
				to = from + 100 + rng.IntN(500)
			}
			ls := labels.FromStrings(labels.MetricName, "requests_total", "cluster", cluster, "job", job, "pod", fmt.Sprint(pod)).WithoutEmpty()
			hs := labels.NewBuilder(ls).Set(labels.MetricName, "latency").Labels()
			count := 0
			for n := from; n <= to; n++ {
				t := epoch.Add(time.Duration(n) * 15 * time.Second).UnixMilli()
				count += 15 * rng.IntN(2+(n/40+pod)%6*6)
				switch {
				case n == to && to < 270*4:
					all = append(all, promql.Sample{Metric: ls, T: t, F: math.Float64frombits(value.StaleNaN)})
				case n/100%4 != 2 || pod != 2: // a pause without a marker
					all = append(all, promql.Sample{Metric: ls, T: t, F: float64(count)},
						promql.Sample{Metric: hs, T: t, H: tsdbutil.GenerateTestFloatHistogram(int64(n))})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b promql.Sample) int { return int(a.T - b.T) })
	return all
}

func appendTo(ctx context.Context, s storage.Appendable, all []promql.Sample) error {
	app := s.Appender(ctx)
	var errs []error
	for _, p := range all {
		var err error
		if p.H != nil {
			_, err = app.AppendHistogram(0, p.Metric, p.T, nil, p.H.Copy())
		} else {
			_, err = app.Append(0, p.Metric, p.T, p.F)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, app.Commit())...)
}

// recorder writes what a member records to a storage, and remembers it.
type recorder struct {
	ruler.Notifier
	ruler.Peers
	db      storage.Appendable
	mu      sync.Mutex
	written samples
}

// Write implements ruler.Writer.
func (r *recorder) Write(ctx context.Context, units []write.Unit) []write.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	results := make([]write.Result, len(units))
	for i, u := range units {
		results[i].Rejected = appendTo(ctx, r.db, u)
		for _, s := range u {
			if s.Metric.Get(labels.MetricName) != "TOCSIN_COMMITTED_SLOT" {
				r.written.add(s)
			}
		}
	}
	return results
}

// Where implements ruler.Writer.
func (r *recorder) Where(units []write.Unit) []string { return make([]string, len(units)) }

// Send implements ruler.Notifier.
func (r *recorder) Send(string, ...alert.Notification) {}

// Checkpoint implements ruler.Peers.
func (r *recorder) Checkpoint(context.Context, string, []handoff.GroupState) error { return nil }

// live is what a member records whose one backend holds all data.
func live(t *testing.T, groups []rule.Group) samples {
	t.Helper()
	db := teststorage.New(t, (24 * time.Hour).Milliseconds())
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	require.NoError(t, appendTo(t.Context(), db, inputs()))
	rec := &recorder{db: db, written: samples{}}
	synctest.Test(t, func(t *testing.T) {
		logger := slog.New(slog.DiscardHandler)
		reg := prometheus.NewRegistry()
		e := evaluator.NewLocal(evaluator.DefaultConfig(), engine.New(engine.Config{}, reg, logger), db, logger, reg)
		cfg := ruler.DefaultConfig()
		cfg.Member = "m"
		r, err := ruler.New(cfg, ruler.Deps{
			Evaluator: batchEvaluator{e}, Writer: rec, Notifier: rec, Peers: rec, History: db,
			Templates: templates{alerting.NewTemplates(alerting.TemplatesConfig{ExternalURL: &url.URL{}}, reg), e}, Logger: logger, Reg: reg,
		})
		require.NoError(t, err)
		time.Sleep(time.Until(liveStart)) //nolint:forbidigo // virtual time of a synctest bubble
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.SetGroups(groups)
		r.SetView(sharding.NewView([]sharding.Member{{Name: "m", State: sharding.Ready, Weight: 1}}))
		time.Sleep(time.Until(liveEnd)) //nolint:forbidigo // virtual time of a synctest bubble
		cancel()
		require.NoError(t, <-done)
	})
	return rec.written
}

// fleet is one backend for each partition, with the inputs.
type fleet struct {
	stores []*backend.Store
	config string
	dir    string
}

func newFleet(t *testing.T, native bool, window time.Duration) *fleet {
	t.Helper()
	f := &fleet{dir: t.TempDir()}
	rules := filepath.Join(f.dir, "rules")
	require.NoError(t, os.Mkdir(rules, 0o755))
	for name, content := range backfilledRules {
		require.NoError(t, os.WriteFile(filepath.Join(rules, name), []byte(content), 0o600))
	}
	var cfg strings.Builder
	cfg.WriteString("rule_files: [rules]\nclusters: [{cluster: east}, {cluster: west}]\nbackends:\n")
	for _, cluster := range partitions {
		f.addBackend(t, &cfg, cluster, native, window)
	}
	f.config = filepath.Join(f.dir, "evaluator.yml")
	require.NoError(t, os.WriteFile(f.config, []byte(cfg.String()), 0o600))
	return f
}

func (f *fleet) addBackend(t *testing.T, cfg *strings.Builder, cluster string, native bool, window time.Duration) {
	t.Helper()
	partition := backend.Partition{Labels: labels.FromStrings("cluster", cluster)}
	if cluster == "" {
		partition = backend.Partition{Absent: []string{"cluster"}}
	}
	logger, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	store, err := backend.NewStore(backend.StoreConfig{Path: t.TempDir(), Partition: partition, OutOfOrderWindow: window}, reg, logger)
	require.NoError(t, err)
	background(t, store.Run)
	require.Eventually(t, func() bool { return store.Ready() == nil }, time.Minute, time.Millisecond)
	own := slices.DeleteFunc(inputs(), func(s promql.Sample) bool { return s.Metric.Get("cluster") != cluster })
	require.NoError(t, appendTo(t.Context(), store, own))
	queries := engine.New(engine.Config{}, reg, logger)
	srv := httptest.NewServer(backend.NewAPI(backend.APIConfig{}, store, queries, reg, logger))
	t.Cleanup(srv.Close)
	fmt.Fprintf(cfg, "- {name: %q, partition_labels: {cluster: %q}, url: %q", "b-"+cluster, cluster, srv.URL)
	if native {
		p, err := pushdown.New(pushdown.Config{ListenAddress: "127.0.0.1:0"}, pushdown.Deps{
			Engine: queries, Queryable: store, Ready: store.Ready, Registry: reg, Logger: logger,
		})
		require.NoError(t, err)
		require.NoError(t, p.Listen())
		background(t, p.Run)
		fmt.Fprintf(cfg, ", grpc: {address: %q}", p.Addr())
	}
	cfg.WriteString("}\n")
	f.stores = append(f.stores, store)
}

// background runs something until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func (f *fleet) load(t *testing.T) (*Config, []rule.Group) {
	t.Helper()
	cfg, err := LoadConfig(f.config)
	require.NoError(t, err)
	sc := source.DefaultConfig()
	sc.Paths, sc.Rules = cfg.RuleFiles, cfg.RuleOptions()
	loader, err := source.New(sc, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	snapshot, err := loader.Load(t.Context())
	require.NoError(t, err)
	require.Empty(t, snapshot.Errors)
	return cfg, snapshot.Groups
}

// recorded is what the backends hold beside the inputs.
func (f *fleet) recorded(t *testing.T) samples {
	t.Helper()
	all := samples{}
	for _, s := range f.stores {
		q, err := s.Querier(math.MinInt64, math.MaxInt64)
		require.NoError(t, err)
		all.read(t, q)
	}
	return all
}

func (s samples) read(t *testing.T, q storage.Querier) {
	t.Helper()
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, "requests_total|latency"))
	for set.Next() {
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			p := promql.Sample{Metric: set.At().Labels()}
			if kind == chunkenc.ValFloat {
				p.T, p.F = it.At()
			} else {
				p.T, p.H = it.AtFloatHistogram(nil)
			}
			s.add(p)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
}

// requireSame compares samples up to the last digits, which depend on the order
// of summation.
func requireSame(t *testing.T, want, got samples) {
	t.Helper()
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	for series, points := range want {
		require.Equal(t, slices.Sorted(maps.Keys(points)), slices.Sorted(maps.Keys(got[series])), series)
		for at, w := range points {
			g := got[series][at]
			where := fmt.Sprintf("%s at %s", series, time.UnixMilli(at).UTC())
			require.Equal(t, w.H == nil, g.H == nil, where)
			require.Equal(t, value.IsStaleNaN(w.F), value.IsStaleNaN(g.F), where)
			if w.H != nil {
				requireClose(t, w.H, g.H, where)
			} else if !math.IsNaN(w.F) {
				require.InDelta(t, w.F, g.F, 1e-12*math.Abs(w.F), where)
			}
		}
	}
}

func requireClose(t *testing.T, want, got *histogram.FloatHistogram, where string) {
	t.Helper()
	require.InDelta(t, want.Count, got.Count, 1e-9*want.Count, where)
	require.InDelta(t, want.Sum, got.Sum, 1e-9*math.Abs(want.Sum), where)
	require.Len(t, got.PositiveBuckets, len(want.PositiveBuckets), where)
}

// describe says how much there is of what.
func (s samples) describe() string {
	counts := map[string]int{}
	for series, points := range s {
		name, _, _ := strings.Cut(strings.TrimPrefix(series, `{__name__="`), `"`)
		counts[name] += len(points)
		for _, p := range points {
			if value.IsStaleNaN(p.F) {
				counts["markers"]++
			}
		}
	}
	return fmt.Sprint(counts)
}

// options are those of a test, with progress that may end the run.
func (f *fleet) options(outputDir string, progress func(backfill.Progress)) BackfillOptions {
	return BackfillOptions{
		Limits:    backfill.Config{Concurrency: 3, Attempts: 1},
		StateFile: filepath.Join(f.dir, "state.json"),
		OutputDir: outputDir,
		Progress:  progress,
	}
}

func (f *fleet) job(t *testing.T, cfg *Config, groups []rule.Group, outputDir string) backfill.Plan {
	t.Helper()
	where, err := cfg.BackfillTarget(outputDir)
	require.NoError(t, err)
	return backfill.NewPlan(backfill.Job{Groups: groups, Start: jobStart, End: jobEnd, Where: where})
}

// TestBackfillRecordsWhatMembersWouldHave compares the loop of a member, slot
// after slot over one storage with all data, with backfills over partitions.
func TestBackfillRecordsWhatMembersWouldHave(t *testing.T) {
	t.Parallel()
	_, groups := newFleet(t, false, 0).load(t)
	want := live(t, groups)
	t.Log(want.describe())
	for _, state := range []string{"pending", "firing"} {
		require.NotEmpty(t, slices.DeleteFunc(slices.Collect(maps.Keys(want)), func(s string) bool { return !strings.Contains(s, `alertstate="`+state) }))
	}
	for _, tc := range []struct {
		name   string
		native bool
		blocks bool
		// ends is how often the run is ended before it is through.
		ends int
	}{
		{name: "to backends over HTTP"},
		{name: "to backends over gRPC", native: true},
		{name: "to backends, ended in between", native: true, ends: 3},
		{name: "to blocks", native: true, blocks: true},
		{name: "to blocks, ended in between", blocks: true, ends: 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && tc.ends == 0 {
				t.Skip("runs that are ended in between do it all")
			}
			f := newFleet(t, tc.native, 24*time.Hour)
			out := ""
			if tc.blocks {
				out = filepath.Join(f.dir, "blocks")
			}
			for n := range tc.ends {
				f.endEarly(t, out, int64(n+1))
			}
			cfg, groups := f.load(t)
			plan := f.job(t, cfg, groups, out)
			logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
			outcome, err := cfg.Backfill(t.Context(), plan, f.options(out, func(backfill.Progress) {}), logger)
			require.NoError(t, err)
			require.Equal(t, outcome.Total, outcome.Done)
			require.Positive(t, outcome.Failed, "series that collide for a while are an error for a while")
			require.Equal(t, tc.ends > 0, outcome.Resumed > 0)
			require.NoFileExists(t, filepath.Join(f.dir, "state.json"))
			got := f.recorded(t)
			if tc.blocks {
				require.Empty(t, got, "nothing is written to the backends")
				got = blocksIn(t, out)
			}
			requireSame(t, want, got)
		})
	}
}

// endEarly runs a backfill until a part of it, in eighths, is done.
func (f *fleet) endEarly(t *testing.T, out string, eighths int64) {
	t.Helper()
	cfg, groups := f.load(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := cfg.Backfill(ctx, f.job(t, cfg, groups, out), f.options(out, func(p backfill.Progress) {
		if 8*p.Done >= 2*eighths*p.Total {
			cancel()
		}
	}), slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, context.Canceled)
}

// blocksIn reads the blocks of all backends, and no other file is there.
func blocksIn(t *testing.T, dir string) samples {
	t.Helper()
	all := samples{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, len(partitions))
	for _, e := range entries {
		db, err := tsdb.OpenDBReadOnly(filepath.Join(dir, e.Name()), "", slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		blocks, err := db.Blocks()
		require.NoError(t, err)
		for _, b := range blocks {
			require.LessOrEqual(t, b.Meta().MaxTime-b.Meta().MinTime, backfill.ChunkLength.Milliseconds())
		}
		for _, b := range blocks {
			q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
			require.NoError(t, err)
			all.read(t, q)
		}
		require.NoError(t, db.Close())
	}
	return all
}

func TestBackfillSaysWhatToDoAboutABackendThatTakesNoOldSamples(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false, time.Millisecond)
	cfg, groups := f.load(t)
	_, err := cfg.Backfill(t.Context(), f.job(t, cfg, groups, ""), f.options("", func(backfill.Progress) {}), slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, backfill.ErrTooOld)
	require.ErrorContains(t, err, "--storage.out-of-order-window")
	require.ErrorContains(t, err, `group "`)
}

func TestBackfillRefusesTheStateOfAnotherJob(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false, 24*time.Hour)
	f.endEarly(t, "", 1)
	cfg, groups := f.load(t)
	_, err := cfg.Backfill(t.Context(), f.job(t, cfg, groups[1:], ""), f.options("", func(backfill.Progress) {}), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "it is of another backfill or of other rules")
	require.ErrorContains(t, err, fmt.Sprintf("%d groups from %s", len(groups), jobStart.Format(time.RFC3339)))
}
