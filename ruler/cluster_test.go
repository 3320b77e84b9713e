package ruler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// world is a whole cluster in one synctest bubble: rulers whose time is
// virtual, one backend in memory, messages that are function calls.
type world struct {
	t  *testing.T
	mu sync.Mutex
	// members by name; nil once killed.
	members map[string]*member
	states  map[string]sharding.State
	// cutOff are members that see and reach only each other.
	cutOff map[string]bool
	data   map[string]map[int64]float64 // by series, milliseconds
	sent   []alert.Notification
	groups []rule.Group

	queriesFail, writesFail error
	// missing is what results lack, if anything.
	missing string
	// evaluationTakes is how long queries take together.
	evaluationTakes func([]Query) time.Duration
	// writeTakes is how long a write to backends takes.
	writeTakes func(where []string) time.Duration
	// result answers a query; by default one sample whose value is the time.
	result func(expr string, at time.Time) promql.Vector
	// conflicts are samples that were written twice with different values.
	conflicts []string
}

type member struct {
	*Ruler
	name string
	stop context.CancelFunc
}

func newWorld(t *testing.T, groups ...rule.Group) *world {
	w := &world{
		t:       t,
		members: map[string]*member{},
		states:  map[string]sharding.State{},
		data:    map[string]map[int64]float64{},
		groups:  groups,
	}
	w.result = func(_ string, at time.Time) promql.Vector {
		return promql.Vector{{F: float64(at.Unix()), T: at.UnixMilli()}}
	}
	t.Cleanup(w.end)
	return w
}

// end stops everybody.
func (w *world) end() {
	for name := range w.members {
		w.kill(name)
	}
	synctest.Wait()
}

// add starts a member, which is ready at once.
func (w *world) add(name string) *member {
	w.t.Helper()
	cfg := DefaultConfig()
	cfg.Member = name
	r, err := New(cfg, Deps{
		Evaluator: w, Writer: w, Notifier: w, Templates: w, Peers: peers{w, name},
		History: &storage.MockQueryable{MockQuerier: &storage.MockQuerier{SelectMockFunction: w.selectSeries}},
		Logger:  w.logger(name),
		Reg:     prometheus.NewRegistry(),
	})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	m := &member{Ruler: r, name: name, stop: cancel}
	w.mu.Lock()
	w.members[name] = m
	w.states[name] = sharding.Ready
	w.mu.Unlock()
	go func() { _ = r.Run(ctx) }()
	r.SetGroups(w.groups)
	w.gossip()
	return m
}

// logger is silent unless TOCSIN_TEST_LOG is set.
func (w *world) logger(name string) *slog.Logger {
	if os.Getenv("TOCSIN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("member", name)
}

// gossip shows every member the same view.
func (w *world) gossip() {
	w.mu.Lock()
	views := map[bool][]sharding.Member{}
	for name, s := range w.states {
		side := w.cutOff[name]
		views[side] = append(views[side], sharding.Member{Name: name, State: s, Weight: 1, GRPCAddress: name})
	}
	all := slices.Collect(maps.Values(w.members))
	w.mu.Unlock()
	for _, m := range all {
		m.SetView(sharding.NewView(views[w.cutOff[m.name]]))
	}
}

// cut separates some members from the others; none heals the cluster.
func (w *world) cut(names ...string) {
	w.mu.Lock()
	w.cutOff = map[string]bool{}
	for _, n := range names {
		w.cutOff[n] = true
	}
	w.mu.Unlock()
	w.gossip()
}

// kill ends a member without a word; the others notice after a while.
func (w *world) kill(name string) {
	w.mu.Lock()
	m := w.members[name]
	delete(w.members, name)
	delete(w.states, name)
	w.mu.Unlock()
	m.stop()
	<-m.done
}

// leave lets a member hand everything over first.
func (w *world) leave(name string) {
	w.mu.Lock()
	m := w.members[name]
	w.states[name] = sharding.Leaving
	w.mu.Unlock()
	m.Drain()
	w.gossip()
	<-m.Drained()
	w.kill(name)
	w.gossip()
}

// owners are the names of the members that run the group.
func (w *world) owners(key string) []string {
	var names []string
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, m := range w.members {
		for _, s := range m.Status() {
			if s.Group.Key == key {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func (w *world) Evaluate(_ context.Context, ts time.Time, queries []Query) []Result {
	w.mu.Lock()
	takes := w.evaluationTakes
	w.mu.Unlock()
	if takes != nil {
		time.Sleep(takes(queries)) //nolint:forbidigo // virtual time of a synctest bubble
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	results := make([]Result, len(queries))
	for i, q := range queries {
		if w.queriesFail != nil {
			results[i] = Result{Err: w.queriesFail, Retryable: true}
			continue
		}
		results[i].Vector = w.result(q.Expr.String(), ts)
		if w.missing != "" {
			require.True(w.t, q.Partial)
			results[i].Partial, results[i].Warnings = true, []string{w.missing}
		}
	}
	return results
}

func (w *world) Where(units []write.Unit) []string {
	where := make([]string, len(units))
	for i, u := range units {
		for _, s := range u {
			if b := s.Metric.Get("backend"); !strings.Contains(where[i], b) {
				where[i] += b
			}
		}
	}
	return where
}

func (w *world) Write(_ context.Context, units []write.Unit) []write.Result {
	w.mu.Lock()
	takes := w.writeTakes
	w.mu.Unlock()
	if takes != nil {
		time.Sleep(takes(w.Where(units))) //nolint:forbidigo // virtual time of a synctest bubble
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	results := make([]write.Result, len(units))
	for i, u := range units {
		if w.writesFail != nil {
			results[i].Err = w.writesFail
			continue
		}
		for _, s := range u {
			w.store(s)
		}
	}
	return results
}

func (w *world) store(s promql.Sample) {
	k := s.Metric.String()
	if w.data[k] == nil {
		w.data[k] = map[int64]float64{}
	}
	old, twice := w.data[k][s.T]
	if twice && math.Float64bits(old) != math.Float64bits(s.F) {
		w.conflicts = append(w.conflicts, fmt.Sprintf("%s at %d: %v and %v", k, s.T, old, s.F))
	}
	w.data[k][s.T] = s.F
}

func (w *world) Send(_ string, ns ...alert.Notification) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, ns...)
}

func (w *world) Expander(context.Context, rule.Group, string, time.Time) alert.Expander {
	return func(text string, _ promql.Sample) (string, error) { return text, nil }
}

func (w *world) selectSeries(_ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queriesFail != nil {
		return storage.ErrSeriesSet(w.queriesFail)
	}
	var found []storage.Series
	for text, points := range w.data {
		lset, err := parser.ParseMetric(text)
		require.NoError(w.t, err)
		if !matchesAll(lset, ms) {
			continue
		}
		series := promql.Series{Metric: lset}
		for t, v := range points {
			series.Floats = append(series.Floats, promql.FPoint{T: t, F: v})
		}
		slices.SortFunc(series.Floats, func(a, b promql.FPoint) int { return int(a.T - b.T) })
		found = append(found, promql.NewStorageSeries(series))
	}
	return &seriesSet{series: found, i: -1}
}

type seriesSet struct {
	storage.SeriesSet
	series []storage.Series
	i      int
}

func (s *seriesSet) Next() bool         { s.i++; return s.i < len(s.series) }
func (s *seriesSet) At() storage.Series { return s.series[s.i] }
func (s *seriesSet) Err() error         { return nil }

// peers are the other members, as one of them reaches them.
type peers struct {
	w    *world
	self string
}

var errGone = errors.New("connection refused")

// to finds a member by its address, which is its name.
func (p peers) to(address string) (*member, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if other, ok := p.w.members[address]; ok && p.w.cutOff[address] == p.w.cutOff[p.self] {
		return other, nil
	}
	return nil, errGone
}

func (p peers) Claim(ctx context.Context, address string, keys []string) ([]handoff.GroupState, error) {
	m, err := p.to(address)
	if err != nil {
		return nil, err
	}
	return m.Claim(ctx, p.self, keys)
}

func (p peers) Checkpoint(ctx context.Context, address string, states []handoff.GroupState) error {
	m, err := p.to(address)
	if err != nil {
		return err
	}
	return m.Checkpoint(ctx, p.self, states)
}

// slots are the timestamps of a series, in seconds, without those of
// staleness markers.
func (w *world) slots(series string) []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ts []int64
	for t, v := range w.data[series] {
		if !value.IsStaleNaN(v) {
			ts = append(ts, t/1000)
		}
	}
	slices.Sort(ts)
	return ts
}

// requireNoHole checks that a series has a sample at every slot from its
// first to one that is no older than an interval.
func (w *world) requireNoHole(series string) {
	w.t.Helper()
	ts := w.slots(series)
	require.NotEmpty(w.t, ts, series)
	for i := 1; i < len(ts); i++ {
		require.Equal(w.t, int64(interval.Seconds()), ts[i]-ts[i-1], "%s: hole after %s", series, time.Unix(ts[i-1], 0).UTC())
	}
	require.Less(w.t, time.Since(time.Unix(ts[len(ts)-1], 0)), interval+time.Second, series)
	require.Empty(w.t, w.conflicts)
}

// interval is that of all groups.
const interval = 15 * time.Second

func recording(key, record, expr string) rule.Group {
	return rule.Group{Key: key, Name: key, Interval: interval, Rules: []rule.Rule{{Record: record, Expr: mustParse(expr)}}}
}

func mustParse(expr string) parser.Expr {
	e, err := parser.ParseExpr(expr)
	if err != nil {
		panic(err)
	}
	return e
}
