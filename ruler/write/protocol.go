package write

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// protocol is a version of remote write.
type protocol struct {
	contentType, version string
	encode               func([]outgoing) ([]byte, error)
}

var (
	protocolV1 = protocol{
		contentType: "application/x-protobuf",
		version:     "0.1.0",
		encode:      encodeV1,
	}
	protocolV2 = protocol{
		contentType: "application/x-protobuf;proto=io.prometheus.write.v2.Request",
		version:     "2.0.0",
		encode:      encodeV2,
	}
)

func encodeV1(series []outgoing) ([]byte, error) {
	req := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(series))}
	for i, s := range series {
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(s.Metric, nil)}
		if s.H != nil {
			h := prompb.FromFloatHistogram(s.T, s.H)
			h.CustomValues = s.H.CustomValues // which that function forgets
			ts.Histograms = []prompb.Histogram{h}
		} else {
			ts.Samples = []prompb.Sample{{Timestamp: s.T, Value: s.F}}
		}
		req.Timeseries[i] = ts
	}
	message, err := req.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode write request 1.0: %w", err)
	}
	return message, nil
}

func encodeV2(series []outgoing) ([]byte, error) {
	symbols := writev2.NewSymbolTable()
	req := writev2.Request{Timeseries: make([]writev2.TimeSeries, len(series))}
	for i, s := range series {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.Metric, nil)}
		if s.H != nil {
			ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(s.T, s.H)}
		} else {
			ts.Samples = []writev2.Sample{{Timestamp: s.T, Value: s.F}}
		}
		req.Timeseries[i] = ts
	}
	req.Symbols = symbols.Symbols()
	message, err := req.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode write request 2.0: %w", err)
	}
	return message, nil
}

// reason sorts a refusal into one of few classes, by the words that
// Prometheus' storage uses.
func (a answer) reason() string {
	text := strings.ToLower(a.text)
	for _, r := range []struct{ word, reason string }{
		{"out of order", "out_of_order"},
		{"out of bounds", "out_of_bounds"},
		{"too old", "out_of_bounds"},
		{"duplicate sample", "duplicate_value"},
		{"label", "labels"},
	} {
		if strings.Contains(text, r.word) {
			return r.reason
		}
	}
	return "other"
}
