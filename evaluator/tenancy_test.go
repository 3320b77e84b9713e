package evaluator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// TestTenantsReadTheirOwn asks for random expressions by tenants over random
// data. What reaches the storage selects nothing of anybody else, and the
// answer is the one that Prometheus gives to the expression as it was written
// if it has only that tenant's series. To run more of them:
//
//	go test ./evaluator -run TestTenantsReadTheirOwn -evaluator.seed=SEED -evaluator.count=N
func TestTenantsReadTheirOwn(t *testing.T) {
	t.Parallel()
	asked := 0
	for seed := *seedFlag; seed < *seedFlag+uint64(*countFlag); seed++ {
		s := newScenario(rand.New(rand.NewPCG(seed, 11)))
		s.mode = []mode{overHTTP, overVirtual}[seed%2]
		asked += s.runTenants(t, seed)
	}
	require.Greater(t, asked, 50**countFlag)
	t.Logf("%d expressions of tenants", asked)
}

// runTenants asks for all expressions by each tenant alone, then by all of them
// together.
func (s scenario) runTenants(t testing.TB, seed uint64) (asked int) {
	sc := &scope{TB: t}
	defer sc.close()
	e, reads := s.startRecorded(sc)
	engine := promserver.Engine()
	var all []evaluator.Query
	for _, tenant := range tenants {
		own := labels.FromStrings("job", tenant)
		alone := promserver.Storage(sc)
		promserver.Append(sc, alone, ownedBy(own, s.series))
		queries, originals := tenantsOwn(t, s, own)
		results := e.Evaluate(context.Background(), slot, queries)
		require.Empty(t, reads.outside(tenant), "seed %d: selectors of %q", seed, tenant)
		for i, got := range results {
			at := moment{slot, slot, 0}
			want := at.ask(sc, engine, alone, originals[i])
			if d := resultDifference(originals[i], want, asResult(want, got)); d != "" && !strings.Contains(originals[i], "absent") && !s.undefinedFor(sc, engine, own, originals[i]) {
				t.Errorf("seed %d, tenant %q: %s\n%s", seed, tenant, originals[i], d)
			}
		}
		all = append(all, queries...)
	}
	e.Evaluate(context.Background(), slot, all)
	require.Empty(t, reads.outside(tenants...), "seed %d: selectors of all tenants", seed)
	return len(all)
}

// tenantsOwn are the queries of a tenant, and the expressions as they were
// written. Those that ask for somebody else's series are refused.
func tenantsOwn(t testing.TB, s scenario, own labels.Labels) (queries []evaluator.Query, originals []string) {
	for _, q := range s.batch {
		expr, err := plan.Scope(mustParse(t, q.expr), own)
		if err != nil {
			require.ErrorContains(t, err, "contradicts the tenant")
			require.Contains(t, q.expr, "job")
			continue
		}
		queries = append(queries, evaluator.Query{Name: q.expr, Expr: expr, Scope: own})
		originals = append(originals, q.expr)
	}
	return queries, originals
}

// asResult is the answer in the form of what it is compared with.
func asResult(want *promql.Result, got evaluator.Result) *promql.Result {
	res := &promql.Result{Value: got.Vector, Err: got.Err}
	if _, scalar := want.Value.(promql.Scalar); scalar && len(got.Vector) == 1 {
		res.Value = promql.Scalar{T: got.Vector[0].T, V: got.Vector[0].F}
	}
	return res
}

func (s scenario) undefinedFor(t testing.TB, e promql.QueryEngine, own labels.Labels, expr string) bool {
	s.series = ownedBy(own, s.series)
	first := promserver.Storage(t)
	promserver.Append(t, first, s.series)
	return s.undefined(t, &[]*teststorage.TestStorage{first}, e, expr, moment{slot, slot, 0})
}

func ownedBy(own labels.Labels, series []promql.Series) []promql.Series {
	return slices.DeleteFunc(slices.Clone(series), func(s promql.Series) bool { return s.Metric.Get("job") != own.Get("job") })
}

// startRecorded starts the scenario's fleet over storages that note what they
// are asked for.
func (s scenario) startRecorded(t testing.TB) (*evaluator.Evaluator, *selections) {
	reads := &selections{}
	var configs []evaluator.BackendConfig
	for _, p := range s.partitions {
		db := promserver.Storage(t)
		stored, external := own(p, s.series), labels.EmptyLabels()
		if s.mode == overVirtual {
			stored, external = bare(p, stored), labels.FromMap(p.labels).WithoutEmpty()
		}
		promserver.Append(t, db, stored)
		cfg := backendOf(t, p, promserver.StartOver(t, recorded{db, reads}, external))
		cfg.Virtual = s.mode == overVirtual
		configs = append(configs, cfg)
	}
	e, _ := evaluatorOf(t, configs)
	return e, reads
}

// selections are the matchers of every selection that reached a storage.
type selections struct {
	mu   sync.Mutex
	seen [][]*labels.Matcher
}

func (s *selections) add(matchers []*labels.Matcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, slices.Clone(matchers))
}

// outside are those that select what is of none of the tenants, and forgets
// all.
func (s *selections) outside(allowed ...string) (bad []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, matchers := range s.seen {
		for _, job := range append([]string{"", "somebody else", "b.+"}, tenants...) {
			selected := !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == "job" && !m.Matches(job) })
			if selected && !slices.Contains(allowed, job) {
				bad = append(bad, fmt.Sprintf("%s selects job=%q", matchers, job))
			}
		}
	}
	s.seen = nil
	return bad
}

// recorded is a storage that notes what it is asked for.
type recorded struct {
	*teststorage.TestStorage

	reads *selections
}

// Querier implements storage.Queryable.
func (r recorded) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := r.TestStorage.Querier(mint, maxt)
	return recordedQuerier{q, r.reads}, err
}

// ChunkQuerier implements storage.ChunkQueryable.
func (r recorded) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := r.TestStorage.ChunkQuerier(mint, maxt)
	return recordedChunkQuerier{q, r.reads}, err
}

type recordedQuerier struct {
	storage.Querier

	reads *selections
}

// Select implements storage.Querier.
func (q recordedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	q.reads.add(matchers)
	return q.Querier.Select(ctx, sorted, hints, matchers...)
}

type recordedChunkQuerier struct {
	storage.ChunkQuerier

	reads *selections
}

// Select implements storage.ChunkQuerier.
func (q recordedChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	q.reads.add(matchers)
	return q.ChunkQuerier.Select(ctx, sorted, hints, matchers...)
}
