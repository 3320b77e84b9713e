package backlog

import (
	"fmt"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/util/compression"
)

// sample is one sample as the backend is to get it. At most one of the
// histograms is set; without one, v is the value.
type sample struct {
	labels    labels.Labels
	t         int64
	v         float64
	histogram *histogram.Histogram
	float     *histogram.FloatHistogram
}

// encode makes the body of a remote-write request.
func encode(samples []sample, proto remoteapi.WriteMessageType) ([]byte, error) {
	var (
		body []byte
		err  error
	)
	if proto == remoteapi.WriteV2MessageType {
		body, err = requestV2(samples).Marshal()
	} else {
		body, err = requestV1(samples).Marshal()
	}
	if err != nil {
		return nil, fmt.Errorf("encode remote-write request: %w", err)
	}
	return compression.Encode(compression.Snappy, body, nil)
}

func requestV1(samples []sample) *prompb.WriteRequest {
	req := &prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, 0, len(samples))}
	for _, s := range samples {
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(s.labels, nil)}
		switch {
		case s.histogram != nil:
			ts.Histograms = []prompb.Histogram{prompb.FromIntHistogram(s.t, s.histogram)}
		case s.float != nil:
			h := prompb.FromFloatHistogram(s.t, s.float)
			h.CustomValues = s.float.CustomValues // which that function forgets
			ts.Histograms = []prompb.Histogram{h}
		default:
			ts.Samples = []prompb.Sample{{Value: s.v, Timestamp: s.t}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return req
}

func requestV2(samples []sample) *writev2.Request {
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{Timeseries: make([]writev2.TimeSeries, 0, len(samples))}
	for _, s := range samples {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.labels, nil)}
		switch {
		case s.histogram != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(s.t, s.histogram)}
		case s.float != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(s.t, s.float)}
		default:
			ts.Samples = []writev2.Sample{{Value: s.v, Timestamp: s.t}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	return req
}
