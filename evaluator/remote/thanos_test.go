package remote

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	thanosv1 "github.com/tocsin-rules/tocsin/proto/thanos/v1"
)

// querier answers as it is told, and as no Thanos would. Package evaluator
// tests the client against real ones.
type querier struct {
	thanosv1.UnimplementedQueryServer
	thanosv1.UnimplementedStoreServer
	messages []*thanosv1.QueryResponse
	series   []*thanosv1.SeriesResponse
	err      error
	// called gets the request, and the metadata, of each call.
	called chan call
}

type call struct {
	instant  *thanosv1.QueryRequest
	ranged   *thanosv1.QueryRangeRequest
	metadata metadata.MD
}

func (q querier) Query(req *thanosv1.QueryRequest, s grpc.ServerStreamingServer[thanosv1.QueryResponse]) error {
	return q.answer(call{instant: req}, s)
}

func (q querier) QueryRange(req *thanosv1.QueryRangeRequest, s grpc.ServerStreamingServer[thanosv1.QueryResponse]) error {
	return q.answer(call{ranged: req}, s)
}

func (q querier) answer(c call, s grpc.ServerStreamingServer[thanosv1.QueryResponse]) error {
	if q.called != nil {
		c.metadata, _ = metadata.FromIncomingContext(s.Context())
		q.called <- c
	}
	for _, m := range q.messages {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return q.err
}

func (q querier) Series(_ *thanosv1.SeriesRequest, s grpc.ServerStreamingServer[thanosv1.SeriesResponse]) error {
	for _, m := range q.series {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return q.err
}

func startQuerier(t *testing.T, q querier) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	thanosv1.RegisterQueryServer(s, q)
	thanosv1.RegisterStoreServer(s, q)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func newThanos(t *testing.T, cfg ThanosConfig, api *HTTP) *Thanos {
	t.Helper()
	cfg.MaxConcurrent, cfg.MaxResponseBytes, cfg.MaxSamples = 2, 2000, 100
	c, err := NewThanos(cfg, api)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// asThanos is a client of a querier whose HTTP API must not be asked.
func asThanos(t *testing.T, q querier) *Thanos {
	t.Helper()
	return newThanos(t, ThanosConfig{Address: startQuerier(t, q)}, serve(t, http.StatusTeapot, "HTTP is not to be asked"))
}

func one(ts *thanosv1.TimeSeries) []*thanosv1.QueryResponse {
	return []*thanosv1.QueryResponse{{Result: &thanosv1.QueryResponse_Timeseries{Timeseries: ts}}}
}

func sampleAt(ms int64) []*thanosv1.Sample { return []*thanosv1.Sample{{Value: 1, Timestamp: ms}} }

func TestThanosRefusesMalformedAnswers(t *testing.T) {
	t.Parallel()
	vector, scalar, grid := at("x", 5000), at("1", 5000), plan.Fragment{Expr: "x", Window: plan.Window{Start: 1000, End: 5000, Step: 2000}}
	unsorted := []*thanosv1.Label{{Name: "b"}, {Name: "a"}}
	for name, tc := range map[string]struct {
		fragment plan.Fragment
		messages []*thanosv1.QueryResponse
		kind     Kind
		text     string
	}{
		"a message of another version":    {vector, []*thanosv1.QueryResponse{{}}, KindBackend, "another version of the protocol"},
		"a warning about the data":        {vector, []*thanosv1.QueryResponse{{Result: &thanosv1.QueryResponse_Warnings{Warnings: "store away"}}}, KindBackend, "may be partial: store away"},
		"a warning behind a remark":       {vector, []*thanosv1.QueryResponse{{Result: &thanosv1.QueryResponse_Warnings{Warnings: "store away, PromQL info: i"}}}, KindBackend, "may be partial: store away"},
		"a series without a sample":       {vector, one(&thanosv1.TimeSeries{}), KindBackend, "0 samples"},
		"two samples for one time":        {vector, one(&thanosv1.TimeSeries{Samples: append(sampleAt(5000), sampleAt(5000)...)}), KindBackend, "2 samples"},
		"unsorted labels":                 {vector, one(&thanosv1.TimeSeries{Labels: unsorted, Samples: sampleAt(5000)}), KindBackend, "not sorted"},
		"a histogram of garbage":          {vector, one(&thanosv1.TimeSeries{Histograms: [][]byte{{255}}}), KindBackend, "native histogram"},
		"no scalar":                       {scalar, nil, KindBackend, "0 series for a scalar"},
		"a scalar with labels":            {scalar, one(&thanosv1.TimeSeries{Labels: []*thanosv1.Label{{Name: "a", Value: "b"}}, Samples: sampleAt(5000)}), KindBackend, "for a scalar"},
		"a sample off the grid":           {grid, one(&thanosv1.TimeSeries{Samples: sampleAt(2000)}), KindBackend, "where none can be"},
		"a sample after the end":          {grid, one(&thanosv1.TimeSeries{Samples: sampleAt(7000)}), KindBackend, "where none can be"},
		"an answer that is too large":     {vector, one(&thanosv1.TimeSeries{Labels: []*thanosv1.Label{{Name: "a", Value: string(make([]byte, 1990))}}, Samples: sampleAt(5000)}), KindLimit, "2000"},
		"an expression that does not say": {at("x +", 5000), nil, KindUser, "parse error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := execute(asThanos(t, querier{messages: tc.messages}), tc.fragment)
			require.ErrorContains(t, r.Err, tc.text)
			require.Equal(t, tc.kind, kindOf(t, r.Err))
			require.Nil(t, r.Value)
		})
	}
}

func TestThanosFailuresHaveAKind(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		kind Kind
	}{
		"a mistake":                {status.Error(codes.Aborted, "many-to-many matching not allowed"), KindUser},
		"a mistake, found early":   {status.Error(codes.InvalidArgument, "invalid engine parameter"), KindUser},
		"a limit of the engine":    {status.Error(codes.Aborted, "query processing would load too many samples into memory"), KindLimit},
		"a limit of a store":       {status.Error(codes.ResourceExhausted, "series"), KindLimit},
		"a store that is away":     {status.Error(codes.Aborted, "proxy Series(): rpc error: code = Unavailable desc = invalid parameter"), KindBackend},
		"something unknown":        {status.Error(codes.Aborted, "something"), KindBackend},
		"a timeout there":          {status.Error(codes.DeadlineExceeded, "late"), KindTimeout},
		"no Query API":             {status.Error(codes.Unimplemented, "unknown service thanos.Query"), KindBackend},
		"a cancellation there":     {status.Error(codes.Canceled, "canceled"), KindBackend},
		"an end after some series": {status.Error(codes.Unavailable, "stopping"), KindBackend},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := asThanos(t, querier{messages: one(&thanosv1.TimeSeries{Samples: sampleAt(5000)}), err: tc.err})
			r := execute(c, at("x", 5000))
			require.Equal(t, tc.kind, kindOf(t, r.Err))
			require.Nil(t, r.Value)
		})
	}
}

func TestThanosDecodesEveryValue(t *testing.T) {
	t.Parallel()
	h := &histogram.FloatHistogram{
		Schema: 1, Count: 3, Sum: 4, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, 2}, NegativeSpans: []histogram.Span{},
	}
	message := prompb.FromFloatHistogram(3000, h)
	encoded, err := message.Marshal()
	require.NoError(t, err)
	batch := &thanosv1.TimeSeriesBatch{Series: []*thanosv1.TimeSeries{
		// It has the time of a scrape; the vector has that of the query.
		{Labels: []*thanosv1.Label{{Name: "__name__", Value: "x"}, {Name: "a", Value: "1"}}, Samples: sampleAt(4321)},
		{Histograms: [][]byte{encoded}},
	}}
	c := asThanos(t, querier{messages: []*thanosv1.QueryResponse{
		{Result: &thanosv1.QueryResponse_Warnings{Warnings: "PromQL info: i, PromQL warning: w"}},
		{Result: &thanosv1.QueryResponse_TimeseriesBatch{TimeseriesBatch: batch}},
		{Result: &thanosv1.QueryResponse_Stats{Stats: &thanosv1.QueryStats{SamplesTotal: 7}}},
	}})
	r := execute(c, at("x", 5000))
	require.NoError(t, r.Err)
	require.Equal(t, promql.Vector{
		{Metric: labels.FromStrings(labels.MetricName, "x", "a", "1"), T: 5000, F: 1},
		{Metric: labels.EmptyLabels(), T: 5000, H: h},
	}, r.Value)
	require.EqualValues(t, 7, r.SamplesRead)
	require.Len(t, r.Warnings, 2)

	c = asThanos(t, querier{messages: one(&thanosv1.TimeSeries{Samples: sampleAt(5000)})})
	require.Equal(t, promql.Scalar{T: 5000, V: 1}, execute(c, at("1", 5000)).Value)
	require.NoError(t, c.Probe(t.Context()))
	grid := plan.Fragment{Expr: "1", Window: plan.Window{Start: 1000, End: 5000, Step: 2000}}
	require.Equal(t, promql.Matrix{{Metric: labels.EmptyLabels(), Floats: []promql.FPoint{{T: 5000, F: 1}}}}, execute(c, grid).Value)
}

func TestThanosRequests(t *testing.T) {
	t.Parallel()
	called := make(chan call, 1)
	c := asThanos(t, querier{called: called})
	lookback := Options{Lookback: 7 * time.Second}
	_ = c.Execute(t.Context(), []plan.Fragment{at("x", 5000)}, lookback)
	instant := (<-called).instant
	require.Equal(t, "x", instant.GetQuery())
	require.EqualValues(t, 5, instant.GetTimeSeconds())
	require.EqualValues(t, 7, instant.GetLookbackDeltaSeconds())
	require.True(t, instant.GetEnableDedup())
	require.False(t, instant.GetEnablePartialResponse())

	_ = c.Execute(t.Context(), []plan.Fragment{{Expr: "x", Window: plan.Window{Start: 1000, End: 5000, Step: 2000}}}, lookback)
	ranged := (<-called).ranged
	require.Equal(t, []int64{1, 5, 2, 7}, []int64{ranged.GetStartTimeSeconds(), ranged.GetEndTimeSeconds(), ranged.GetIntervalSeconds(), ranged.GetLookbackDeltaSeconds()})
	require.True(t, ranged.GetEnableDedup())
	require.False(t, ranged.GetEnablePartialResponse())
}

// TestThanosAsksOverHTTPWhatTheQueryAPICannotExpress: it would be evaluated at
// another time, or have an empty answer.
func TestThanosAsksOverHTTPWhatTheQueryAPICannotExpress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fragment plan.Fragment
		opts     Options
	}{
		"a time within a second":   {at("x", 5001), Options{}},
		"the start of 1970":        {at("x", 0), Options{}},
		"a step within a second":   {plan.Fragment{Expr: "x", Window: plan.Window{Start: 1000, End: 5000, Step: 500}}, Options{}},
		"an end within a second":   {plan.Fragment{Expr: "x", Window: plan.Window{Start: 1000, End: 5500, Step: 1000}}, Options{}},
		"a lookback of half of it": {at("x", 5000), Options{Lookback: 500 * time.Millisecond}},
		"a range vector":           {at("x[5m]", 5000), Options{}},
		"a string":                 {at(`"x"`, 5000), Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := asThanos(t, querier{err: status.Error(codes.Internal, "gRPC is not to be asked")}).Execute(t.Context(), []plan.Fragment{tc.fragment}, tc.opts)
			require.ErrorContains(t, r[0].Err, "HTTP is not to be asked")
		})
	}
}

func TestThanosSeries(t *testing.T) {
	t.Parallel()
	chunk := func(ts ...int64) *thanosv1.AggrChunk {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for _, ms := range ts {
			app.Append(ms, float64(ms))
		}
		return &thanosv1.AggrChunk{MinTime: ts[0], MaxTime: ts[len(ts)-1], Raw: &thanosv1.Chunk{Data: c.Bytes()}}
	}
	stored := func(replica string, chunks ...*thanosv1.AggrChunk) *thanosv1.SeriesResponse {
		return &thanosv1.SeriesResponse{Result: &thanosv1.SeriesResponse_Series{Series: &thanosv1.Series{
			Labels: []*thanosv1.Label{{Name: "a", Value: replica}}, Chunks: chunks,
		}}}
	}
	// What queries see is one series, {a="1"}.
	visible := one(&thanosv1.TimeSeries{Labels: []*thanosv1.Label{{Name: "a", Value: "1"}}, Samples: sampleAt(5000)})
	many := make([]int64, 101)
	for i := range many {
		many[i] = int64(1000 + i)
	}
	fetch := func(t *testing.T, series ...*thanosv1.SeriesResponse) ([]storage.Series, error) {
		c := asThanos(t, querier{messages: visible, series: series})
		return c.Series(t.Context(), storage.SelectHints{Start: 1000, End: 4000}, []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "a", "")})
	}
	for name, tc := range map[string]struct {
		series []*thanosv1.SeriesResponse
		kind   Kind
		text   string
	}{
		"a warning":               {[]*thanosv1.SeriesResponse{{Result: &thanosv1.SeriesResponse_Warning{Warning: "store away"}}}, KindBackend, "may be partial: store away"},
		"a replica":               {[]*thanosv1.SeriesResponse{stored("2", chunk(2000))}, KindBackend, "deduplicates replicas"},
		"a chunk of garbage":      {[]*thanosv1.SeriesResponse{stored("1", &thanosv1.AggrChunk{Raw: &thanosv1.Chunk{Data: []byte{0, 9, 255}}})}, KindBackend, "malformed"},
		"an encoding of tomorrow": {[]*thanosv1.SeriesResponse{stored("1", &thanosv1.AggrChunk{Raw: &thanosv1.Chunk{Type: 9, Data: []byte{0, 1, 2}}})}, KindBackend, "malformed"},
		"a downsampled chunk":     {[]*thanosv1.SeriesResponse{stored("1", &thanosv1.AggrChunk{})}, KindBackend, "downsampled"},
		"too many samples":        {[]*thanosv1.SeriesResponse{stored("1", chunk(many...))}, KindLimit, "max_samples (100)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fetch(t, tc.series...)
			require.ErrorContains(t, err, tc.text)
			require.Equal(t, tc.kind, kindOf(t, err))
		})
	}
	list, err := fetch(t, stored("1", chunk(500, 1000, 2000), chunk(2000, 3000), chunk(4000, 5000)), stored("2", chunk(5000)))
	require.NoError(t, err)
	require.Len(t, list, 1)
	var got []int64
	for it := list[0].Iterator(nil); it.Next() != chunkenc.ValNone; {
		got = append(got, it.AtT())
	}
	require.Equal(t, []int64{1000, 2000, 3000, 4000}, got, "chunks overlap, and exceed what was asked for")
}

// TestThanosCredentials: calls carry what HTTP requests would.
func TestThanosCredentials(t *testing.T) {
	t.Parallel()
	tokens := tokenServer(t)
	for name, tc := range map[string]struct {
		cfg    config.HTTPClientConfig
		header string
		want   string
	}{
		"bearer": {config.HTTPClientConfig{Authorization: &config.Authorization{Type: "Bearer", Credentials: "token"}}, "authorization", "Bearer token"},
		"basic":  {config.HTTPClientConfig{BasicAuth: &config.BasicAuth{Username: "u", Password: "p"}}, "authorization", "Basic dTpw"},
		"oauth2": {config.HTTPClientConfig{OAuth2: &config.OAuth2{ClientID: "id", ClientSecret: "hunter2", TokenURL: tokens}}, "authorization", "Bearer fetched"},
		"tenant": {config.HTTPClientConfig{HTTPHeaders: &config.Headers{Headers: map[string]config.Header{"THANOS-TENANT": {Values: []string{"a"}}}}}, "thanos-tenant", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			called := make(chan call, 1)
			c := newThanos(t, ThanosConfig{Address: startQuerier(t, querier{called: called}), Credentials: tc.cfg}, serve(t, 200, ""))
			require.NoError(t, execute(c, at("x", 5000)).Err)
			require.Equal(t, []string{tc.want}, (<-called).metadata.Get(tc.header))
		})
	}
	wrong := config.HTTPClientConfig{OAuth2: &config.OAuth2{ClientID: "id", ClientSecret: "wrong-secret", TokenURL: tokens}}
	c := newThanos(t, ThanosConfig{Address: startQuerier(t, querier{}), Credentials: wrong}, serve(t, 200, ""))
	err := execute(c, at("x", 5000)).Err
	require.Equal(t, KindBackend, kindOf(t, err))
	require.NotContains(t, err.Error(), "wrong-secret")
}

func TestThanosThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	c := asThanos(t, querier{called: make(chan call)})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// More fragments than may be asked at a time: those that wait end, too.
	for _, r := range c.Execute(ctx, []plan.Fragment{at("x", 5000), at("x", 5000), at("x", 5000)}, Options{}) {
		require.Equal(t, KindTimeout, kindOf(t, r.Err))
	}
	u, err := url.Parse("http://" + startQuerier(t, querier{}))
	require.NoError(t, err)
	require.Equal(t, KindBackend, kindOf(t, newHTTP(t, u.String()).Probe(t.Context())), "HTTP is not spoken there")
}
