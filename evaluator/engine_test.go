package evaluator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
)

// TestRangeQueriesEqualOnePrometheus runs every expression over a range whose
// end is not on the grid.
func TestRangeQueriesEqualOnePrometheus(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, m, sampleData(rand.New(rand.NewPCG(3, 4))))
			var differences []string
			for _, e := range expressions {
				if d := f.rangeDifference(t, e); d != "" {
					differences = append(differences, e+"\n"+d)
				}
			}
			require.Empty(t, strings.Join(differences, "\n"))
		})
	}
}

func (f *fleet) rangeDifference(t *testing.T, expr string) string {
	start, end, step := slot.Add(-7*time.Minute), slot.Add(10*time.Second), 35*time.Second
	ctx := context.Background()
	reference, err := f.engine.NewRangeQuery(ctx, f.whole, nil, expr, start, end, step)
	require.NoError(t, err)
	defer reference.Close()
	ours, err := f.evaluator.QueryEngine().NewRangeQuery(ctx, nil, nil, expr, start, end, step)
	require.NoError(t, err)
	defer ours.Close()
	return resultDifference(expr, reference.Exec(ctx), ours.Exec(ctx))
}

// TestPrometheusAPIOverTheEvaluator serves Prometheus' own API from an
// evaluator, as members do.
func TestPrometheusAPIOverTheEvaluator(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overVirtual, sampleData(rand.New(rand.NewPCG(5, 6))))
	s := httptest.NewServer(promserver.API(f.evaluator.QueryEngine(), f.evaluator.Queryable()))
	t.Cleanup(s.Close)
	at := fmt.Sprintf("%.3f", float64(slot.UnixMilli())/1000)
	for name, tc := range map[string]struct {
		path, want string
		form       url.Values
	}{
		"an instant vector":            {path: "query", form: url.Values{"query": {"count by (cluster) (gauge)"}, "time": {at}}, want: `"resultType":"vector"`},
		"a scalar":                     {path: "query", form: url.Values{"query": {"1 + 1"}, "time": {at}}, want: `{"resultType":"scalar","result":[1600000000.123,"2"]}`},
		"a string":                     {path: "query", form: url.Values{"query": {`"text"`}, "time": {at}}, want: `"result":[1600000000.123,"text"]`},
		"a range vector":               {path: "query", form: url.Values{"query": {"only_west[1m]"}, "time": {at}}, want: `"cluster":"west"`},
		"a range":                      {path: "query_range", form: url.Values{"query": {"sum(gauge)"}, "start": {at}, "end": {at}, "step": {"15"}}, want: `"resultType":"matrix"`},
		"series":                       {path: "series", form: url.Values{"match[]": {`gauge{cluster="east"}`}}, want: `"cluster":"east"`},
		"label names":                  {path: "labels", form: url.Values{}, want: `"cluster"`},
		"values of a partition label":  {path: "label/cluster/values", form: url.Values{}, want: `["east","west"]`},
		"values of another label":      {path: "label/job/values", form: url.Values{"match[]": {`gauge{cluster="east"}`}}, want: `["a","b"]`},
		"a mistake in the query":       {path: "query", form: url.Values{"query": {"sum("}, "time": {at}}, want: `"errorType":"bad_data"`},
		"a query that cannot be":       {path: "query", form: url.Values{"query": {"gauge / on (job) gauge2"}, "time": {at}}, want: `"errorType":"execution"`},
		"a statistics request":         {path: "query", form: url.Values{"query": {"sum(gauge)"}, "time": {at}, "stats": {"all"}}, want: `"stats"`},
		"a range of a range vector":    {path: "query_range", form: url.Values{"query": {"gauge[1m]"}, "start": {at}, "end": {at}, "step": {"15"}}, want: `invalid expression type`},
		"a lookback that sees nothing": {path: "query", form: url.Values{"query": {"gauge"}, "time": {at}, "lookback_delta": {"1ms"}}, want: `"result":[]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := http.Get(s.URL + "/api/v1/" + tc.path + "?" + tc.form.Encode())
			require.NoError(t, err)
			defer resp.Body.Close()
			var body json.RawMessage
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
			require.Contains(t, string(body), tc.want)
		})
	}
}

func TestQueryOfTheEngineCanBeCancelled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, overHTTP, nil)
	q, err := f.evaluator.QueryEngine().NewInstantQuery(context.Background(), nil, nil, "sum(x)", slot)
	require.NoError(t, err)
	require.Equal(t, "sum(x)", q.String())
	require.Equal(t, "sum(x)", q.Statement().(*parser.EvalStmt).Expr.String())
	q.Cancel()
	var canceled promql.ErrQueryCanceled
	require.ErrorAs(t, q.Exec(context.Background()).Err, &canceled)
	q.Close()
}
