package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

var (
	instant  = plan.Fragment{Expr: "x", Window: plan.Window{Start: 1600000000123, End: 1600000000123}}
	overtime = plan.Fragment{Expr: "x", Window: plan.Window{Start: 1000, End: 3500, Step: 1000}}
)

func newHTTP(t *testing.T, base string) *HTTP {
	t.Helper()
	u, err := url.Parse(base)
	require.NoError(t, err)
	h, err := NewHTTP(HTTPConfig{
		Name: "b", URL: u, Client: config.DefaultHTTPClientConfig, MaxConcurrent: 2, MaxResponseBytes: 2000,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

// serve answers every request with a status and a body.
func serve(t *testing.T, status int, body string) *HTTP {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return newHTTP(t, s.URL)
}

func execute(c Client, f plan.Fragment) Result {
	return c.Execute(context.Background(), []plan.Fragment{f}, Options{})[0]
}

func vectorOf(results string) string {
	return `{"status":"success","data":{"resultType":"vector","result":` + results + `}}`
}

func matrixOf(values string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":` + values + `}]}}`
}

func failure(errorType, text string) string {
	return fmt.Sprintf(`{"status":"error","errorType":%q,"error":%q}`, errorType, text)
}

func TestHTTPFailuresHaveAKind(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status   int
		body     string
		fragment plan.Fragment
		kind     Kind
		text     string
	}{
		"a page of a proxy":                     {502, "<html>\n bad   gateway", instant, KindBackend, "502 Bad Gateway: <html> bad gateway"},
		"missing credentials":                   {401, "", instant, KindBackend, "401"},
		"a wrong path":                          {404, "404 page not found", instant, KindBackend, "404"},
		"too many requests":                     {429, "slow down", instant, KindLimit, "slow down"},
		"a parse error":                         {400, failure("bad_data", "1:1: parse error"), instant, KindUser, "1:1: parse error"},
		"a many-to-many match":                  {422, failure("execution", "many-to-many"), instant, KindUser, "many-to-many"},
		"too many samples":                      {422, failure("execution", "query processing would load too many samples into memory"), instant, KindLimit, "too many samples"},
		"too many steps":                        {400, failure("bad_data", "exceeded maximum resolution of 11,000 points"), overtime, KindLimit, "exceeded"},
		"a store that is away":                  {422, failure("execution", "proxy Series(): rpc error: code = Unavailable"), instant, KindBackend, "proxy Series"},
		"a limit of Mimir":                      {422, failure("execution", "the query (err-mimir-max-series-per-query)"), instant, KindLimit, "err-mimir"},
		"an error of VictoriaMetrics":           {422, failure("422", "cannot parse"), instant, KindUser, "cannot parse"},
		"a timeout there":                       {503, failure("timeout", "timed out"), instant, KindTimeout, "timed out"},
		"a cancellation there":                  {503, failure("canceled", "canceled"), instant, KindBackend, "canceled"},
		"an internal error":                     {500, failure("internal", "storage"), instant, KindInternal, "storage"},
		"a server that starts":                  {503, "Service Unavailable", instant, KindBackend, "503"},
		"garbage":                               {200, "hello", instant, KindBackend, "not JSON of the Prometheus API"},
		"an empty body":                         {200, "", instant, KindBackend, "not JSON"},
		"half an answer":                        {200, vectorOf("[]")[:30], instant, KindBackend, "not JSON"},
		"an answer and more":                    {200, vectorOf("[]") + "{}", instant, KindBackend, "more after the end"},
		"a failure that claims success":         {200, failure("internal", "x"), instant, KindBackend, `status "error"`},
		"a partial answer":                      {200, `{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`, instant, KindBackend, "partial"},
		"a warning that is not about the query": {200, `{"status":"success","warnings":["PromQL warning: w","no store matched"],"data":{"resultType":"vector","result":[]}}`, instant, KindBackend, "may be partial: no store matched"},
		"a null result":                         {200, vectorOf("null"), instant, KindBackend, "null"},
		"a sample without value":                {200, vectorOf(`[{"metric":{}}]`), instant, KindBackend, "no value"},
		"a value that is no number":             {200, vectorOf(`[{"metric":{},"value":[1600000000.123,"x"]}]`), instant, KindBackend, "not a sample value"},
		"a bare value":                          {200, vectorOf(`[{"metric":{},"value":[1600000000.123,1]}]`), instant, KindBackend, "not a sample value"},
		"a time that is no number":              {200, vectorOf(`[{"metric":{},"value":["x","1"]}]`), instant, KindBackend, "not a time"},
		"a sample of another time":              {200, vectorOf(`[{"metric":{},"value":[1600000000.124,"1"]}]`), instant, KindBackend, "asked for"},
		"an unknown result type":                {200, `{"status":"success","data":{"resultType":"streams","result":[]}}`, instant, KindBackend, "streams"},
		"a vector for a range":                  {200, vectorOf("[]"), overtime, KindBackend, `result type "vector" of a range query`},
		"a sample off the grid":                 {200, matrixOf(`[[1.5,"1"]]`), overtime, KindBackend, "where none can be"},
		"a sample after the end":                {200, matrixOf(`[[4,"1"]]`), overtime, KindBackend, "where none can be"},
		"samples out of order":                  {200, matrixOf(`[[2,"1"],[1,"1"]]`), overtime, KindBackend, "where none can be"},
		"a native histogram":                    {200, vectorOf(`[{"metric":{},"histogram":[1600000000.123,{}]}]`), instant, KindBackend, "native histogram"},
		"native histograms":                     {200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[1,{}]]}]}}`, overtime, KindBackend, "native histogram"},
		"an answer that is too large":           {200, vectorOf("[]") + strings.Repeat(" ", 3000), instant, KindLimit, "max_response_bytes (2000)"},
		"an error page that is very large ":     {500, strings.Repeat("x", 3000), instant, KindLimit, "max_response_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := execute(serve(t, tc.status, tc.body), tc.fragment)
			require.ErrorContains(t, r.Err, tc.text)
			var e *Error
			require.ErrorAs(t, r.Err, &e)
			require.Equal(t, tc.kind, e.Kind)
			require.Nil(t, r.Value)
		})
	}
}

func TestHTTPHistogramErrorHasAName(t *testing.T) {
	t.Parallel()
	r := execute(serve(t, 200, vectorOf(`[{"metric":{},"histogram":[1600000000.123,{}]}]`)), instant)
	require.ErrorIs(t, r.Err, ErrHistogram)
}

func TestHTTPBackendThatIsAway(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	h := newHTTP(t, s.URL)
	r := execute(h, instant)
	var e *Error
	require.ErrorAs(t, r.Err, &e)
	require.Equal(t, KindBackend, e.Kind)
	require.Error(t, h.Probe(context.Background()))
}

func TestHTTPBackendThatHangs(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	// More fragments than may be asked at a time: those that wait end, too.
	for _, r := range newHTTP(t, s.URL).Execute(ctx, []plan.Fragment{instant, instant, instant, instant}, Options{}) {
		var e *Error
		require.ErrorAs(t, r.Err, &e)
		require.Equal(t, KindTimeout, e.Kind)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var e *Error
	require.ErrorAs(t, newHTTP(t, s.URL).Execute(ctx, []plan.Fragment{instant}, Options{})[0].Err, &e)
	require.Equal(t, KindCanceled, e.Kind)
}

func TestHTTPErrorsDoNotShowTheURL(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	h := newHTTP(t, s.URL+"/?token=secret")
	require.NotContains(t, execute(h, instant).Err.Error(), "secret")
	denied := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(denied.Close)
	for _, base := range []string{s.URL, denied.URL} {
		cfg := newHTTP(t, base+"/?token=secret").cfg
		read, err := NewChunkedRead(cfg, time.Second)
		require.NoError(t, err)
		source := struct {
			SeriesSource
			LabelSource
		}{read, h}
		q, err := NewRaw([]*Reader{NewReader(plan.Backend{Name: "b"}, source)}).Querier(0, 1)
		require.NoError(t, err)
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "x"))
		require.False(t, set.Next())
		require.ErrorContains(t, set.Err(), "remote read")
		require.NotContains(t, set.Err().Error(), "secret")
	}
}

func TestHTTPDecodesEveryValue(t *testing.T) {
	t.Parallel()
	at := "1600000000.123"
	r := execute(serve(t, 200, vectorOf(fmt.Sprintf(
		`[{"metric":{"__name__":"x","b":"2","a":"1"},"value":[%[1]s,"NaN"]},{"metric":{},"value":[ %[1]s , "+Inf" ]},{"metric":{},"value":[%[1]s,"-Inf"]},{"metric":{},"value":[%[1]s,"-1.5e-7"]}]`, at))), instant)
	require.NoError(t, r.Err)
	v := r.Value.(promql.Vector)
	require.Equal(t, labels.FromStrings(labels.MetricName, "x", "a", "1", "b", "2"), v[0].Metric)
	require.True(t, math.IsNaN(v[0].F))
	require.Equal(t, []float64{math.Inf(1), math.Inf(-1), -1.5e-7}, []float64{v[1].F, v[2].F, v[3].F})
	require.Equal(t, instant.Window.Start, v[3].T)

	r = execute(serve(t, 200, `{"status":"success","data":{"resultType":"scalar","result":[`+at+`,"2"]}}`), instant)
	require.Equal(t, promql.Scalar{T: instant.Window.Start, V: 2}, r.Value)

	r = execute(serve(t, 200, matrixOf(`[[1,"1"],[3,"3"]]`)), overtime)
	require.Equal(t, []promql.FPoint{{T: 1000, F: 1}, {T: 3000, F: 3}}, r.Value.(promql.Matrix)[0].Floats)
}

func TestHTTPPassesAnnotationsOn(t *testing.T) {
	t.Parallel()
	r := execute(serve(t, 200, `{"status":"success","warnings":["PromQL warning: w"],"infos":["PromQL info: i"],"data":{"resultType":"vector","result":[]}}`), instant)
	require.NoError(t, r.Err)
	warnings, infos := r.Warnings.AsStrings("", 0, 0)
	require.ElementsMatch(t, []string{"PromQL warning: w"}, warnings)
	require.Equal(t, []string{"PromQL info: i"}, infos)
	require.ErrorIs(t, r.Warnings["PromQL warning: w"], annotations.PromQLWarning)
}

func TestHTTPRequests(t *testing.T) {
	t.Parallel()
	type call struct {
		path, query, accept, encoding string
		form                          url.Values
	}
	calls := make(chan call, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		query := r.URL.RawQuery
		r.URL.RawQuery = ""
		_ = r.ParseForm()
		calls <- call{r.URL.Path, query, r.Header.Get("Accept"), r.Header.Get("Accept-Encoding"), r.PostForm}
	}))
	t.Cleanup(s.Close)
	h := newHTTP(t, s.URL+"/prefix?nocache=1")

	_ = h.Execute(context.Background(), []plan.Fragment{instant}, Options{Lookback: 5 * time.Minute})
	c := <-calls
	require.Equal(t, call{"/prefix/api/v1/query", "nocache=1", "application/json", "identity", url.Values{"query": {"x"}, "time": {"1600000000.123"}}}, c)

	_ = h.Execute(context.Background(), []plan.Fragment{overtime}, Options{Lookback: time.Minute})
	c = <-calls
	require.Equal(t, "/prefix/api/v1/query_range", c.path)
	require.Equal(t, url.Values{"query": {"x"}, "start": {"1.000"}, "end": {"3.500"}, "step": {"1.000"}, "lookback_delta": {"60.000"}}, c.form)
}

func TestHTTPConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	var inFlight, most atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		_, _ = io.WriteString(w, vectorOf("[]"))
	}))
	t.Cleanup(s.Close)
	h := newHTTP(t, s.URL)
	done := make(chan error)
	for range 4 {
		go func() {
			var errs []error
			for _, r := range h.Execute(context.Background(), make([]plan.Fragment, 20), Options{}) {
				errs = append(errs, r.Err)
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 4 {
		require.NoError(t, <-done)
	}
	require.LessOrEqual(t, most.Load(), int64(2))
}
