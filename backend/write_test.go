package backend_test

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend"
)

var (
	protocols = []remoteapi.WriteMessageType{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}
	east      = backend.Partition{Labels: labels.FromStrings("cluster", "east")}
	global    = backend.Partition{Absent: []string{"cluster"}}
)

func TestRemoteWriteKeepsEverySampleAsItIs(t *testing.T) {
	t.Parallel()
	exponential := &histogram.FloatHistogram{
		Schema: 1, Count: 8, Sum: 3, ZeroThreshold: 0.01, ZeroCount: 2,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{1, 2},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []float64{3},
		CounterResetHint: histogram.GaugeType,
	}
	for _, msg := range protocols {
		t.Run(string(msg), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, backend.StoreConfig{Partition: east}, backend.APIConfig{}).start()
			_, err := f.write(msg,
				at(`a{cluster="east"}`, 1000, 1),
				at(`b`, 1000, math.Float64frombits(value.StaleNaN)),
				at(`c{x="y"}`, 1000, math.Float64frombits(value.NormalNaN)),
				at(`c{x="y"}`, 2000, math.Inf(-1)),
				sample{series: mustLabels(`d`), t: 1000, h: exponential},
			)
			require.NoError(t, err)
			require.Equal(t, []string{
				`{__name__="a", cluster="east"} 1@1000`,
				`{__name__="b", cluster="east"} NaN(7ff0000000000002)@1000`,
				`{__name__="c", cluster="east", x="y"} NaN(7ff8000000000001)@1000 -Inf@2000`,
				`{__name__="d", cluster="east"} ` + exponential.String() + `@1000`,
			}, f.series())
		})
	}
}

func TestLateSamplesAreAcceptedWithinTheWindow(t *testing.T) {
	t.Parallel()
	now := time.Now().UnixMilli()
	hour := time.Hour.Milliseconds()
	for _, msg := range protocols {
		t.Run(string(msg), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, backend.StoreConfig{}, backend.APIConfig{}).start()
			_, err := f.write(msg, at("a", now, 3))
			require.NoError(t, err)
			_, err = f.write(msg, at("a", now-hour, 1))
			require.NoError(t, err)
			_, err = f.write(msg, at("a", now-3*hour, 0))
			require.ErrorContains(t, err, "400")
			require.Len(t, f.series(), 1)
			require.Contains(t, f.series()[0], "1@")
			require.NotContains(t, f.series()[0], " 0@")
		})
	}
}

func TestSeriesOfOtherPartitionsAreRefused(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name      string
		partition backend.Partition
		series    string
		reason    string
		message   string
	}{
		{"another value of an external label", east, `bad{cluster="west"}`, "other_partition", `series {__name__="bad", cluster="west"} has cluster="west", but this store holds cluster="east" only`},
		{"a label that must be absent", global, `bad{cluster="west"}`, "forbidden_label", `series {__name__="bad", cluster="west"} must not carry the label "cluster" in this store`},
	}
	for _, tc := range cases {
		for _, msg := range protocols {
			t.Run(tc.name+" by "+string(msg), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, backend.StoreConfig{Partition: tc.partition}, backend.APIConfig{}).start()
				stats, err := f.write(msg, at("good1", 1000, 1), at(tc.series, 1000, 1), at("good2", 1000, 1))
				require.ErrorContains(t, err, "400")
				require.ErrorContains(t, err, tc.message)
				require.NotContains(t, strings.Join(f.series(), "\n"), "bad")
				require.Equal(t, 1, f.counter("tocsin_backend_refused_samples_total", "reason", tc.reason))
				if msg == remoteapi.WriteV2MessageType {
					require.Equal(t, 2, stats.Samples)
					require.Len(t, f.series(), 2)
				}
			})
		}
	}
}

// counter returns the value of a counter with one label.
func (f *fixture) counter(name, label, value string) int {
	f.t.Helper()
	families, err := f.reg.Gather()
	require.NoError(f.t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					return int(m.GetCounter().GetValue())
				}
			}
		}
	}
	f.t.Fatalf("no counter %s{%s=%q}", name, label, value)
	return 0
}

func TestBadBodiesAreRefused(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 4096)
	tooLarge := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{at(`a{x="`+big+`"}`, 1000, 1).v1()}}
	decoded, err := tooLarge.Marshal()
	require.NoError(t, err)
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(i * i * 31)
	}
	write := http.Header{"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"}}
	cases := []struct {
		name   string
		path   string
		header http.Header
		body   []byte
		status int
		text   string
	}{
		{"garbage instead of Snappy", "/api/v1/write", write, []byte("garbage"), 400, ""},
		{"garbage inside Snappy", "/api/v1/write", write, snappy.Encode(nil, []byte("garbage")), 400, ""},
		{"an empty body", "/api/v1/write", write, nil, 400, ""},
		{"a body over the limit", "/api/v1/write", write, random[:2000], 413, "limit of 1024 bytes"},
		{"a body that grows over the limit", "/api/v1/write", write, snappy.Encode(nil, decoded), 413, "limit of 2048 bytes"},
		{"a body that claims to grow to 4 GiB", "/api/v1/write", write, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, 413, "limit of 2048 bytes"},
		{"another compression", "/api/v1/write", http.Header{"Content-Encoding": {"gzip"}}, []byte("x"), 415, ""},
		{"another message", "/api/v1/write", http.Header{"Content-Type": {"text/plain"}}, snappy.Encode(nil, []byte("x")), 415, ""},
		{"a remote read that claims to grow to 4 GiB", "/api/v1/read", nil, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, 413, "limit of 2048 bytes"},
		{"garbage in a remote read", "/api/v1/read", nil, []byte("garbage"), 400, ""},
		{"a query in a form over the limit", "/api/v1/query", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte("query=" + big), 400, ""},
	}
	f := newFixture(t, backend.StoreConfig{}, backend.APIConfig{MaxRequestBytes: 1024, MaxDecodedBytes: 2048}).start()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, body := f.post(tc.path, tc.header, tc.body)
			require.Equal(t, strconv.Itoa(tc.status), strconv.Itoa(status), body)
			require.Contains(t, body, tc.text)
		})
	}
}
