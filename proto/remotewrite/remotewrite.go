// Package remotewrite encodes samples as the messages of Prometheus' remote
// write protocol, 1.0 and 2.0, compressed as the protocol demands.
//
// It sends nothing. Each sample is a series of its own in a message: who uses
// this writes few samples of many series.
package remotewrite

import (
	"fmt"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/util/compression"
)

// Sample is one sample. At most one of the histograms is set; without one, F
// is the value.
type Sample struct {
	Labels labels.Labels
	// T is in milliseconds since 1970.
	T  int64
	F  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Encode makes the body of a request of the protocol version that message
// names; everything but 2.0 is 1.0.
func Encode(samples []Sample, message remoteapi.WriteMessageType) ([]byte, error) {
	var body []byte
	var err error
	if message == remoteapi.WriteV2MessageType {
		body, err = requestV2(samples).Marshal()
	} else {
		body, err = requestV1(samples).Marshal()
	}
	if err != nil {
		return nil, fmt.Errorf("encode remote-write request: %w", err)
	}
	return compression.Encode(compression.Snappy, body, nil)
}

func requestV1(samples []Sample) *prompb.WriteRequest {
	req := &prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(samples))}
	for i, s := range samples {
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(s.Labels, nil)}
		switch {
		case s.H != nil:
			ts.Histograms = []prompb.Histogram{prompb.FromIntHistogram(s.T, s.H)}
		case s.FH != nil:
			h := prompb.FromFloatHistogram(s.T, s.FH)
			h.CustomValues = s.FH.CustomValues // which that function forgets
			ts.Histograms = []prompb.Histogram{h}
		default:
			ts.Samples = []prompb.Sample{{Value: s.F, Timestamp: s.T}}
		}
		req.Timeseries[i] = ts
	}
	return req
}

func requestV2(samples []Sample) *writev2.Request {
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{Timeseries: make([]writev2.TimeSeries, len(samples))}
	for i, s := range samples {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.Labels, nil)}
		switch {
		case s.H != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(s.T, s.H)}
		case s.FH != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(s.T, s.FH)}
		default:
			ts.Samples = []writev2.Sample{{Value: s.F, Timestamp: s.T}}
		}
		req.Timeseries[i] = ts
	}
	req.Symbols = symbols.Symbols()
	return req
}
